//! The audio path of a session, without sockets, clocks or tasks.
//!
//! Inbound: [`AudioReceiver`] takes RTP payloads as they arrive and gives interleaved 16-bit PCM at the rate its owner
//! wants: jitter buffer, decoder with forward error correction and concealment, time-scaling, resampler.
//! Outbound: [`AudioSender`] takes PCM of any rate and gives packets of exactly 20 ms, paced.
//!
//! Time is an argument everywhere. Both have the same shape: put something in, ask [`AudioReceiver::poll_timeout`] or
//! [`AudioSender::poll_timeout`] when to come back, and come back then. `None` means that nothing is to be done until
//! something is put in, so a silent track costs nothing.
//!
//! The pieces ([`jitter`], [`resample`], [`policy`], [`analysis`], [`tone`], [`wav`]) are public because clients, load
//! generators and tests use them by themselves.

pub mod analysis;
mod decoder;
mod delay;
mod encoder;
mod format;
pub mod g711;
pub mod jitter;
mod opus_packet;
mod plc;
pub mod policy;
mod receiver;
pub mod resample;
mod sender;
mod timescale;
pub mod tone;
pub mod wav;

pub use delay::DelayBounds;
pub use format::{AudioError, Codec, PcmFormat};
pub use receiver::{AudioReceiver, Pulled, PulledKind, ReceiverStats};
pub use sender::{AudioSender, PacketInfo};
