//! Clients that stop reading.

use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_tests::{Received, Server, WebSocket, judged};

use crate::MACHINE;
use crate::hostile::{PHONE, SOCKET, call, mulaw, server, start};

/// Until the buffers of two kernels are full, and the ten seconds after that in which nothing is taken.
const CLOSED_WITHIN: Duration = Duration::from_secs(120);
/// Between two frames of the other client. If it had to wait for the one that does not read, it would be ten seconds; on a
/// machine all of whose cores are busy it was three once.
const LONGEST_GAP: Duration = Duration::from_secs(5);
/// What a session may hold for a client that does not read, and what comes and goes in a process beside it.
const HELD: u64 = 4 << 20;

/// Looks at a client that does not read until it is closed, while another one on the same route hears all. Gives the figures.
fn watch(server: &Server, route: &str, slow: &str) -> Result<String> {
    let url = format!("{}/plain-tone/{route}", server.url());
    let begin = |socket: &mut WebSocket, id: &str| match route {
        PHONE => call(socket, id, mulaw()),
        _ => start(socket, id, json!({ "codec": "pcm16" })),
    };
    let mut socket = WebSocket::open_narrow(&url)?;
    begin(&mut socket, slow)?;
    let mut other = WebSocket::open(&url)?;
    begin(&mut other, &format!("beside-{slow}"))?;
    let heap = server.heap()?;
    let (began, mut frames) = (Instant::now(), 0_u32);
    loop {
        let received = other.next(LONGEST_GAP)?;
        ensure!(matches!(received, Some(Received::Text(_))), "frame {frames} of the other: {received:?}");
        frames += 1;
        if frames % 10 != 0 || frames < 20 {
            continue;
        }
        ensure!(server.heap()? < heap + HELD, "what waits for it grows");
        if server.control("GET", &format!("/plain-tone/sessions/{slow}"))?.status == 404 {
            break;
        }
        ensure!(began.elapsed() < CLOSED_WITHIN, "it is still there");
    }
    let took = began.elapsed().as_secs_f64();
    ensure!(took >= 10.0, "closed after {took:.1} s, before its time was over");
    Ok(format!("{route}: closed after {took:.1} s, {frames} frames for the other"))
}

/// What waits for it is bounded, it is closed for it, and nobody else waits.
#[test]
fn a_client_that_does_not_read_is_closed_for_it() -> Result<()> {
    judged(|| {
        let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        let server = Arc::new(server()?);
        let watched = [(SOCKET, "slow"), (PHONE, "slow-phone")].map(|(route, slow)| {
            let server = server.clone();
            (route, thread::spawn(move || watch(&server, route, slow)))
        });
        for (route, watched) in watched {
            println!("{}", watched.join().map_err(|_| anyhow::anyhow!("a panic"))?.context(route)?);
        }
        let ended = server.metrics()?.sum_where("streamfleet_sessions_ended_total", "reason=\"slow_client\"");
        ensure!(ended == Some(2.0), "{ended:?} ended as slow clients:\n{}", server.metrics()?.names());
        Ok(())
    })
}
