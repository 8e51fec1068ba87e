//! Routers over real sockets, with workers that only say what they were asked, and one store: in memory, or a Redis where it
//! matters.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so by failing.

#[path = "fleet/audit.rs"]
mod audit;
#[path = "fleet/candidates.rs"]
mod candidates;
#[path = "fleet/control.rs"]
mod control;
#[path = "fleet/edges.rs"]
mod edges;
#[path = "fleet/limits.rs"]
mod limits;
#[path = "fleet/offers.rs"]
mod offers;
#[path = "fleet/outage.rs"]
mod outage;
#[path = "fleet/race.rs"]
mod race;
#[path = "fleet/redis.rs"]
mod redis;
#[path = "fleet/sockets.rs"]
mod sockets;
#[path = "fleet/token.rs"]
mod token;
#[path = "fleet/web.rs"]
mod web;
#[path = "fleet/world.rs"]
mod world;
