//! `tone`: a steady sine.

use std::f64::consts::TAU;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::{DEFAULT_RATE, rate};
use crate::{
    AudioFrame, ConfigError, Emit, Handler, HandlerError, Input, Keys, Media, PcmFormat, Registered, Session,
    async_trait,
};

/// What is generated at a time: one packet's worth.
const FRAME: Duration = Duration::from_millis(20);

/// Plays a sine for as long as the session lives. It has no clock: the link's back-pressure paces it.
#[derive(Debug)]
pub struct Tone {
    oscillator: Oscillator,
    playing: Mutex<Playing>,
    session: OnceLock<Session>,
}

#[derive(Debug)]
struct Playing {
    oscillator: Oscillator,
    samples: usize,
}

impl Tone {
    /// A mono sine of `hz` Hz at `level_dbfs`, where 0 dBFS is a sine that just reaches full scale (AES17), made at
    /// `rate` samples a second.
    #[must_use]
    pub fn new(rate: u32, hz: f64, level_dbfs: f64) -> Self {
        Self::of(Oscillator::new(rate, hz, level_dbfs))
    }

    fn of(oscillator: Oscillator) -> Self {
        let playing = Mutex::new(Playing { oscillator: oscillator.clone(), samples: 0 });
        Self { oscillator, playing, session: OnceLock::new() }
    }

    pub(super) fn configure(config: Value) -> Result<Registered, ConfigError> {
        let mut keys = Keys::new(config);
        let rate = rate(&mut keys, DEFAULT_RATE);
        // Below the Nyquist frequency, or another tone would be heard.
        let hz = keys.number("hz", 440.0, 20.0..=f64::from(rate / 2 - 1));
        let level = keys.number("level_dbfs", -20.0, -90.0..=0.0);
        keys.finish()?;
        Ok(Registered::Handler(Box::new(Self::new(rate, hz, level))))
    }

    fn format(&self) -> PcmFormat {
        self.oscillator.format
    }
}

/// A sine as a turning pointer: two multiplications a sample instead of a sine function.
#[derive(Clone, Debug)]
pub(crate) struct Oscillator {
    format: PcmFormat,
    amplitude: f64,
    step: (f64, f64),
    pointer: (f64, f64),
}

impl Oscillator {
    pub(crate) fn new(rate: u32, hz: f64, level_dbfs: f64) -> Self {
        let angle = TAU * hz / f64::from(rate);
        Self {
            format: PcmFormat::mono(rate),
            amplitude: f64::from(i16::MAX) * 10_f64.powf(level_dbfs / 20.0),
            step: (angle.cos(), angle.sin()),
            pointer: (1.0, 0.0),
        }
    }

    /// Appends the next `count` samples.
    pub(crate) fn fill(&mut self, out: &mut Vec<i16>, count: usize) {
        let (cos, sin) = self.step;
        let (mut x, mut y) = self.pointer;
        out.extend((0..count).map(|_| {
            let sample = (y * self.amplitude).round() as i16;
            (x, y) = (x * cos - y * sin, x * sin + y * cos);
            sample
        }));
        // Rounding lengthens or shortens the pointer a little with each turn; undone once a frame, it stays inaudible.
        let length = x.hypot(y);
        self.pointer = (x / length, y / length);
    }
}

#[async_trait]
impl Handler for Tone {
    fn media(&self) -> Media {
        Media::Frames { input: self.format(), output: self.format() }
    }

    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::of(self.oscillator.clone()))
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        // Only the first call of a session's life can set it, and there is only one.
        self.session.get_or_init(|| session.clone());
        Ok(())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let (Input::Audio(frame), Some(session)) = (input, self.session.get()) {
            session.recycle(frame.samples);
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        let mut samples = self.session.get().map(Session::buffer).unwrap_or_default();
        let format = self.format();
        let mut playing = self.playing.lock();
        let timestamp = format.duration(playing.samples);
        playing.oscillator.fill(&mut samples, format.samples_in(FRAME));
        playing.samples += samples.len();
        Ok(Emit::Audio(AudioFrame { samples, format, timestamp }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Drive, level_dbfs, tone_level};

    fn prototype(config: Value) -> Box<dyn Handler> {
        match Tone::configure(config).unwrap() {
            Registered::Handler(handler) => handler,
            Registered::Packets(_) => panic!("tone works on frames"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pure_tone_of_the_configured_pitch_and_level() {
        async fn check(config: Value, rate: u32, hz: f64, level: f64) {
            let mut drive = Drive::start(prototype(config).copy());
            let samples = drive.audio(Duration::from_secs(5)).await;
            assert_eq!(samples.len(), PcmFormat::mono(rate).samples_in(Duration::from_secs(5)));
            // The last second: the pointer must neither have drifted nor changed its length.
            let last = &samples[samples.len() - rate as usize..];
            let at_pitch = tone_level(last, rate, hz);
            assert!((at_pitch - level).abs() < 0.1, "{at_pitch:.2} dBFS at {hz} Hz");
            assert!((level_dbfs(last) - level).abs() < 0.1, "nothing else sounds");
        }
        check(Value::Null, 24_000, 440.0, -20.0).await;
        check(json!({ "hz": 1000, "level_dbfs": -6.5, "rate": 48000 }), 48_000, 1_000.0, -6.5).await;
        check(json!({ "hz": 3000, "level_dbfs": 0, "rate": 8000 }), 8_000, 3_000.0, 0.0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_at_the_bound_and_goes_on_as_audio_is_taken() {
        let mut drive = Drive::start(prototype(Value::Null));
        let mut timestamps = Vec::new();
        for _ in 0..50 {
            let Some(Emit::Audio(frame)) = drive.next().await else { panic!("no tone") };
            timestamps.push(frame.timestamp);
            drive.settle().await;
            let queued = drive.link().queued_audio();
            assert!(queued > Duration::from_millis(400) - FRAME && queued <= Duration::from_millis(420), "{queued:?}");
        }
        assert!(timestamps.iter().enumerate().all(|(n, timestamp)| *timestamp == FRAME * n as u32));
    }

    #[test]
    fn mistakes_name_their_keys() {
        fn check(config: Value, expected: &str) {
            assert_eq!(Tone::configure(config).unwrap_err().to_string(), expected);
        }
        check(json!({ "hz": 4000, "rate": 8000 }), "`hz` must be a number from 20 to 3999, not 4000");
        check(json!({ "level_dbfs": 1 }), "`level_dbfs` must be a number from -90 to 0, not 1");
        check(json!({ "level": -20 }), "`level` is not known here");
    }
}
