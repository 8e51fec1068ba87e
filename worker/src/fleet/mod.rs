//! A worker's part in a fleet: it is known to a store that it shares with routers and other workers.
//!
//! | file | decides |
//! |---|---|
//! | `registrar` | what a worker does next to be a member: register, restore, renew |
//! | `ledger` | what the store is to be told of each session |
//! | `contexts` | what is remembered of sessions while the store is away |
//! | `member` | which sessions are taken, and what each holds of the fleet |
//! | `task` | the thin shell: asks the machines, talks to the store |
//! | `guard` | that requests come from a router of the installation |
//!
//! What is absent: the choice of a worker and the claim, which are a router's; media. A worker without a fleet has none of
//! this.

mod contexts;
pub(crate) mod guard;
mod ledger;
mod member;
mod registrar;
mod task;

pub(crate) use member::Reporter;
pub use member::{Member, Place};
pub(crate) use task::{Fate, Owned, Surroundings, run};
