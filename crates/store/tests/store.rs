//! Rules that hold for every store: in process, and on every arrangement of Redis, all started here for real on loopback. A
//! Redis' clock is put forward by hand (`store/clock.c`), so leases run out without anybody waiting.
//!
//! Needs Debian's `redis-server` and `redis-sentinel`, and a C compiler.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails where it unwraps, and says how far it came")]

#[path = "store/arrangements.rs"]
mod arrangements;
#[path = "store/cost.rs"]
mod cost;
#[path = "store/failures.rs"]
mod failures;
#[path = "store/model/mod.rs"]
mod model;
#[path = "store/race.rs"]
mod race;
#[path = "store/rules/mod.rs"]
mod rules;
#[path = "store/server.rs"]
mod server;
#[path = "store/users.rs"]
mod users;
#[path = "store/world.rs"]
mod world;
