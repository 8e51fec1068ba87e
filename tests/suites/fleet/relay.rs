//! Media of all clients through one address, whichever relay is behind it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use streamfleet_tests::{Media, Shape, judged};

use crate::caller::{PLAYED_HZ, Plan};
use crate::{World, blocking, in_a_fleet, offer, service, shape};

/// How long media is watched after a relay has gone.
const WATCHED: Duration = Duration::from_secs(4);
/// For packets to come again: nothing has to be learnt, only what was on its way is lost, and a busy machine is late.
const LONGEST: Duration = Duration::from_secs(2);
/// As many as the machine of the tests carries beside all processes of a fleet in a debug build.
const CALLS: usize = 12;

fn relayed() -> Shape {
    Shape { media: Media::Relayed, ..shape(vec![service("tone", "plain-tone")]) }
}

/// The answer names the address of all relays and nobody else's, and the first packet may arrive at any.
#[test]
fn a_call_comes_by_another_relay_than_its_offer() -> Result<()> {
    judged(|| {
        in_a_fleet(relayed(), async |world: &mut World| {
            let balancer = world.fleet.balancer.as_ref().context("none")?;
            let address = balancer.address()?;
            let (status, answer) = world.ask(0, "POST", "/tone/webrtc/offer", &offer("looked-at", 1))?;
            let sdp = answer["sdp"].as_str().context("no answer")?.to_owned();
            ensure!(status == 200, "{status} {answer}");
            let candidates: Vec<&str> = sdp.lines().filter(|line| line.starts_with("a=candidate")).collect();
            let there = format!(" {} {} typ host", address.ip(), address.port());
            ensure!(!candidates.is_empty() && candidates.iter().all(|line| line.contains(&there)), "{sdp}");
            let ufrag = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap_or_default();
            ensure!(ufrag.len() == 32, "{ufrag}");
            for (router, relay) in [(0, 1), (1, 0), (0, 0)] {
                balancer.serve(relay);
                let began = Instant::now();
                let caller = world.dial(router, Plan::of("tone")).await?;
                caller.hears(PLAYED_HZ, began).await?;
                world.end(router, "tone", caller.id().as_str())?;
            }
            world.end(1, "tone", "looked-at")?;
            world.await_no_places().await
        })
    })
}

#[test]
fn a_killed_relay_costs_its_calls_a_moment() -> Result<()> {
    judged(|| {
        in_a_fleet(relayed(), async |world: &mut World| {
            let mut callers = Vec::new();
            for _ in 0..CALLS {
                let caller = world.dial(1, Plan::of("tone")).await?;
                caller.hears(PLAYED_HZ, Instant::now()).await?;
                callers.push(caller);
            }
            // What is told of the last call has arrived.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let killed = Instant::now();
            world.fleet.routers[0].server.kill()?;
            world.fleet.balancer.as_ref().context("none")?.serve(1);
            tokio::time::sleep(WATCHED).await;
            let mut pauses = Vec::new();
            for caller in &callers {
                let media = caller.media_since(killed);
                ensure!(caller.is_live() && media.pause < LONGEST, "{media:?}");
                pauses.push(media.pause);
            }
            pauses.sort_unstable();
            println!("relay killed under {CALLS} calls: longest pauses {pauses:?}");
            // They are there now.
            let metrics = blocking(|| world.fleet.routers[1].server.metrics())?;
            ensure!(metrics.sum_where("streamfleet_relay_flows", "own") == Some(CALLS as f64), "{}", metrics.names());
            for caller in &callers {
                world.end(1, "tone", caller.id().as_str())?;
            }
            world.await_no_places().await
        })
    })
}
