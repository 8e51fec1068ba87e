//! Clients that want the same id at the same time.

use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{browser_offer, judged};

use crate::{World, blocking, in_a_fleet, plain, shape};

/// Ids that are raced for.
const ROUNDS: usize = 200;
/// Of them at a time: each has two offers under way.
const TOGETHER: usize = 10;

#[test]
fn of_two_offers_for_an_id_by_two_routers_one_wins() -> Result<()> {
    judged(|| {
        in_a_fleet(shape(plain(&["plain-echo"])), async |world: &mut World| {
            let began = Instant::now();
            let mut won = [0, 0];
            for first in (0..ROUNDS).step_by(TOGETHER) {
                let winners = blocking(|| race(world, first))?;
                for winner in winners {
                    won[winner] += 1;
                }
            }
            println!("{ROUNDS} races in {:?}: won by {won:?}", began.elapsed());
            ensure!(won.iter().all(|won| *won > 0), "a race that one router always wins is none");
            // They may be more than a list has on a page.
            ensure!(world.places("plain-echo").await? as usize == ROUNDS, "a place for each winner");
            blocking(|| end_all(world))?;
            world.await_no_places().await
        })
    })
}

fn id(round: usize) -> String {
    format!("raced-for-{round}")
}

/// Offers for some ids by both routers at once. Returns who won each.
fn race(world: &World, first: usize) -> Result<Vec<usize>> {
    let start = Barrier::new(2 * TOGETHER);
    let answers: Vec<Result<(usize, usize, u16, Value)>> = thread::scope(|scope| {
        let each = (first..first + TOGETHER).flat_map(|round| [(round, 0), (round, 1)]);
        let threads: Vec<_> = each
            .map(|(round, router)| {
                let start = &start;
                scope.spawn(move || {
                    let seed = u32::try_from(2 * round + router)?;
                    let body = json!({ "type": "offer", "webrtc_id": id(round), "sdp": browser_offer(seed) });
                    start.wait();
                    let (status, answer) = ask(world, router, "POST", "/plain-echo/webrtc/offer", &body)?;
                    Ok((round, router, status, answer))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().ok().context("panicked")?).collect()
    });
    let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
    let winner = |round: usize| {
        let both: Vec<_> = answers.iter().filter(|answer| answer.0 == round).collect();
        let won: Vec<usize> =
            both.iter().filter(|answer| answer.3["type"] == "answer").map(|answer| answer.1).collect();
        let refused = both.iter().filter(|answer| answer.3["meta"]["error"] == "connection_already_exists").count();
        ensure!(won.len() == 1 && refused == 1, "{both:?}");
        Ok(won[0])
    };
    (first..first + TOGETHER).map(winner).collect()
}

/// As [`World::ask`], from a thread that is no runtime's.
fn ask(world: &World, router: usize, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let answer = world.fleet.routers[router].ask(method, path, body)?;
    Ok((answer.status, answer.json()?))
}

fn end_all(world: &World) -> Result<()> {
    thread::scope(|scope| {
        let ends: Vec<_> = (0..TOGETHER).map(|part| scope.spawn(move || end(world, part))).collect();
        ends.into_iter().try_for_each(|end| end.join().ok().context("panicked")?)
    })
}

fn end(world: &World, part: usize) -> Result<()> {
    for round in (part..ROUNDS).step_by(TOGETHER) {
        let path = format!("/plain-echo/sessions/{}", id(round));
        let (status, answer) = ask(world, round % 2, "DELETE", &path, &Value::Null)?;
        ensure!(status == 200, "{round}: {status} {answer}");
    }
    Ok(())
}
