//! Conversations in turns: who speaks, when they have paused, and what is said in reply.
//!
//! [`ReplyOnPause`] makes a handler of a reply function, with FastRTC's options, names and defaults. Beneath it, each
//! usable and tested by itself:
//!
//! ```text
//! audio ──► Listener ─────────────────────────────────► Turns ──────────► ReplyOnPause
//!           resampler → Vad → PauseDetector, Recording  order of a turn   tasks, the session
//!           started talking, pause + its audio          log, start, cancel, clear
//! ```
//!
//! - [`Vad`]: is this hop of some milliseconds speech? [`Earshot`] ships in the binary.
//! - [`PauseDetector`]: FastRTC's `audio_chunk_duration`, `started_talking_threshold`, `speech_threshold` and
//!   `max_continuous_speech_s`, over the last chunk at every hop.
//! - [`Listener`]: cuts utterances out of audio of any rate; what was said is given on exactly as it came.
//! - [`Turns`]: `started_talking → pause_detected → [send_input] → response_starting`, once a reply; interruptions;
//!   arguments.
//!
//! All of these are pure: no clock, no task, no socket. Time is the number of samples heard, so how the audio was cut
//! into packets makes no difference, and an hour of conversation is tested in the time it takes to compute.
//!
//! # The model
//! `earshot` hears hops of 16 ms at 16 kHz. By itself it takes distant talk and loud music for speech, so that in a café
//! nobody ever pauses. [`gate`] follows the level that the room has by itself; the model hears the room turned down to a
//! quiet one's level, and only what stands out of the room is speech. `examples/compare` measures it against WebRTC's
//! detector on speech from espeak-ng in noise, babble and music.
//!
//! # Bounds
//! A session keeps one chunk of audio and a third (77 kB at 48 kHz mono), and while somebody talks their utterance, at
//! most [`MAX_UTTERANCE_S`]. One reply is listened to; a reply can be four items ahead of its session. Four interrupted
//! replies that block their thread end the session.

pub mod builtin;
mod detector;
pub mod gate;
mod handler;
mod listener;
mod options;
mod recording;
mod reply;
mod turn;
mod vad;

pub use detector::{Decision, PauseCause, PauseDetector};
pub use handler::{InterruptOn, ReplyOnPause, ReplyOptions};
pub use listener::{Heard, Listener, Utterance};
pub use options::{AlgoOptions, MAX_CHUNK_S, MAX_UTTERANCE_S, OptionsError, Rules};
pub use reply::{Interrupted, Request, Speaker};
pub use turn::{
    Args, Arguments, Effect, Hearing, Interruption, Log, Opening, ReplyId, Startup, TurnInput, TurnOptions, Turns,
};
pub use vad::{Activity, Earshot, VAD_RATE, Vad};
