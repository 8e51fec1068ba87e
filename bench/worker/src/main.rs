//! A worker whose two services answer each pause with a beep, after 100 ms of thought: what is measured is how long a pause
//! takes to be answered. `/webrtc-vad` hears with the detector that FastRTC is given as well, `/earshot` with the one that ships.
//!
//! `bench/conversations.sh` builds it, starts it, and measures.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use streamfleet_handler::{ConfigError, Description, Keys, PcmFormat, Registered, Registry};
use streamfleet_pause::{Activity, ReplyOnPause, ReplyOptions, VAD_RATE, Vad};

/// The rate of the recording that is played to it, and of the detectors: nothing is resampled on either side.
const INPUT_RATE: u32 = VAD_RATE;
/// What a reply does before it speaks. FastRTC loses what is said at once (docs/benchmarks.md), so its reply waits as well.
const THOUGHT: Duration = Duration::from_millis(100);
const BEEP_HZ: f32 = 1_000.0;
const BEEP_MS: u32 = 300;
const BEEP_LOUDNESS: f32 = 8_000.0;

/// WebRTC's detector in mode 2, in frames of 30 ms, as `bench/servers/fastrtc_pause.py` runs it.
struct WebRtc(webrtc_vad::Vad);

impl WebRtc {
    fn new() -> Self {
        use webrtc_vad::{SampleRate, VadMode};
        Self(webrtc_vad::Vad::new_with_rate_and_mode(SampleRate::Rate16kHz, VadMode::Aggressive))
    }
}

// SAFETY: the detector is a pointer to memory of its own that nothing else knows; the C library keeps nothing by thread.
unsafe impl Send for WebRtc {}

impl Vad for WebRtc {
    fn hop(&self) -> NonZeroUsize {
        const HOP: NonZeroUsize = NonZeroUsize::new(480).expect("480 is not zero");
        HOP
    }

    fn hear(&mut self, hop: &[i16]) -> Activity {
        if self.0.is_voice_segment(hop) == Ok(true) { Activity::Speech } else { Activity::Silence }
    }

    fn reset(&mut self) {
        *self = Self::new();
    }
}

fn beeper() -> ReplyOnPause {
    let options = ReplyOptions { input: PcmFormat::mono(INPUT_RATE), ..ReplyOptions::default() };
    let rate = options.output_sample_rate;
    let beep: Vec<i16> = (0..rate * BEEP_MS / 1_000)
        .map(|at| BEEP_LOUDNESS * (std::f32::consts::TAU * BEEP_HZ * at as f32 / rate as f32).sin())
        .map(|sample| sample as i16)
        .collect();
    let reply = move |_, speaker: streamfleet_pause::Speaker| {
        let beep = beep.clone();
        async move {
            tokio::time::sleep(THOUGHT).await;
            Ok(speaker.say(beep).await?)
        }
    };
    ReplyOnPause::new(options, reply).expect("invariant: FastRTC's defaults are valid")
}

/// Handlers without a configuration of their own.
fn plain(config: Value, handler: impl FnOnce() -> ReplyOnPause) -> Result<Registered, ConfigError> {
    Keys::new(config).finish()?;
    Ok(Registered::Handler(Box::new(handler())))
}

fn main() -> ExitCode {
    let mut registry = Registry::builtin();
    let about = |name| Description::audio(name, "Answers each pause with a beep.");
    registry
        .register("webrtc-vad", about("WebRTC's detector"), |config| plain(config, || beeper().with_vad(WebRtc::new)));
    registry.register("earshot", about("The detector that ships"), |config| plain(config, beeper));
    streamfleet_worker::program::run(&registry)
}
