//! `streamfleet load`: many real sessions from one core.
//!
//! Each session is a WebRTC connection of its own (or a WebSocket: [`sockets`]), on a socket of its own: ICE, DTLS and SCTP by the sans-IO core, RTP past
//! it, sound encoded once for all. One thread drives them; another posts the offers. What decides something is pure and
//! takes the time as an argument; [`run`] alone has sockets and a clock.

mod arguments;
mod clip;
mod histogram;
mod line;
mod media;
mod peer;
mod probe;
mod report;
mod run;
mod session;
mod signal;
mod sockets;
mod table;

pub(crate) use arguments::Args;
pub(crate) use run::run;
