//! One thread of a UDP relay between clients and media workers: what `streamfleet-relay` decides, on real sockets.
//!
//! | module | noun |
//! |---|---|
//! | [`carrier`] | two sockets, a clock and a `Relay`, a step at a time |
//! | [`doors`] | the public addresses at its port, where they are several |
//! | [`counters`] | what it counts, read by others while it runs |
//!
//! What is absent: threads, metrics, what relays tell each other, and who reads a name that a client brings. A router gives it
//! those, and a benchmark gives it others.

pub mod carrier;
pub mod counters;
pub mod doors;

pub use carrier::{Addresses, Carrier, Offloads};
pub use counters::{Counters, Histogram, Way};
pub use doors::Doors;
