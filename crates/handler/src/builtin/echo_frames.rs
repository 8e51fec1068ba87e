//! `echo-frames`: the whole frames path with nothing in between.

use serde_json::Value;

use super::loopback::Loopback;
use super::{DEFAULT_RATE, rate};
use crate::{ConfigError, Emit, Handler, HandlerError, Input, Keys, Media, Registered, async_trait};

/// Sends decoded audio back, each frame as soon as it comes and in the buffer it came in.
#[derive(Debug)]
pub struct EchoFrames(Loopback);

impl EchoFrames {
    /// Echoes mono audio of `rate` Hz.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self(Loopback::new(rate))
    }

    pub(super) fn configure(config: Value) -> Result<Registered, ConfigError> {
        let mut keys = Keys::new(config);
        let rate = rate(&mut keys, DEFAULT_RATE);
        keys.finish()?;
        Ok(Registered::Handler(Box::new(Self::new(rate))))
    }
}

impl Default for EchoFrames {
    /// FastRTC's rates: 48 000 Hz in, 24 000 Hz out.
    fn default() -> Self {
        Self(Loopback::between(48_000, 24_000))
    }
}

#[async_trait]
impl Handler for EchoFrames {
    fn media(&self) -> Media {
        self.0.media()
    }

    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self(self.0.copy()))
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let Input::Audio(frame) = input {
            self.0.push(frame);
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        Ok(self.0.emit().await)
    }

    async fn reset(&self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Drive, sine};
    use crate::{Ended, PcmFormat, Pushed, Registry};

    #[tokio::test(start_paused = true)]
    async fn frames_come_back_at_once_in_order_and_in_their_own_memory() {
        let Registered::Handler(prototype) = Registry::builtin().get("echo-frames", json!({})).unwrap() else {
            panic!("echo-frames works on frames");
        };
        let format = PcmFormat::mono(24_000);
        assert_eq!(prototype.media(), Media::Frames { input: format, output: format });

        let mut drive = Drive::start(prototype.copy());
        let began = tokio::time::Instant::now();
        for frame in sine(format, 440.0, -20.0).take(50) {
            let (expected, memory) = (frame.clone(), frame.samples.as_ptr());
            assert_eq!(drive.push(Input::Audio(frame)), Pushed::Queued);
            drive.push(Input::Message("is no sound".to_owned()));
            let Some(Emit::Audio(back)) = drive.next().await else { panic!("an echo") };
            assert_eq!(back, expected);
            assert_eq!(back.samples.as_ptr(), memory, "nothing was copied");
        }
        assert_eq!(began.elapsed(), std::time::Duration::ZERO, "no frame has waited");
        drive.cancel();
        assert_eq!(drive.ended().await, Ended::Cancelled);
    }

    #[test]
    fn bad_rates_are_named() {
        let error = EchoFrames::configure(json!({ "rate": 7999 })).unwrap_err();
        assert_eq!(error.to_string(), "`rate` must be a whole number from 8000 to 48000, not 7999");
    }
}
