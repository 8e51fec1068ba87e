//! Replies that are interrupted: by a pause, or by the first words.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_audio::g711;
use streamfleet_client::{Event, Message};
use streamfleet_tests::{Received, Server, WebSocket, judged};

use crate::caller::{Caller, Hears, Plan, Told, Via};
use crate::sound::tone;
use crate::turns::{SPEECH_S, TURN, check_turns, turn};
use crate::{PATIENCE, each, on_each, plain};

/// What a client that plays hears of the reply after it was told of the decision: what was on its way and in its jitter
/// buffer, on a machine that does more than this. What waited for the client without `clear` would be 400 ms and more.
const HEARD_WITHIN: Duration = Duration::from_millis(300);
/// What the server still sends after the decision, in seconds of audio: it sends in real time, and this is when the decision has
/// taken effect.
const SENT_AFTER: f64 = 0.06;
const FRAME: Duration = Duration::from_millis(20);

/// What interrupts the handler's reply, and what its client is told at that moment.
#[derive(Clone, Copy)]
struct Kind {
    service: &'static str,
    word: &'static str,
}

const ON_PAUSE: Kind = Kind { service: "pause-long", word: "pause_detected" };
const ON_SPEECH: Kind = Kind { service: "pause-polite", word: "started_talking" };

fn is_log(message: &Message, word: &str) -> bool {
    matches!(message, Message::Log(log) if log == word)
}

/// When the client was told of the second turn what interrupts the first: by words, or by Twilio's `clear`.
fn interrupted_at(via: Via, kind: Kind, told: &Told) -> Option<Instant> {
    if via == Via::Telephone {
        // The first turn clears too, if there was something to clear.
        return told.events.iter().rev().find(|(_, event)| *event == Event::Cleared).map(|(at, _)| *at);
    }
    told.messages().filter(|(_, message)| is_log(message, kind.word)).nth(1).map(|(at, _)| at)
}

#[test]
fn an_interruption_takes_back_what_was_not_heard() -> Result<()> {
    judged(|| {
        for kind in [ON_PAUSE, ON_SPEECH] {
            on_each(plain(&[kind.service]), |server, via| async move {
                let caller = Caller::dial(&server, via, Plan { hears: Hears::Soon, ..Plan::of(kind.service) }).await?;
                turn(&caller, 440.0).await?;
                // The reply is said faster than it plays: by now what may be ahead is.
                caller
                    .until("the reply", PATIENCE, |told| (told.sound.tone_seconds(880.0) >= 0.5).then_some(()))
                    .await?;
                caller.say(0.0, 1.2).await?;
                let began = Instant::now();
                turn(&caller, 330.0).await?;
                caller
                    .until("the second reply", PATIENCE, |told| (told.sound.tone_seconds(660.0) >= 0.5).then_some(()))
                    .await?;
                check_turns(&caller, via, &TURN.repeat(2))?;
                let at =
                    caller.look(|told| interrupted_at(via, kind, told)).context("the interruption was not told")?;
                let (_, last) = caller.look(|told| told.sound.when(880.0)).context("no first reply")?;
                let after = last.saturating_duration_since(at);
                ensure!(after <= HEARD_WITHIN, "{}: the first reply went on for {after:?}", kind.service);
                let (first, _) = caller.look(|told| told.sound.when(660.0)).context("no second reply")?;
                ensure!(first + Duration::from_millis(40) > last, "the two replies are mixed");
                // Who waits for the pause speaks for as long as the user does.
                let spoke = last.saturating_duration_since(began).as_secs_f64();
                ensure!((spoke > SPEECH_S) == (kind.word == ON_PAUSE.word), "{}: spoke for {spoke:.2} s", kind.service);
                caller.hang_up().await;
                Ok(())
            })
            .with_context(|| kind.service)?;
        }
        Ok(())
    })
}

/// A protocol of sockets, word by word: what is sent after a decision is counted where it comes in.
#[derive(Clone, Copy)]
enum Wire {
    Client,
    Telephone,
}

impl Wire {
    fn route(self) -> &'static str {
        match self {
            Self::Client => "websocket/offer",
            Self::Telephone => "telephone/handler",
        }
    }

    fn input_rate(self) -> usize {
        match self {
            Self::Client => 48_000,
            Self::Telephone => 8_000,
        }
    }

    fn output_rate(self) -> u32 {
        match self {
            Self::Client => 24_000,
            Self::Telephone => 8_000,
        }
    }

    fn start(self, id: &str) -> Value {
        match self {
            Self::Client => json!({ "event": "start", "websocket_id": id }),
            Self::Telephone => json!({ "event": "start", "start": { "streamSid": id }, "streamSid": id }),
        }
    }

    /// Whether this is the moment of a decision: a word, or that what was sent is taken back.
    fn is_decision(self, heard: &Value, kind: Kind) -> bool {
        match self {
            Self::Client => heard["type"] == "log" && heard["data"] == kind.word,
            Self::Telephone => heard["event"] == "clear",
        }
    }
}

/// Says a tone in real time, 0 Hz for silence, and gives what came meanwhile.
fn say(socket: &mut WebSocket, wire: Wire, hz: f64, seconds: f64) -> Result<Vec<Value>> {
    let samples: Vec<i16> = tone(hz, seconds).into_iter().step_by(48_000 / wire.input_rate()).collect();
    let mut heard = Vec::new();
    let mut due = Instant::now();
    for frame in samples.chunks(wire.input_rate() / 50) {
        let payload: Vec<u8> = frame.iter().map(|sample| g711::encode_mu_law(*sample)).collect();
        let media = json!({ "event": "media", "media": { "payload": BASE64_STANDARD.encode(payload) } });
        socket.text(&media.to_string())?;
        due += FRAME;
        while let Some(received) = socket.next(due.saturating_duration_since(Instant::now()))? {
            let Received::Text(text) = received else { anyhow::bail!("{received:?}") };
            heard.push(serde_json::from_str(&text)?);
        }
        // A client of its own threads is late on a busy machine, and then in a hurry.
        thread::yield_now();
    }
    Ok(heard)
}

/// Seconds of a tone in these messages.
fn played(wire: Wire, heard: &[Value], hz: f32) -> f64 {
    let rate = wire.output_rate();
    let decode = |heard: &Value| BASE64_STANDARD.decode(heard["media"]["payload"].as_str()?).ok();
    let payloads = heard.iter().filter_map(decode);
    let samples: Vec<i16> = payloads.flatten().map(|byte| g711::MU_LAW[usize::from(byte)]).collect();
    let is_tone = |window: &&[i16]| {
        let level = level_dbfs(window);
        level > -40.0 && tone_level(window, rate, hz) > level - 3.0
    };
    samples.chunks(rate as usize / 50).filter(is_tone).count() as f64 / 50.0
}

/// Says a tone, and then nothing until half a second of its reply has come; gives all that came. A busy machine takes its time.
fn turn_of(socket: &mut WebSocket, wire: Wire, hz: f64, reply: f32) -> Result<Vec<Value>> {
    let mut heard = say(socket, wire, hz, SPEECH_S)?;
    let began = Instant::now();
    while played(wire, &heard, reply) < 0.5 {
        ensure!(began.elapsed() < PATIENCE, "{:.2} s of the reply to {hz} Hz", played(wire, &heard, reply));
        heard.extend(say(socket, wire, 0.0, 0.2)?);
    }
    Ok(heard)
}

/// One turn, another in the middle of its reply, and what comes in after the second turn's decision. Gives the figures.
fn interrupt(server: &Server, wire: Wire, kind: Kind) -> Result<String> {
    let mut socket = WebSocket::open(&format!("{}/{}/{}", server.url(), kind.service, wire.route()))?;
    socket.text(&wire.start(&format!("{}-{}", kind.service, wire.output_rate())).to_string())?;
    turn_of(&mut socket, wire, 440.0, 880.0)?;
    let heard = turn_of(&mut socket, wire, 330.0, 660.0)?;
    let decided = heard.iter().position(|heard| wire.is_decision(heard, kind)).context("no decision")?;
    let (before, after) = heard.split_at(decided);
    let late = played(wire, after, 880.0);
    ensure!(late <= SENT_AFTER, "{late} s of the first reply after the decision");
    // A pause comes half a second after the speech, the first words after 0.2 s of it, and 0.2 s of the reply are sent ahead. A
    // busy machine says later what it has to say, and the reply goes on meanwhile.
    let spoke = played(wire, before, 880.0);
    let expected = if kind.word == ON_PAUSE.word { SPEECH_S..SPEECH_S + 1.2 } else { 0.1..0.7 };
    ensure!(expected.contains(&spoke), "{spoke} s of the first reply before the decision");
    Ok(format!("{} of {}: {spoke:.2} s before the decision, {late:.2} s after it", wire.route(), kind.service))
}

#[test]
fn a_reply_falls_silent_within_60_ms_of_the_decision() -> Result<()> {
    judged(|| {
        let rows = [Wire::Client, Wire::Telephone].into_iter().flat_map(|wire| [(wire, ON_PAUSE), (wire, ON_SPEECH)]);
        let rows = rows.map(|(wire, kind)| (format!("{} of {}", wire.route(), kind.service), (wire, kind)));
        each(plain(&[ON_PAUSE.service, ON_SPEECH.service]), rows, |server, (wire, kind)| async move {
            println!("{}", tokio::task::spawn_blocking(move || interrupt(&server, wire, kind)).await??);
            Ok(())
        })
        .map(drop)
    })
}
