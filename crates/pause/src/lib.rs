//! Conversations in turns: who speaks, when they have paused, and what is said in reply.
//!
//! [`ReplyOnPause`] makes a handler of a reply function, with FastRTC's options, names and defaults:
//!
//! ```
//! use serde_json::json;
//! use streamfleet_handler::{Description, HandlerError, Registered, Registry};
//! use streamfleet_pause::{ReplyOnPause, ReplyOptions, Request, Speaker};
//!
//! /// Called once a turn, with what the user said.
//! async fn reply(request: Request, speaker: Speaker) -> Result<(), HandlerError> {
//!     speaker.output(json!({ "heard_ms": request.audio.duration().as_millis() as u64 })).await?;
//!     for sentence in ["one", "two"] {
//!         speaker.say(synthesize(sentence).await).await?;
//!     }
//!     Ok(())
//! }
//! # async fn synthesize(_: &str) -> Vec<i16> { vec![0; 480] }
//!
//! let mut registry = Registry::builtin();
//! registry.register("agent", Description::audio("Agent", "Answers."), |_config| {
//!     let agent = ReplyOnPause::new(ReplyOptions::default(), reply).expect("the defaults are valid");
//!     Ok(Registered::Handler(Box::new(agent)))
//! });
//! // `streamfleet_worker::program::run(&registry)` serves it.
//! ```
//!
//! # What a reply function may do
//! - **Wait**, for a model or a database, as long as it likes: the user is heard meanwhile. It waits in
//!   [`Speaker::say`] as well, while the client has enough to play.
//! - **Be interrupted.** When the user has paused again (or speaks, with [`InterruptOn::Speech`]) it is dropped at its next
//!   `await`, as any future is, and what it said is forgotten as far as the client has not heard it. What must not be left
//!   half done belongs into a task of its own. [`ReplyOptions::can_interrupt`] rules it out.
//! - **Fail.** Its session ends with `handler_error` and its words; no other does. A panic is the same.
//! - **Not block its thread.** It shares that with other sessions: computing for more than a millisecond, and calls that
//!   wait without `await`, belong on `tokio::task::spawn_blocking`.
//! - **End the call**: [`Speaker::end_stream`], behind its last words.
//!
//! The client is told `started_talking`, `pause_detected`, `send_input` where arguments are awaited
//! ([`ReplyOptions::needs_args`]), and `response_starting`, in this order, the last once a reply.
//!
//! # Beneath it
//! Each usable and tested by itself:
//!
//! ```text
//! audio ──► Listener ─────────────────────────────────► Turns ──────────► ReplyOnPause
//!           resampler → Vad → PauseDetector, Recording  order of a turn   tasks, the session
//!           started talking, pause + its audio          log, start, cancel, clear
//! ```
//!
//! - [`Vad`]: is this hop of some milliseconds speech? [`Earshot`] ships in the binary;
//!   [`ReplyOnPause::with_vad`] takes another.
//! - [`PauseDetector`]: FastRTC's `audio_chunk_duration`, `started_talking_threshold`, `speech_threshold` and
//!   `max_continuous_speech_s`, over the last chunk at every hop.
//! - [`Listener`]: cuts utterances out of audio of any rate; what was said is given on exactly as it came.
//! - [`Turns`]: the order above, once a reply; interruptions; arguments.
//!
//! All of these are pure: no clock, no task, no socket. Time is the number of samples heard, so how the audio was cut
//! into packets makes no difference, and an hour of conversation is tested in the time it takes to compute.
//!
//! # The model
//! `earshot` hears hops of 16 ms at 16 kHz. By itself it takes distant talk and loud music for speech, so that in a café
//! nobody ever pauses. [`gate`] follows the level that the room has while nobody speaks; the model hears the room turned
//! down to a quiet one's level, and only what stands out of the room is speech. About silence the model is not asked.
//! `examples/compare` measures it against WebRTC's detector on speech from espeak-ng in noise, babble and music.
//!
//! # Bounds
//! A session keeps one chunk of audio and a half (86 kB at 48 kHz mono, 29 kB at 16 kHz), the detector's 12 kB, and while
//! somebody talks their utterance, at most [`MAX_UTTERANCE_S`]. One reply is listened to; a reply can be four items ahead of its session. Four interrupted
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
