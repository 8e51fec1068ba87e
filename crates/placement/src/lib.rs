//! Where a new session goes.
//!
//! A pure function of values: a key, the workers of a service as a snapshot shows them, and a policy. It gives an order
//! ([`rank`]); the claim in the store takes the first of it that really has room, so that routers with snapshots of
//! different ages never overfill a worker. A live session is never placed again.
//!
//! ```
//! use streamfleet_placement::{Key, Packing, Policy, Worker, rank};
//!
//! let worker = |name, active| Worker::new(name, active, 20);
//! let workers = [worker("a", 4), worker("b", 9), worker("c", 20)];
//! let spread = Policy { packing: Packing::Spread, ..Policy::default() };
//! let order = rank(Key::of("k3j9x0a"), &workers, &spread);
//! assert_eq!(order.len(), 2, "a full worker is not asked");
//! // The same key prefers the same worker, whoever asks.
//! assert_eq!(order, rank(Key::of("k3j9x0a"), &workers, &spread));
//! ```
//!
//! # Rules
//! Each worker has a score for each key (highest random weight, Thaler and Ravishankar 1998): the order of scores is
//! the same at every router, and a worker that comes or goes moves only the keys that it wins or has won.
//!
//! - [`Packing::Spread`]: the workers in the order of their scores that are under the bound (a share of what the mean worker
//!   carries) and under the soft cap; then the others with room, least loaded first.
//! - [`Packing::Pack`]: the fullest worker with room first, up to its last place, so that the emptiest ones run empty and can
//!   go; ties in the order of their scores.
//! - [`Affinity::Prefer`]: the workers with room in the order of their scores alone, so that sessions of one value meet while
//!   their worker has room.
//!
//! What is absent: the store, the claim, clocks; which workers serve and which value is a session's key is the caller's
//! knowledge.

mod hash;
mod rank;

pub use hash::{Key, Seed};
pub use rank::{Affinity, MAX_RANKED, Packing, Policy, Worker, first, rank};
