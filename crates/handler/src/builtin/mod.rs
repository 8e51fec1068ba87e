//! The handlers that come with the worker, by their registered names.
//!
//! | name | path | keys (default) |
//! |---|---|---|
//! | `echo` | encoded | |
//! | `echo-frames` | frames | `rate` Hz (24 000) |
//! | `gain` | frames | `db` −60 to 40 (0), `rate` Hz (24 000) |
//! | `tone` | frames | `hz` (440), `level_dbfs` (−20), `rate` Hz (24 000) |
//! | `playback` | frames (WAV), encoded (Ogg Opus) | `path`, `loop` (false) |
//! | `recorder` | frames | `folder`, `seconds` (60), `folder_mib` (1 024), `rate` Hz (16 000) |

mod echo;
mod echo_frames;
mod gain;
mod loopback;
mod playback;
mod recorder;
mod tone;

use crate::{Description, Keys, Registry};

pub use echo::Echo;
pub use echo_frames::EchoFrames;
pub use gain::Gain;
pub use playback::Playback;
pub use recorder::Recorder;
pub(crate) use tone::Oscillator;
pub use tone::Tone;

/// Registers all of them.
pub(crate) fn register(registry: &mut Registry) {
    let audio = Description::audio;
    registry.register(
        "echo",
        Description::audio_video("Echo", "Sends every packet back as it came, sound and pictures."),
        Echo::configure,
    );
    registry.register(
        "echo-frames",
        audio("Echo of frames", "Decodes what you say, hands it through and encodes it again."),
        EchoFrames::configure,
    );
    registry.register("gain", audio("Gain", "Sends your voice back louder or softer."), Gain::configure);
    registry.register("tone", audio("Tone", "Plays a steady sine."), Tone::configure);
    registry.register("playback", audio("Playback", "Plays a WAV or Ogg Opus file."), Playback::configure);
    registry.register("recorder", audio("Recorder", "Records what you say to a WAV file."), Recorder::configure);
}

/// Decoding, handling and encoding at 24 kHz costs about half of 48 kHz and keeps all of a voice.
const DEFAULT_RATE: u32 = 24_000;

/// The key `rate`: what telephones to studios use.
fn rate(keys: &mut Keys, default: u32) -> u32 {
    keys.integer("rate", default, 8_000..=48_000)
}
