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
//! [`emodel`] says how good a call is, from how it is carried. [`g711`], [`resample`], [`analysis`], [`tone`] and [`wav`] are also used by themselves: by clients, load generators,
//! handlers and tests. [`jitter`] and [`policy`] are public for what they decide to be seen and tested.

pub mod analysis;
mod decoder;
mod delay;
pub mod emodel;
mod encoder;
mod format;
pub mod g711;
mod gate;
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
