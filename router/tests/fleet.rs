//! Routers over real sockets, with workers that only say what they were asked, and one store in memory.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so by failing.

#[path = "fleet/candidates.rs"]
mod candidates;
#[path = "fleet/control.rs"]
mod control;
#[path = "fleet/offers.rs"]
mod offers;
#[path = "fleet/sockets.rs"]
mod sockets;
#[path = "fleet/token.rs"]
mod token;
#[path = "fleet/world.rs"]
mod world;
