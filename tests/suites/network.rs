//! Calls over a network that changes under them: real clients, the real process, and a NAT between the two.

#![expect(clippy::print_stdout, reason = "helpers of tests print their figures for the log")]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use streamfleet_tests::{Figures, Loss, Nat, Script, Server, WithoutCandidates, judged, streamfleet};

/// Python and its codecs take seconds to load on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// A moved client has its audio again within this. One round trip is enough on an idle machine; a build may hold the cores.
const FOLLOWED: Duration = Duration::from_secs(1);
/// The longest pause between two frames that the client played. aiortc's buffer waits for 16 packets, 320 ms, before it gives up
/// those that were sent to the old port.
const PAUSE_MS: f64 = 1_500.0;
/// A second without a hole comes within this.
const CLEAN: Duration = Duration::from_secs(15);

/// A server that tells clients another address than it listens at, and the network that is reached there.
fn beyond_a_nat(loss: Loss) -> Result<(Server, Nat)> {
    let server = Server::start(&[("STREAMFLEET_MEDIA_LOOPS", "1"), ("STREAMFLEET_MEDIA_ADVERTISE", "127.0.0.2")])?;
    let [outside] = server.media() else { anyhow::bail!("one loop, one address: {:?}", server.media()) };
    let nat = Nat::before_worker(*outside, loss)?;
    Ok((server, nat))
}

/// The call's own tone: frequency to 3 Hz, level within 3 dB of what aiortc makes of it, clean.
fn is_clean(event: &Value) -> bool {
    let figure = |name: &str| event[name].as_f64().unwrap_or(f64::NAN);
    (figure("peak_hz") - figure("hz")).abs() < 3.0
        && (figure("level_db") + 18.0).abs() < 3.0
        && figure("over_rest_db") > 25.0
}

/// Listens until a whole second was clean, and returns the longest pause until then, in milliseconds. A machine that is busy
/// otherwise may tear a hole into one second; it does not do so for ever, and what is lost is.
fn await_clean(script: &mut Script) -> Result<f64> {
    let (started, mut pause) = (Instant::now(), 0.0_f64);
    loop {
        let heard = script.expect("heard", LIMIT)?;
        pause = pause.max(heard["gap_ms"].as_f64().unwrap_or(f64::NAN));
        if is_clean(&heard) {
            return Ok(pause);
        }
        ensure!(started.elapsed() < CLEAN, "not clean after {CLEAN:?}: {heard}");
        script.tell("hear")?;
    }
}

/// The client does not know that it moves, and offers no candidate: only the NAT's two sides know of each other.
fn moves_keep_the_audio(path: &str, moves: u32) -> Result<()> {
    let (server, nat) = beyond_a_nat(Loss::None)?;
    let mut script = Script::python(
        "call",
        &json!({ "url": format!("{}{path}", server.url()), "id": "moving", "mode": "none", "seconds": 1.5, "hold": true }),
    )?;
    await_clean(&mut script)?;
    ensure!(moved(&server)? == 0.0, "nobody has moved yet");
    for n in 1..=moves {
        nat.move_clients()?;
        script.tell("hear")?;
        // A second of it, all of it heard after the move.
        let pause = await_clean(&mut script)?;
        let Figures { followed_after, misdirected, .. } = nat.figures();
        let followed = followed_after.context("no packet came to the new port, and yet there is sound")?;
        println!(
            "{path}, move {n}: followed after {:.1} ms, a pause of {pause:.0} ms heard; {misdirected} datagrams to old ports so far",
            followed.as_secs_f64() * 1e3
        );
        assert!(followed < FOLLOWED, "{followed:?}");
        assert!(pause < PAUSE_MS, "{pause} ms");
        assert_eq!(moved(&server)?, f64::from(n), "each move is counted once");
    }
    assert_eq!(server.sessions(path)?.len(), 1, "it is still the same session");
    script.finish(LIMIT)?;
    server.await_no_sessions(&[path], Duration::from_secs(10))?;
    Ok(())
}

fn moved(server: &Server) -> Result<f64> {
    let metrics = server.metrics()?;
    metrics.sum("streamfleet_media_paths_moved_total").with_context(|| metrics.names())
}

#[test]
fn a_client_on_another_port_keeps_its_audio() -> Result<()> {
    judged(|| moves_keep_the_audio("/echo", 3))
}

#[test]
fn a_client_on_another_port_keeps_its_frames() -> Result<()> {
    judged(|| moves_keep_the_audio("/echo-frames", 1))
}

/// `streamfleet call` over this link, and what it reports.
fn call(loss: Loss) -> Result<(Value, Figures)> {
    let (server, nat) = beyond_a_nat(loss)?;
    let signalling = WithoutCandidates::before(server.url())?;
    // The first report of the server comes after half a second to a second, and each further one five seconds later: the last
    // of this call is of five whole seconds.
    let output = Command::new(streamfleet()?)
        .args(["call", &format!("{}/echo", signalling.url()), "--seconds", "7", "--json", "--no-reconnect"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "call: {}: {said}", output.status);
    let report = serde_json::from_slice(&output.stdout).with_context(|| format!("the report of `call`: {said}"))?;
    Ok((report, nat.figures()))
}

/// The share that the server says was lost is the share that the network lost, and none where none was.
#[test]
fn the_report_of_a_call_shows_what_the_network_lost() -> Result<()> {
    judged(|| {
        #[track_caller]
        fn check(loss: Loss, least: f64, most: f64) {
            let (report, figures) = call(loss).expect("a call");
            println!("{loss:?}: {figures:?}; reported {}", report["remote_loss"]);
            assert_eq!(report["verdict"], "heard", "{report}");
            let reported = report["remote_loss"].as_f64().unwrap_or(f64::NAN);
            assert!((least..=most).contains(&reported), "{loss:?}: {figures:?}; {report}");
            // All packets that the client counts came this way, so none went around the loss.
            let sent = report["packets_sent"].as_u64().unwrap_or(0);
            assert!(
                figures.passed + figures.lost <= sent && figures.passed + figures.lost + 10 >= sent,
                "{figures:?}; {report}"
            );
        }
        thread::scope(|scope| {
            let lossy = scope.spawn(|| check(Loss::Media { one_in: 20, seed: 5 }, 0.03, 0.07));
            check(Loss::None, 0.0, 0.0);
            lossy.join().map_err(|_| anyhow::anyhow!("with loss"))
        })
    })
}
