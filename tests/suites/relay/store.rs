//! The store stands still, and is lost, under live calls: no packet asks it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use streamfleet_tests::Traffic;

use crate::at_a_site;
use crate::load::Load;

const CALLS: usize = 30;
/// Longer than the leases that workers renew there.
const AWAY: Duration = Duration::from_secs(7);
/// A call that notices nothing: what was on its way to a relay when the hash of its flow changed may be lost.
const UNNOTICED_MS: f64 = 60.0;

#[test]
fn calls_do_not_notice_that_the_store_is_away() -> Result<()> {
    at_a_site(|site| {
        let load = Load::start(&site.client, &site.url("echo"), CALLS, 30, Duration::from_secs(18))?;
        load.await_all(site)?;
        site.redis.signal("STOP")?;
        thread::sleep(AWAY / 2);
        // Relays go on with each other's calls meanwhile.
        site.edge.serve(Traffic::Media, &[1, 2])?;
        thread::sleep(AWAY / 2);
        site.redis.signal("CONT")?;
        site.redis.kill()?;
        thread::sleep(AWAY / 2);
        site.edge.serve(Traffic::Media, &[0, 1, 2])?;
        thread::sleep(AWAY / 2);
        site.restart_store()?;
        let outcome = load.finish()?;
        println!("the store stopped for {AWAY:?} and killed for {AWAY:?}: {}", outcome.text());
        outcome.none_ended()?;
        ensure!(outcome.share() > 0.999 && outcome.outages().max <= UNNOTICED_MS, "{}", outcome.text());
        Ok(())
    })
}
