//! The handler SDK of Streamfleet: what an application implements to talk with its callers, and the handlers that
//! come with it.
//!
//! A [`Handler`] is one session's side of a conversation, in FastRTC's words: `start_up`, `receive`, `emit`, `reset`,
//! `shutdown`, and `copy`, the factory. It sees decoded audio, or packets as they came ([`Media`]), and texts from the
//! data channel; it gives back audio, packets, additional outputs, or the end of the stream ([`Emit`]). Everything
//! around it, from ICE to pacing, is the session's business.
//!
//! ```
//! use std::num::NonZeroUsize;
//! use streamfleet_handler::{Emit, Handler, HandlerError, Input, Queue, Registered, Registry, async_trait};
//! # use streamfleet_handler::{Description, Ended, testing::Drive};
//!
//! /// Says everything back, and hangs up when the client sends `bye`.
//! struct Parrot(Queue<Emit>);
//!
//! impl Parrot {
//!     fn new() -> Self {
//!         Self(Queue::new(NonZeroUsize::new(16).unwrap()))
//!     }
//! }
//!
//! #[async_trait]
//! impl Handler for Parrot {
//!     fn copy(&self) -> Box<dyn Handler> {
//!         Box::new(Self::new())
//!     }
//!     async fn receive(&self, input: Input) -> Result<(), HandlerError> {
//!         match input {
//!             Input::Audio(frame) => drop(self.0.push(Emit::Audio(frame))),
//!             Input::Message(text) if text == "bye" => drop(self.0.push(Emit::EndStream(Some("see you".into())))),
//!             _ => {}
//!         }
//!         Ok(())
//!     }
//!     async fn emit(&self) -> Result<Emit, HandlerError> {
//!         Ok(self.0.next().await)
//!     }
//! }
//!
//! let mut registry = Registry::builtin();
//! let about = Description::audio("Parrot", "Says everything back.");
//! registry.register("parrot", about, |_| Ok(Registered::Handler(Box::new(Parrot::new()))));
//! # let Registered::Handler(parrot) = registry.get("parrot", serde_json::Value::Null)?.copy() else { panic!() };
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(async {
//! #     let mut drive = Drive::start(parrot);
//! #     drive.push(Input::Message("bye".into()));
//! #     assert_eq!(drive.ended().await, Ended::EndStream(Some("see you".into())));
//! # });
//! # Ok::<(), streamfleet_handler::ConfigError>(())
//! ```
//!
//! # How it runs
//! [`run`] drives one handler on one task; a [`link`] joins that task to the media loop. The loop never waits for a
//! handler: what a slow `receive` leaves waiting is bounded, and the oldest media makes room. `emit` is held back
//! while 400 ms of audio wait to be played. An error or a panic ends the one session. A [`PacketHandler`] has neither
//! task nor link: it runs on the media loop itself.
//!
//! What is absent: sockets, transports, clocks of media. A handler is tested without any of them, see [`testing`].

pub mod builtin;
mod config;
mod data;
mod error;
mod frame;
mod handler;
mod link;
mod packet;
mod queue;
mod registry;
mod runner;
#[cfg(test)]
mod scratch;
mod session;
mod tasks;
pub mod testing;

pub use async_trait::async_trait;
pub use config::{ConfigError, Keys, Mistake, Switch};
pub use data::Data;
pub use error::{HandlerError, Reason, Step};
pub use frame::{AudioFrame, CodecName, Emit, EncodedPacket, Input, Media, Message, TrackKind};
pub use handler::{Handler, Registered, Replies};
pub use link::{Closed, Inputs, LinkConfig, LinkCounters, LoopEnd, MAX_TEXT, Pushed, SendError, TaskEnd, link};
pub use packet::{Packet, PacketHandler, PacketSink};
pub use queue::Queue;
pub use registry::{Description, Modality, Registry};
pub use runner::{Ended, SHUTDOWN_LIMIT, START_UP_LIMIT, run};
pub use session::{Context, Neighbours, Session, Transport};
pub use streamfleet_audio::PcmFormat;
pub use streamfleet_store::{ContextId, ContextStore, Document, Expected, Version, WriteError};
pub use tasks::{MAX_TASKS, Refused};
