//! The media loop: everything between a client's datagrams and its handler.

mod addresses;
pub(crate) mod answer;
pub(crate) mod changes;
mod conversation;
mod counters;
pub(crate) mod driver;
mod dtls;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod io;
mod outlet;
mod pace;
mod path;
mod peer;
mod reach;
mod sdp;
pub(crate) mod session;
pub(crate) mod shard;
pub(crate) mod shared;
#[cfg(test)]
mod tests;
mod tick;
mod tracks;

pub(crate) use shared::millis;

pub use answer::{NoIdentity, PeerFactory};
pub use changes::{Change, Event};
pub use counters::{Counters, Drop, Reading};
pub use sdp::InvalidOffer;
pub use shared::{Intake, Playout, Quality, Shared, Stage, TrackEnd, TrackView};
