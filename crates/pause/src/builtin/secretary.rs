//! `secretary`: greets, answers at length, falls silent when spoken to, and hangs up after some turns.

use std::f64::consts::TAU;
use std::time::Duration;

use serde_json::{Value, json};
use streamfleet_handler::{ConfigError, Description, HandlerError, Keys, Registered, Registry, Session};

use super::mistaken;
use crate::{InterruptOn, Interrupted, ReplyOnPause, ReplyOptions, Request, Speaker};

/// The notes of the greeting, Hz; a quarter of a second each.
const GREETING: [f64; 2] = [523.0, 659.0];
/// The last notes, Hz; 0.4 s each.
const GOODBYE: [f64; 3] = [784.0, 659.0, 523.0];
/// The two notes that each answer goes between, Hz: neighbouring turns sound different.
const ANSWERS: [[f64; 2]; 3] = [[440.0, 554.0], [494.0, 622.0], [392.0, 494.0]];
/// Eight seconds: whoever does not want to hear that much has to interrupt.
const ANSWER_NOTES: usize = 16;
/// Amplitude of a note, of full scale: -14 dBFS.
const LOUDNESS: f64 = 0.2;
/// A note swells and fades this long, so that it does not click.
const RAMP: Duration = Duration::from_millis(10);
/// Where the conversation's data has the number of the present turn.
const TURN: &str = "turn";

pub(super) fn register(registry: &mut Registry) {
    let about = Description::audio(
        "Secretary",
        "Greets you and answers at length. Interrupt it: it falls silent when you speak. After the third turn it hangs up.",
    );
    registry.register("secretary", about, secretary);
}

fn secretary(config: Value) -> Result<Registered, ConfigError> {
    let mut keys = Keys::new(config);
    let turns = keys.integer("turns", 3, 1..=1_000);
    keys.finish()?;
    let options = ReplyOptions { interrupt_on: InterruptOn::Speech, ..ReplyOptions::default() };
    let secretary = ReplyOnPause::new(options, move |request, speaker| answer(request, speaker, turns))
        .map_err(|error| mistaken(&error))?;
    Ok(Registered::Handler(Box::new(secretary.with_startup(|_, speaker| greet(speaker)))))
}

async fn greet(speaker: Speaker) -> Result<(), HandlerError> {
    // Also in a conversation that was taken up again.
    count(speaker.session(), |_| 0).await?;
    Ok(play(&speaker, &GREETING, Duration::from_millis(250)).await?)
}

async fn answer(request: Request, speaker: Speaker, turns: u32) -> Result<(), HandlerError> {
    // A goodbye that is interrupted is said again.
    let turn = count(speaker.session(), |turn| (turn + 1).min(turns)).await?;
    let heard = request.audio.duration().as_millis() as u64;
    speaker.output(json!({ "turn": turn, "of": turns, "heard_ms": heard })).await?;
    if turn == turns {
        play(&speaker, &GOODBYE, Duration::from_millis(400)).await?;
        return Ok(speaker.end_stream(Some("Goodbye.".to_owned())).await?);
    }
    let notes = ANSWERS[turn as usize % ANSWERS.len()];
    for _ in 0..ANSWER_NOTES / notes.len() {
        play(&speaker, &notes, Duration::from_millis(500)).await?;
    }
    Ok(())
}

/// Changes the number of the turn, which is part of what is remembered of the conversation.
async fn count(session: &Session, next: impl Fn(u32) -> u32 + Send + Sync) -> Result<u32, HandlerError> {
    let mut turn = 0;
    let written = session.data().update(|data| {
        let before = data.get(TURN).and_then(Value::as_u64).and_then(|turn| u32::try_from(turn).ok());
        // The application may write there too, so any number is possible.
        turn = next(before.unwrap_or(0).min(u32::MAX - 1));
        data.insert(TURN.to_owned(), turn.into());
    });
    written.await.map_err(HandlerError::new)?;
    Ok(turn)
}

async fn play(speaker: &Speaker, notes: &[f64], each: Duration) -> Result<(), Interrupted> {
    for hz in notes {
        speaker.say(note(*hz, speaker.format().rate, each)).await?;
    }
    Ok(())
}

fn note(hz: f64, rate: u32, length: Duration) -> Vec<i16> {
    let rate = f64::from(rate);
    let (count, ramp) = (length.as_secs_f64() * rate, RAMP.as_secs_f64() * rate);
    let sample = |n: usize| {
        let n = n as f64;
        let envelope = (n / ramp).min((count - n) / ramp).min(1.0);
        ((TAU * hz * n / rate).sin() * envelope * LOUDNESS * f64::from(i16::MAX)) as i16
    };
    (0..count as usize).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_its_length_and_does_not_click() {
        let note = note(440.0, 24_000, Duration::from_millis(400));
        assert_eq!(note.len(), 9_600);
        assert!(note[0].abs() < 100 && note[9_599].abs() < 100, "it begins and ends in silence");
        let peak = note.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
        assert!((6_500..6_600).contains(&peak), "{peak}");
        // 176 periods of 440 Hz: each crosses zero upwards once.
        let crossings = note.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert!((175..=176).contains(&crossings), "{crossings}");
    }

    #[test]
    fn mistakes_name_their_keys() {
        let made = |config: Value| secretary(config).map(|made| made.media());
        assert!(made(Value::Null).is_ok());
        assert!(made(json!({ "turns": 1 })).is_ok());
        let error = made(json!({ "turns": 0 })).unwrap_err().to_string();
        assert_eq!(error, "`turns` must be a whole number from 1 to 1000, not 0");
    }
}
