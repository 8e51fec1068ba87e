//! Routers over real sockets, with workers that only say what they were asked, and one store: in memory, or a Redis where it
//! matters.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so by failing.

#[path = "doubles/audit.rs"]
mod audit;
#[path = "doubles/candidates.rs"]
mod candidates;
#[path = "doubles/configuration.rs"]
mod configuration;
#[path = "doubles/control.rs"]
mod control;
#[path = "doubles/double.rs"]
mod double;
#[path = "doubles/edges.rs"]
mod edges;
#[path = "doubles/held.rs"]
mod held;
#[path = "doubles/limits.rs"]
mod limits;
#[path = "doubles/offers.rs"]
mod offers;
#[path = "doubles/outage.rs"]
mod outage;
#[path = "doubles/race.rs"]
mod race;
#[path = "doubles/redis.rs"]
mod redis;
#[path = "doubles/settling.rs"]
mod settling;
#[path = "doubles/sockets.rs"]
mod sockets;
#[path = "doubles/token.rs"]
mod token;
#[path = "doubles/web.rs"]
mod web;
#[path = "doubles/world.rs"]
mod world;
