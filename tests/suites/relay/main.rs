//! A whole site in network namespaces: clients, a load balancer that hashes flows (ECMP), relays in routers, and workers that
//! clients have no way to. What is judged is what arrives.

#![expect(clippy::print_stdout, reason = "the suite prints its figures for the log")]

mod calls;
mod deaths;
mod floods;
mod homes;
mod keys;
mod load;
mod paths;
mod store;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use streamfleet_tests::{Keys, Plan, Site, judged};

/// Starting a browser and a call takes 2 s on an idle core, and longer on a busy one.
const LIMIT: Duration = Duration::from_secs(60);
/// Three routers with one key, unless a test has others.
const PLAN: Plan<'static> = Plan { routers: 3, keys: KEY, flows: None };
const KEY: Keys<'static> = Keys { key: FIRST_KEY, previous: None };
const FIRST_KEY: &str = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf";
const SECOND_KEY: &str = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf";

/// One site at a time: what is measured of one is not to be the load of another.
static MACHINE: Mutex<()> = Mutex::new(());

/// A service whose path is its name and whose handler is `handler`; its calls are spread over the workers.
fn service(name: &str, handler: &str) -> Value {
    json!({
        "name": name, "path": format!("/{name}"), "handler": { "name": handler },
        "workers": { "sessionsPerWorker": 400 }, "routing": { "packing": "Spread" },
    })
}

/// Starts three routers and two workers, and runs `test` on them.
fn at_a_site(test: impl FnMut(&mut Site) -> Result<()>) -> Result<()> {
    at_a_site_of(PLAN, test)
}

/// Starts routers by this plan and two workers, and runs `test` on them. What the parts said is told of a failure.
/// All of it is judged by what comes in time: a run on a machine that gives its cores away says nothing.
fn at_a_site_of(plan: Plan<'_>, mut test: impl FnMut(&mut Site) -> Result<()>) -> Result<()> {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    judged(|| {
        let mut site = Site::start(plan, 2, vec![service("echo", "echo")])?;
        test(&mut site).with_context(|| site.printed())
    })
}

/// The sum of a counter over the routers that run.
fn at_routers(site: &Site, name: &str, label: &str) -> Result<f64> {
    let scrape = |number: usize| Ok(site.router(number)?.sum_where(name, label).unwrap_or_default());
    site.running().into_iter().map(scrape).sum()
}
