//! The shipped scaling rules over a day of generated or recorded load.
//!
//! Nothing here decides anything: [`streamfleet_scaling::decide`] says what is made, drained and removed,
//! [`streamfleet_operator::steps`] by which steps, [`WorkerView::is_drained`](streamfleet_store::WorkerView::is_drained) when nobody is
//! left, and [`streamfleet_placement`] where a session goes, as in the operator and in routers. What is played is the rest: sessions that
//! come and go, pods that start, workers that say what they have, and Kubernetes' HorizontalPodAutoscaler, to compare with.
//!
//! ```
//! use streamfleet_simulator::{Generator, Hpa, Rule, Setup, autoscaler, streamfleet};
//!
//! let load = Generator { sessions_per_day: 2_000.0, ..Generator::default() }.load();
//! let (setup, hpa) = (Setup::default(), Hpa::default());
//! let ours = streamfleet(&setup, &Rule::default(), &load);
//! assert_eq!(ours.killed, 0);
//! assert!(ours.pod_hours < autoscaler(&setup, &hpa, &load).pod_hours);
//! ```
//!
//! What is absent: networks, clocks, threads; a router's snapshot is never old, the store never away, no operator dies between two
//! steps, and no pod fails. Those are the cluster tests' matter, and the operator's own (`operator/src/steps/played.rs`).

pub mod csv;
mod hpa;
mod load;
mod ours;
mod outcome;
pub mod plot;
mod random;
mod way;
mod world;

pub use hpa::{Hpa, Victims};
pub use load::{Generator, Load, Session};
pub use ours::Rule;
pub use outcome::{Outcome, Sample, Waits};
pub use streamfleet_placement::Packing;
pub use world::{Holding, Setup};

/// Plays a load under the rule that ships.
#[must_use]
pub fn streamfleet(setup: &Setup, rule: &Rule, load: &Load) -> Outcome {
    world::play(setup, load, &mut ours::Operator::new(setup, rule))
}

/// Plays a load under a HorizontalPodAutoscaler.
#[must_use]
pub fn autoscaler(setup: &Setup, hpa: &Hpa, load: &Load) -> Outcome {
    world::play(setup, load, &mut hpa::Autoscaler::new(setup, hpa))
}

/// The days whose figures docs/scaling.md has, and that the tests hold the rule to.
pub const SEEDS: std::ops::RangeInclusive<u64> = 1..=10;
