//! A relay that dies under many calls, and one that comes: which relay a call's packets reach then is the load balancer's
//! choice, and nobody asks the relays.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;
use streamfleet_tests::{Script, Site, Traffic};

use crate::load::Load;
use crate::{KEY, LIMIT, at_a_site, at_routers};

/// Under so many calls a relay dies.
const CALLS: usize = 200;
/// How long this load balancer takes to see that a relay is dead: checks every 100 ms, of which the third that fails counts.
const DETECTION: Duration = Duration::from_millis(300);
/// Beyond that, 99 of 100 calls have their media again within this.
const REACH: Duration = Duration::from_millis(200);

/// What each relay has said of its flows has arrived at the others.
const TOLD: Duration = Duration::from_millis(500);

#[test]
fn a_killed_relay_costs_its_calls_a_moment() -> Result<()> {
    at_a_site(a_relay_dies_and_comes_back)
}

fn a_relay_dies_and_comes_back(site: &mut Site) -> Result<()> {
    let load = Load::start(&site.client, &site.url("echo"), CALLS, 40, Duration::from_secs(16))?;
    load.await_all(site)?;
    thread::sleep(TOLD);
    let killed = Instant::now();
    let lost = site.router(0)?.sum_where("streamfleet_relay_flows", "own").unwrap_or_default();
    site.kill_router(0)?;
    thread::sleep(DETECTION);
    serve(site, &[1, 2])?;
    let detection = killed.elapsed();
    thread::sleep(Duration::from_secs(4));
    let left = at_routers(site, "streamfleet_relay_flows", "own")?;

    // It comes back knowing nothing, and gets its part of the calls the moment that it says it is ready.
    let began = Instant::now();
    site.start_router(0, KEY)?;
    let ready = began.elapsed();
    serve(site, &[0, 1, 2])?;
    thread::sleep(Duration::from_secs(3));
    let taken = site.router(0)?.sum_where("streamfleet_relay_flows", "own").unwrap_or_default();
    let astray = site.router(0)?.sum_where("streamfleet_relay_dropped_total", "unknown_flow").unwrap_or_default();
    let outcome = load.finish()?;
    println!(
        "killed under {lost} of {CALLS} calls, detected after {} ms; {left} flows at the others then; ready again after {} ms, \
         {taken} flows there and {astray} packets of flows that nobody had told it of; {}",
        detection.as_millis(),
        ready.as_millis(),
        outcome.text()
    );
    outcome.none_ended()?;
    ensure!(lost > 0.0 && taken > 0.0, "both times some are moved");
    ensure!(astray == 0.0, "{astray} packets came to a relay that did not know their flows");
    let most = detection + REACH;
    ensure!(outcome.outages().p99 <= most.as_secs_f64() * 1e3, "{most:?}: {}", outcome.text());
    Ok(())
}

fn serve(site: &Site, by: &[usize]) -> Result<()> {
    site.edge.serve(Traffic::Media, by)?;
    site.edge.serve(Traffic::Signalling, by)
}

/// Chromium's own call: what it says after the death of its relay comes back.
#[test]
fn a_browsers_call_goes_on() -> Result<()> {
    const TONES: [f64; 4] = [440.0, 1_000.0, 600.0, 1_400.0];
    at_a_site(|site| {
        let options = json!({ "url": site.url("echo"), "id": "browser", "shape": "complete", "tones": TONES });
        let mut script = site.client.run(|| Script::browser("call", &options))?;
        script.expect("connected", LIMIT)?;
        let mut switched = Vec::new();
        for (number, hz) in TONES.into_iter().enumerate() {
            let tone = script.expect("tone", LIMIT)?;
            let heard = tone["received"]["peak_hz"].as_f64().unwrap_or(f64::NAN);
            ensure!((heard - hz).abs() < 8.0, "{tone}");
            switched.push(tone["switch_ms"].as_f64().unwrap_or(f64::NAN) as u64);
            if number == 0 {
                let flows = |relay: &usize| -> Result<f64> {
                    Ok(site.router(*relay)?.sum_where("streamfleet_relay_flows", "own").unwrap_or_default())
                };
                let with: Vec<usize> =
                    site.running().into_iter().filter(|relay| flows(relay).is_ok_and(|n| n > 0.0)).collect();
                let [there] = with[..] else { bail!("its call is at relays {with:?}") };
                site.kill_router(there)?;
                thread::sleep(DETECTION);
                serve(site, &site.running())?;
            }
        }
        script.expect("done", LIMIT)?;
        println!("tones were heard {switched:?} ms after they began, the second with the death of the relay in it");
        // The tone comes with the media: the death, a browser's buffer, and the time that it takes to tell a tone.
        ensure!(switched[1] < 3_000, "{switched:?}");
        script.finish(LIMIT)
    })
}

/// The hash of all flows changes while all relays live, again and again.
#[test]
fn a_rehash_costs_nothing() -> Result<()> {
    at_a_site(|site| {
        let load = Load::start(&site.client, &site.url("echo"), CALLS / 2, 40, Duration::from_secs(10))?;
        load.await_all(site)?;
        thread::sleep(TOLD);
        for by in [&[1, 2][..], &[0, 1], &[2], &[0, 1, 2]] {
            site.edge.serve(Traffic::Media, by)?;
            thread::sleep(Duration::from_millis(1_500));
        }
        let outcome = load.finish()?;
        println!("hashed anew four times: {}", outcome.text());
        outcome.none_ended()?;
        ensure!(outcome.share() > 0.999, "{}", outcome.text());
        ensure!(outcome.outages().p99 <= REACH.as_secs_f64() * 1e3, "{}", outcome.text());
        Ok(())
    })
}
