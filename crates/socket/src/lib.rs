//! A session's audio over a WebSocket or a telephone call, and its outputs as server-sent events: the protocols as
//! pure machines.
//!
//! Nothing here opens a socket, reads a clock or makes a random number. A driver (any WebSocket library) hands frames
//! to a [`Connection`], sends what it asks to be sent, and comes back when it wants to be called:
//!
//! ```
//! use std::time::Instant;
//! use streamfleet_socket::{AudioRates, Connection, ConnectionLimits, Event, SocketAudio, Transmit};
//!
//! let now = Instant::now();
//! let mut connection = Connection::client(now, ConnectionLimits::default());
//! connection.handle_text(now, r#"{"event":"start","websocket_id":"abc"}"#);
//! let Some(Event::Start(_)) = connection.poll_event() else { panic!() };
//! connection.accept(now, SocketAudio::new(AudioRates { input: 48_000, output: 24_000 })?, None)?;
//! connection.handle_text(now, r#"{"event":"ping"}"#);
//! assert_eq!(connection.poll_transmit(now), Some(Transmit::Text(r#"{"event":"pong"}"#.into())));
//! connection.transmitted(now);
//! # Ok::<(), streamfleet_audio::AudioError>(())
//! ```
//!
//! | module | noun |
//! |---|---|
//! | [`protocol`] | frames of `{p}/websocket/offer` and of a Twilio media stream, both ways |
//! | [`audio`] | payloads to frames for the handler, the handler's PCM to paced payloads |
//! | [`connection`] | one socket's life: start, play-out, keep-alive, end |
//! | [`frames`] | frames of RFC 6455, for whoever passes them on |
//! | [`hello`] | who it is that has said `start`, and what for |
//! | [`telephone`] | TwiML, signatures, the public URL, call tokens |
//! | [`outputs`] | server-sent events with a bounded history |
//!
//! What is absent: sockets, HTTP, handlers, admission, the session's own life.

pub mod audio;
mod close;
mod codec;
pub mod connection;
pub mod frames;
pub mod hello;
pub mod outputs;
mod payload;
pub mod protocol;
pub mod telephone;

pub use audio::{AudioRates, BadPayload, PushError, SocketAudio};
pub use close::{CloseCode, CloseFrame, End};
pub use codec::{Framing, UnknownName, WireCodec};
pub use connection::{Connection, ConnectionLimits, Event, Farewell, Opening, Transmit};
pub use outputs::{Cursor, Outputs};
