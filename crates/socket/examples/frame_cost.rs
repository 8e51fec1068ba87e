//! What a WebSocket session costs: CPU per 20 ms of mu-law, 48 kHz in and 24 kHz out, as JSON and as binary frames,
//! from the text of a message to the handler's frame and from the handler's frame to the text of a message.
//!
//! `cargo run --release -p streamfleet-socket --example frame_cost`
//!
//! Absolute figures depend on the machine and its other load; the best of some runs counts, as other load can only add.

#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use streamfleet_audio::PcmFormat;
use streamfleet_audio::g711::encode_mu_law;
use streamfleet_audio::tone::Voice;
use streamfleet_socket::{AudioRates, Connection, ConnectionLimits, Event, SocketAudio, protocol};

/// Frames per run: ten seconds.
const FRAMES: u32 = 500;
const RUNS: usize = 20;
const FRAME: Duration = Duration::from_millis(20);
const RATES: AudioRates = AudioRates { input: 48_000, output: 24_000 };

fn session(now: Instant, framing: &str) -> Result<Connection, Box<dyn Error>> {
    let mut connection = Connection::client(now, ConnectionLimits::default());
    connection.handle_text(now, &format!(r#"{{"event":"start","websocket_id":"a","framing":"{framing}"}}"#));
    connection.poll_event().ok_or("no start")?;
    connection.accept(now, SocketAudio::new(RATES)?, None)?;
    Ok(connection)
}

/// Nanoseconds per frame of input.
fn hear(now: Instant, framing: &str) -> Result<f64, Box<dyn Error>> {
    let mut connection = session(now, framing)?;
    let mut samples = vec![0; 960];
    Voice::new(RATES.input, 5).fill(&mut samples);
    let payload: Vec<u8> = samples.into_iter().map(encode_mu_law).collect();
    let text = protocol::media(&payload);
    let began = Instant::now();
    let mut heard = 0;
    for at in 0..FRAMES {
        let now = now + FRAME * at;
        match framing {
            "json" => connection.handle_text(now, black_box(&text)),
            _ => connection.handle_binary(now, black_box(&payload)),
        }
        while let Some(Event::Audio(frame)) = connection.poll_event() {
            heard += black_box(frame).len();
        }
    }
    let took = began.elapsed();
    if heard != 960 * FRAMES as usize {
        return Err("frames are missing".into());
    }
    Ok(took.as_nanos() as f64 / f64::from(FRAMES))
}

/// Nanoseconds per frame of output.
fn speak(now: Instant, framing: &str) -> Result<f64, Box<dyn Error>> {
    let mut connection = session(now, framing)?;
    let mut samples = vec![0; 480];
    Voice::new(RATES.output, 5).fill(&mut samples);
    let began = Instant::now();
    let mut sent = 0;
    for at in 0..FRAMES {
        let now = now + FRAME * at;
        connection.send_audio(now, black_box(&samples), PcmFormat::mono(RATES.output))?;
        while let Some(transmit) = connection.poll_transmit(now) {
            black_box(transmit);
            sent += 1;
            connection.transmitted(now);
        }
        connection.handle_pong(now);
        black_box(connection.poll_timeout());
    }
    let took = began.elapsed();
    if sent != FRAMES {
        return Err("frames are missing".into());
    }
    Ok(took.as_nanos() as f64 / f64::from(FRAMES))
}

fn best(measure: impl Fn() -> Result<f64, Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    (0..RUNS).try_fold(f64::MAX, |best, _| Ok(measure()?.min(best)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let now = Instant::now();
    for framing in ["json", "binary"] {
        let (heard, spoken) = (best(|| hear(now, framing))?, best(|| speak(now, framing))?);
        let percent = (heard + spoken) / FRAME.as_nanos() as f64 * 100.0;
        println!("{framing:6} in {heard:5.0} ns, out {spoken:5.0} ns a frame: {percent:.4} % of a core a session");
    }
    Ok(())
}
