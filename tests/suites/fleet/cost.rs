//! What a fleet asks of its store.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use streamfleet_tests::Sent;

use crate::caller::{Plan, SAID_HZ};
use crate::{PATIENCE, World, in_a_fleet, offer, plain, shape, until};

#[test]
fn an_offer_costs_one_round_trip_before_its_answer() -> Result<()> {
    in_a_fleet(shape(plain(&["plain-echo"])), async |world: &mut World| {
        let answered = async |world: &World, n: u32| -> Result<String> {
            let id = format!("counted-{n}");
            let (status, answer) = world.ask(0, "POST", "/plain-echo/webrtc/offer", &offer(&id, n))?;
            ensure!(answer["type"] == "answer", "{status} {answer}");
            Ok(id)
        };
        // The first claim sends the script as well.
        let first = answered(world, 0).await?;
        let monitor = world.fleet.redis.monitor()?;
        let id = answered(world, 1).await?;
        let of_it = |sent: Sent| sent.text.contains(&id).then_some(sent);
        let reported = async || {
            let sent: Vec<Sent> = monitor.sent()?.into_iter().filter_map(of_it).collect();
            Ok((!sent.is_empty()).then_some(sent))
        };
        let (sent, _) = until("the claim is recorded", PATIENCE, reported).await?;
        let router = world.fleet.routers[0].server.tcp_ports()?;
        let claims = sent.iter().filter(|sent| router.contains(&sent.port)).count();
        ensure!(claims == 1 && sent[0].text.starts_with("\"EVALSHA\""), "{sent:?}");
        ensure!(sent.iter().all(|sent| router.contains(&sent.port)), "the id is told to the store once: {sent:?}");
        drop(monitor);
        for id in [first, id] {
            world.end(1, "plain-echo", &id)?;
        }
        world.await_no_places().await
    })
}

/// How long commands are counted.
const COUNTED: Duration = Duration::from_secs(10);

#[test]
fn a_fleet_without_offers_asks_little() -> Result<()> {
    in_a_fleet(shape(plain(&["plain-echo", "memory"])), async |world: &mut World| {
        let services = world.services().len() as f64;
        let caller = world.dial(0, Plan::of("plain-echo")).await?;
        caller.hears(SAID_HZ, Instant::now()).await?;
        let since = Instant::now();
        let before = world.fleet.redis.fleet_commands()?;
        tokio::time::sleep(COUNTED).await;
        let seconds = since.elapsed().as_secs_f64();
        let count = world.fleet.redis.fleet_commands()? - before;
        let rate = count as f64 / seconds;
        println!("measured: two routers, two workers, {services} services, one call: {rate:.1} commands a second");
        // For each service a router looks at its workers once a second, and a worker renews its lease every two. Who has lost
        // its connection asks for it again now and then, and a busy machine is late with all of it.
        let expected = services * (2.0 + 2.0 / 2.0);
        ensure!(rate <= expected * 1.25 + 1.0, "{rate} commands a second, {expected} expected");
        ensure!(rate >= expected / 2.0, "{rate} commands a second: who keeps the fleet together?");
        caller.hang_up().await.context("it was shared")?;
        world.await_no_places().await
    })
}
