//! Clients of IPv4 and of IPv6, workers of either, and one relay between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use streamfleet_tests::{Media, Shape};

use crate::caller::{PLAYED_HZ, Plan};
use crate::{World, in_a_fleet, offer, service, shape};

/// The addresses and ports of an answer's candidates, which stand in each of its m-lines, once.
fn candidates(sdp: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for line in sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:")) {
        let words: Vec<&str> = line.split(' ').collect();
        let address = words
            .get(4)
            .zip(words.get(5))
            .and_then(|(ip, port)| Some((ip.parse::<IpAddr>().ok()?, port.parse().ok()?)));
        found.extend(address.map(SocketAddr::from).filter(|address| !found.contains(address)));
    }
    found
}

#[test]
fn clients_of_both_families_reach_workers_of_both() -> Result<()> {
    let shape = Shape { routers: 1, media: Media::BothFamilies, ..shape(vec![service("tone", "plain-tone")]) };
    in_a_fleet(shape, async |world: &mut World| {
        let (status, answer) = world.ask(0, "POST", "/tone/webrtc/offer", &offer("looked-at", 1))?;
        ensure!(status == 200, "{status} {answer}");
        let told = candidates(answer["sdp"].as_str().context("no answer")?);
        let ips: Vec<IpAddr> = told.iter().map(SocketAddr::ip).collect();
        ensure!(ips == [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()], "{told:?}");
        ensure!(told[0].port() == told[1].port(), "{told:?}");
        world.end(0, "tone", "looked-at")?;
        for worker in ["w0", "w1"] {
            for client in ips.iter().copied() {
                let plan = || Plan { from: vec![client], ..Plan::of("tone") };
                let called = world.dial_on(0, worker, plan).await;
                let caller = called.with_context(|| format!("{client} to {worker}"))?;
                caller.hears(PLAYED_HZ, Instant::now()).await.with_context(|| format!("{client} to {worker}"))?;
                world.end(0, "tone", caller.id().as_str())?;
            }
        }
        world.await_no_places().await
    })
}
