//! `gain`: louder or softer.

use serde_json::Value;

use super::loopback::Loopback;
use super::{DEFAULT_RATE, rate};
use crate::{ConfigError, Emit, Handler, HandlerError, Input, Keys, Media, Registered, async_trait};

/// Sends decoded audio back, amplified; what exceeds full scale is clipped.
#[derive(Debug)]
pub struct Gain {
    factor: f32,
    loopback: Loopback,
}

impl Gain {
    /// Amplifies mono audio of `rate` Hz by `db` decibels.
    #[must_use]
    pub fn new(rate: u32, db: f64) -> Self {
        Self { factor: 10_f64.powf(db / 20.0) as f32, loopback: Loopback::new(rate) }
    }

    pub(super) fn configure(config: Value) -> Result<Registered, ConfigError> {
        let mut keys = Keys::new(config);
        let db = keys.number("db", 0.0, -60.0..=40.0);
        let rate = rate(&mut keys, DEFAULT_RATE);
        keys.finish()?;
        Ok(Registered::Handler(Box::new(Self::new(rate, db))))
    }
}

/// Rounded to the nearest step; a float cast clips at the ends of the range by itself.
fn amplify(samples: &mut [i16], factor: f32) {
    for sample in samples {
        *sample = (f32::from(*sample) * factor).round() as i16;
    }
}

#[async_trait]
impl Handler for Gain {
    fn media(&self) -> Media {
        self.loopback.media()
    }

    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self { factor: self.factor, loopback: self.loopback.copy() })
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let Input::Audio(mut frame) = input {
            amplify(&mut frame.samples, self.factor);
            self.loopback.push(frame);
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        Ok(self.loopback.emit().await)
    }

    async fn reset(&self) {
        self.loopback.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::PcmFormat;
    use crate::testing::{Drive, level_dbfs, sine};

    #[test]
    fn samples_are_scaled_rounded_and_clipped() {
        fn check(db: f64, given: &[i16], expected: &[i16]) {
            let mut samples = given.to_vec();
            amplify(&mut samples, Gain::new(8_000, db).factor);
            assert_eq!(samples, expected, "{db} dB");
        }
        check(0.0, &[0, 1, -1, i16::MAX, i16::MIN], &[0, 1, -1, i16::MAX, i16::MIN]);
        check(20.0, &[0, 1, -327, 3_276, 3_277, -4_000], &[0, 10, -3_270, 32_760, i16::MAX, i16::MIN]);
        check(-20.0, &[10, 14, 16, -16, 32_767], &[1, 1, 2, -2, 3_277]);
        check(-60.0, &[499, 501, i16::MIN], &[0, 1, -33]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tone_comes_back_at_its_new_level() {
        async fn check(db: f64, level_in: f64, level_out: f64) {
            let Registered::Handler(prototype) = Gain::configure(json!({ "db": db, "rate": 16000 })).unwrap() else {
                panic!("gain works on frames");
            };
            let mut drive = Drive::start(prototype.copy());
            let mut heard = Vec::new();
            for frame in sine(PcmFormat::mono(16_000), 50.0, level_in).take(10) {
                drive.push(Input::Audio(frame));
                let Some(Emit::Audio(back)) = drive.next().await else { panic!("no audio came back") };
                heard.extend(back.samples);
            }
            let level = level_dbfs(&heard);
            assert!((level - level_out).abs() < 0.1, "{level_in} dBFS by {db} dB: {level:.2} dBFS");
        }
        check(6.0, -20.0, -14.0).await;
        check(-12.0, -20.0, -32.0).await;
        check(0.0, -3.0, -3.0).await;
        // A sine driven far into clipping becomes a square wave, 3 dB above a full-scale sine.
        check(40.0, -6.0, 3.0).await;
    }

    #[test]
    fn mistakes_name_their_keys() {
        let error = Gain::configure(json!({ "db": 41, "gain": 1 })).unwrap_err();
        assert_eq!(error.to_string(), "`db` must be a number from -60 to 40, not 41; `gain` is not known here");
    }
}
