//! How a conversation ends: what is heard before, what is told, how soon it is over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use streamfleet_client::{BareEvent, BareSocket, EndReason, Message, SocketOptions};
use streamfleet_tests::{Server, judged};

use crate::caller::{Caller, Plan, Told, Via};
use crate::context::outputs;
use crate::{AT_ONCE, PATIENCE, blocking, each, on_each, plain, service};

/// Every way in which an application ends its session, and what the client is told. Each says a second of 660 Hz first.
const WAYS: [(&str, &str); 5] = [
    ("bye", "bye"),
    ("bye-at-once", "Stream closed"),
    ("end-receive", "bye"),
    ("end-task", "bye"),
    ("end-handle", "bye"),
];

/// What a client of this transport knows of the end: telephones are told nothing.
fn told(via: Via, words: &str) -> EndReason {
    match via {
        Via::WebRtc | Via::WebSocket => EndReason::EndStream(words.to_owned()),
        Via::Telephone => EndReason::ClosedByServer,
    }
}

fn check_whole_second(caller: &Caller, via: Via) -> Result<()> {
    let span = caller.look(|told| told.sound.span_seconds());
    ensure!(via.all_of(1.0).contains(&span), "{span:.4} s of one second were heard");
    let tone = caller.look(|told| told.sound.tone_seconds(660.0));
    let least = if via == Via::WebRtc { 0.8 } else { 0.94 };
    ensure!(tone >= least, "{tone} s of {span:.4} s are the tone");
    Ok(())
}

#[test]
fn everything_said_before_the_end_is_heard_and_then_it_is_over() -> Result<()> {
    judged(|| {
        for (service, words) in WAYS {
            // One way after the other: fifteen calls at once would measure the machine.
            let server = on_each(plain(&[service]), |server, via| async move {
                let caller = Caller::dial(&server, via, Plan::of(service)).await?;
                let (_, reason) = caller.listen_to_the_end(PATIENCE).await?;
                ensure!(reason == told(via, words), "{reason:?}");
                check_whole_second(&caller, via)?;
                check_told_after(&caller, via)?;
                let over = await_over(&server, service, caller.id().as_str())?;
                ensure!(over <= AT_ONCE, "the session is over {over:?} after its end was told");
                let summary = caller.hang_up().await.context("the recorder is gone")?;
                if via == Via::WebRtc {
                    let packets = summary.stats.audio.received;
                    ensure!(packets >= 50, "{packets} packets: the last 20 ms are missing");
                }
                Ok(())
            });
            check_reason(&*server.context(service)?, "end_stream", Via::ALL.len())?;
        }
        Ok(())
    })
}

/// `end_stream` does not come before what was said has played. Sockets send 200 ms ahead, and a client plays what it has.
fn check_told_after(caller: &Caller, via: Via) -> Result<()> {
    if via == Via::Telephone {
        return Ok(());
    }
    let (first, _) = caller.look(|told| told.sound.when(660.0)).context("no tone")?;
    let at = caller
        .look(|told| told.messages().find(|(_, message)| matches!(message, Message::EndStream(_))).map(|(at, _)| at));
    let after = at.context("no message")?.saturating_duration_since(first);
    // A steady client hears everything later by its delay.
    let least = if via == Via::WebRtc { 500 } else { 700 };
    ensure!(after >= Duration::from_millis(least), "`end_stream` {after:?} after the first sound");
    Ok(())
}

/// How long it takes until control knows nothing of the session any more.
fn await_over(server: &Server, service: &str, id: &str) -> Result<Duration> {
    let began = Instant::now();
    blocking(|| {
        loop {
            let status = server.control("GET", &format!("/{service}/sessions/{id}"))?.status;
            if status == 404 {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < PATIENCE, "the session is still there: {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

/// Sees how many sessions have ended for this reason.
pub(crate) fn check_reason(server: &Server, reason: &str, count: usize) -> Result<()> {
    let label = format!("reason=\"{reason}\"");
    let ended = server.metrics()?.sum_where("streamfleet_sessions_ended_total", &label).unwrap_or(0.0);
    ensure!(ended == count as f64, "{ended} sessions and not {count} ended as {reason}");
    Ok(())
}

/// A client that does nothing at all: the server closes by itself. (A passive WebRTC client: conformance, `ending/webrtc-closes`.)
#[test]
fn the_server_closes_though_the_client_does_nothing() -> Result<()> {
    judged(|| {
        each(plain(&["bye"]), [("bye".to_owned(), ())], |server, ()| async move {
            let url = format!("{}/bye", server.url()).parse()?;
            let mut socket = BareSocket::connect(&SocketOptions::new(url)).await?;
            let wait = async {
                let mut told_at = None;
                loop {
                    match socket.next().await {
                        (BareEvent::Message(Message::EndStream(_)), at) => told_at = Some(at),
                        (BareEvent::Ended(reason), at) => break (told_at, reason, at),
                        _ => {}
                    }
                }
            };
            let (told_at, reason, at) = tokio::time::timeout(PATIENCE, wait).await.context("it is not closed")?;
            let after = at - told_at.context("`end_stream` was not sent")?;
            ensure!(reason.is_none() && after <= Duration::from_secs(1), "closed {after:?} later: {reason:?}");
            Ok(())
        })
        .map(drop)
    })
}

#[test]
fn one_session_ends_another_by_its_id() -> Result<()> {
    judged(|| {
        let server = on_each(plain(&["end-target", "end-other"]), |server, via| async move {
            let target = Caller::dial(&server, via, Plan::of("end-target")).await?;
            // All ten parts have been emitted, and up to 400 ms of them wait.
            ensure!(outputs(&server, "end-target", &target, 1)? == [json!("said")], "something else was said");
            let metadata = vec![("end", target.id().to_string())];
            let other = Caller::dial(&server, via, Plan { metadata, ..Plan::of("end-other") }).await?;
            let (_, reason) = target.ended(PATIENCE).await?;
            ensure!(reason == told(via, "bye"), "{reason:?}");
            check_whole_second(&target, via)?;
            ensure!(other.look(|told| told.end().is_none()), "who ends another goes on");
            other.hang_up().await;
            Ok(())
        })?;
        check_reason(&server, "end_stream", Via::ALL.len())
    })
}

#[test]
fn control_ends_a_session_and_answers_with_its_reason() -> Result<()> {
    judged(|| {
        let server = on_each(vec![service("echo", "plain-echo", json!({}))], |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("echo")).await?;
            let id = caller.id().clone();
            caller.say(440.0, 0.2).await?;
            let began = Instant::now();
            let answer = blocking(|| server.control("DELETE", &format!("/echo/sessions/{id}")))?;
            ensure!(answer.status == 200, "{answer:?}");
            let body = answer.json()?;
            ensure!(body["reason"] == "ended_by_control" && body["id"] == id.as_str(), "{body}");
            let (at, reason) = caller.ended(PATIENCE).await?;
            ensure!(reason == EndReason::ClosedByServer, "{reason:?}");
            let after = at.saturating_duration_since(began);
            ensure!(after <= Duration::from_secs(2), "over {after:?} after the request");
            // Its id is free at once.
            let again = Caller::dial(&server, via, Plan { id, ..Plan::of("echo") }).await?;
            ensure!(again.look(|told| told.end().is_none()), "the id is still in use");
            again.hang_up().await;
            Ok(())
        })?;
        check_reason(&server, "ended_by_control", Via::ALL.len())
    })
}

#[test]
fn the_time_limit_holds_while_audio_flows() -> Result<()> {
    judged(|| {
        let server = on_each(
            vec![service("timed", "plain-echo", json!({ "timeLimitSeconds": 2 }))],
            |server, via| async move {
                let began = Instant::now();
                let caller = Caller::dial(&server, via, Plan::of("timed")).await?;
                let said = caller.say(440.0, 5.0);
                let (at, _) = tokio::select! { said = said => { said?; caller.ended(PATIENCE).await? } end = caller.ended(PATIENCE) => end? };
                let after = at.saturating_duration_since(began);
                // The limit counts from the connection; the client plays out what it has.
                let within = Duration::from_millis(1_900)..=Duration::from_millis(4_000);
                ensure!(within.contains(&after), "over after {after:?}");
                Ok(())
            },
        )?;
        check_reason(&server, "time_limit", Via::ALL.len())
    })
}

/// A handler that fails takes its session with it, and says why.
#[test]
fn a_handler_that_fails_is_told_and_ends_its_session() -> Result<()> {
    judged(|| {
        const WORDS: [(&str, &str); 3] = [
            ("error-receive", "broken on purpose"),
            ("error-emit", "broken on purpose"),
            // What a panic says may be about the inside.
            ("error-panic", "the handler failed"),
        ];
        for (service, words) in WORDS {
            let server = on_each(plain(&[service]), |server, via| async move {
                let caller = Caller::dial(&server, via, Plan::of(service)).await?;
                let began = Instant::now();
                let (at, reason) = caller.listen_to_the_end(PATIENCE).await?;
                ensure!(!matches!(reason, EndReason::HungUp | EndReason::EndStream(_)), "{reason:?}");
                let after = at.saturating_duration_since(began);
                ensure!(after <= AT_ONCE + Duration::from_secs(1), "over only after {after:?}");
                let errors = caller.look(errors);
                let expected: &[&str] = if via == Via::Telephone { &[] } else { &[words] };
                ensure!(errors == expected, "{errors:?}");
                Ok(())
            });
            check_reason(&*server.context(service)?, "handler_error", Via::ALL.len())?;
        }
        Ok(())
    })
}

fn errors(told: &Told) -> Vec<String> {
    let text = |message: &Message| match message {
        Message::Error(text) => Some(text.clone()),
        _ => None,
    };
    told.messages().filter_map(|(_, message)| text(message)).collect()
}

/// A handler ends one track, or control does. A WebRTC session goes on; one on a socket has no other, and is over with it.
#[test]
fn a_track_ends_and_what_else_there_is_goes_on() -> Result<()> {
    judged(|| {
        on_each(plain(&["close-track", "plain-tone"]), |server, via| async move {
            let caller = Caller::dial(&server, via, Plan::of("close-track")).await?;
            if via == Via::WebRtc {
                caller
                    .until("the tone", PATIENCE, |told| (told.sound.tone_seconds(660.0) >= 0.4).then_some(()))
                    .await?;
                check_goes_on(&server, "close-track", &caller).await?;
            } else {
                let (_, reason) = caller.listen_to_the_end(PATIENCE).await?;
                ensure!(matches!(reason, EndReason::EndStream(_) | EndReason::ClosedByServer), "{reason:?}");
            }
            let span = caller.look(|told| told.sound.span_seconds());
            ensure!(via.all_of(0.5).contains(&span), "{span:.4} s of half a second were heard before the track's end");
            caller.hang_up().await;

            let caller = Caller::dial(&server, via, Plan::of("plain-tone")).await?;
            caller.until("the tone", PATIENCE, |told| (told.sound.tone_seconds(660.0) >= 0.4).then_some(())).await?;
            let path = format!("/plain-tone/sessions/{}/tracks/", caller.id());
            let unknown = blocking(|| server.control("DELETE", &format!("{path}9")))?;
            ensure!(unknown.status == 404, "a track that is not there: {unknown:?}");
            // What has no SDP has no `mid` of its own.
            let mid = if via == Via::WebRtc { "0" } else { "audio" };
            let answer = blocking(|| server.control("DELETE", &format!("{path}{mid}")))?;
            ensure!(answer.status == 200 && answer.json()?["mid"] == mid, "{answer:?}");
            if via == Via::WebRtc {
                check_goes_on(&server, "plain-tone", &caller).await?;
            } else {
                caller.ended(PATIENCE).await?;
            }
            caller.hang_up().await;
            Ok(())
        })
        .map(drop)
    })
}

/// Nothing is heard any more, and the session is still there a second later.
async fn check_goes_on(server: &Server, service: &str, caller: &Caller) -> Result<()> {
    // What was on its way plays out.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let before = caller.look(|told| told.sound.loud_seconds());
    tokio::time::sleep(Duration::from_millis(700)).await;
    let after = caller.look(|told| told.sound.loud_seconds());
    ensure!(after - before < 0.05, "{} s are heard after the track's end", after - before);
    ensure!(caller.look(|told| told.end().is_none()), "the call is over");
    let session = blocking(|| server.control("GET", &format!("/{service}/sessions/{}", caller.id())))?;
    ensure!(session.status == 200, "{session:?}");
    Ok(())
}
