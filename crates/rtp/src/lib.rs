//! RTP, SRTP and RTCP accounting for media that goes past the WebRTC core.
//!
//! The core keeps ICE, DTLS, SCTP, SDP and SRTCP. This crate opens and seals RTP in place ([`srtp`]), with keys that it
//! learns through the core's crypto provider ([`keying`]), counts what the core then no longer sees ([`rtcp`]), and repeats
//! what the core's DTLS says only once ([`flight`]).
//! No sockets, no clocks: time is an argument.

pub mod flight;
pub mod header;
pub mod index;
pub mod keying;
pub mod rtcp;
pub mod srtp;

pub use flight::{Flight, Sent};
pub use header::{Extensions, Header};
pub use index::Index;
pub use keying::{KeyTap, Keying};
pub use srtp::{Keys, Opened, Outgoing, Profile, Refused, Rx, SealError, Tx};
