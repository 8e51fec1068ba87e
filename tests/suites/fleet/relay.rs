//! Media of all clients through one address, whichever relay is behind it.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Media, Redis, Server, Shape, judged, streamfleet};

use crate::caller::{PLAYED_HZ, Plan};
use crate::{World, blocking, in_a_fleet, offer, service, shape};

/// How long media is watched after a relay has gone.
const WATCHED: Duration = Duration::from_secs(4);
/// For packets to come again: nothing has to be learnt, only what was on its way is lost, and a busy machine is late.
const LONGEST: Duration = Duration::from_secs(2);
/// As many as the machine of the tests carries beside all processes of a fleet in a debug build.
const CALLS: usize = 12;

/// Of a fleet on one machine, whose relays have one port. The load is of packets that come back as they went, which costs little.
const ROUTERS: usize = 3;
const LOAD: u64 = 20;
const LOAD_S: &str = "12";

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

/// A service whose workers clients reach by themselves, and one whose workers they do not, in one fleet.
#[test]
fn a_service_chooses_whether_its_media_is_relayed() -> Result<()> {
    judged(|| {
        let mut direct = service("direct", "plain-tone");
        direct["media"] = json!({ "exposure": "HostPort" });
        let shape = Shape { media: Media::Relayed, ..shape(vec![service("tone", "plain-tone"), direct]) };
        in_a_fleet(shape, async |world: &mut World| {
            let relays = world.fleet.balancer.as_ref().context("none")?.address()?;
            for (name, is_relayed) in [("tone", true), ("direct", false)] {
                let (status, answer) =
                    world.ask(0, "POST", &format!("/{name}/webrtc/offer"), &offer(&format!("of-{name}"), 1))?;
                ensure!(status == 200, "{status} {answer}");
                let sdp = answer["sdp"].as_str().context("no answer")?;
                let there = format!(" {} {} typ host", relays.ip(), relays.port());
                let mut candidates = sdp.lines().filter(|line| line.starts_with("a=candidate")).peekable();
                ensure!(candidates.peek().is_some(), "{sdp}");
                ensure!(candidates.all(|line| line.contains(&there) == is_relayed), "{name}: {sdp}");
                world.end(1, name, &format!("of-{name}"))?;
                let began = Instant::now();
                let caller = world.dial(0, Plan::of(name)).await?;
                caller.hears(PLAYED_HZ, began).await?;
                world.end(1, name, caller.id().as_str())?;
            }
            world.await_no_places().await
        })
    })
}

/// The processes of a router of `streamfleet fleet`, the first first.
fn processes(fleet: &Server, router: usize) -> Vec<String> {
    let mark = format!("router {router}, pid ");
    let printed = fleet.printed();
    let pids = printed.lines().filter_map(|line| Some(line.split_once(&mark)?.1.split(',').next()?.to_owned()));
    pids.collect()
}

/// All routers of one machine have one media port, and the kernel is their load balancer: one that dies leaves its calls to the
/// others, and one that comes takes some of the others', which it has asked for before.
#[test]
fn a_router_of_a_fleet_on_one_machine_dies_and_comes_again_under_its_calls() -> Result<()> {
    judged(|| {
        let redis = Redis::start()?;
        let arguments = ["--redis", &redis.address().to_string(), "--routers", &ROUTERS.to_string(), "--log", "warn"];
        let fleet = Server::start_fleet(&arguments, &[])?;
        let report = std::env::temp_dir().join(format!("load-{}.json", std::process::id()));
        let load = Command::new(streamfleet()?)
            .args(["load", &format!("{}/echo", fleet.url()), "-n", &LOAD.to_string(), "--seconds", LOAD_S, "--json"])
            .arg(&report)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // All calls are there, and every relay knows them.
        thread::sleep(Duration::from_secs(4));
        for router in 1..=2 {
            let killed = processes(&fleet, router).pop().context("no such router")?;
            let status = Command::new("kill").args(["-9", &killed]).status()?;
            ensure!(status.success(), "kill: {status}");
            let began = Instant::now();
            while processes(&fleet, router).last() == Some(&killed) {
                ensure!(began.elapsed() < Duration::from_secs(20), "router {router} does not come again");
                thread::sleep(Duration::from_millis(50));
            }
        }
        let output = load.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "load: {}: {told}", output.status);
        let report: Value = serde_json::from_slice(&fs::read(&report)?)?;
        println!("two routers killed under {LOAD} calls: {}", report["packets"]);
        ensure!(report["sessions"]["clean"] == LOAD, "{report}");
        Ok(())
    })
}
