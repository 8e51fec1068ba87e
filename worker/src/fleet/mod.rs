//! A worker's part in a fleet: it is known to a store that it shares with routers and other workers.
//!
//! | file | decides |
//! |---|---|
//! | `registrar` | what a worker does next to be a member: register, restore, renew |
//! | `ledger` | what the store is to be told of each session |
//! | `contexts` | what is remembered of sessions while the store is away |
//! | `reconcile` | what becomes of a document that two have written apart |
//! | `journal` | what sessions put out, on its way to the store |
//! | `remote` | outputs of sessions that other workers have or had |
//! | `member` | which sessions are taken, and what each holds of the fleet |
//! | `task` | the thin shell: asks the machines, talks to the store |
//! | `gauges` | what is counted of all this |
//! | `guard` | that requests come from a router of the installation |
//!
//! What is absent: the choice of a worker and the claim, which are a router's; media. A worker without a fleet has none of
//! this.

mod contexts;
mod gauges;
pub(crate) mod guard;
mod journal;
mod ledger;
mod member;
mod reconcile;
mod registrar;
mod remote;
mod task;

pub(crate) use gauges::{FleetMetrics, observe};
pub(crate) use member::Reporter;
pub use member::{Member, Place};
pub(crate) use remote::{Elsewhere, Follower};
pub(crate) use task::{Fate, Owned, Surroundings, run};

#[cfg(test)]
pub(crate) mod doubles;
#[cfg(test)]
mod tests;
