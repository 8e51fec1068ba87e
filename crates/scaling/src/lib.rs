//! How many workers a service needs, and which go: a pure function of a snapshot.
//!
//! ```text
//! decide(&Tuning, &Snapshot, &mut Memory, Moment) -> Plan
//! ```
//!
//! The operator calls it with what it sees of a cluster, the simulator with what it plays; neither knows a rule of its own.

mod decide;
mod fleet;
mod memory;
mod need;
mod plan;
mod rates;
mod schedule;
mod snapshot;
mod split;
mod starts;
mod time;
mod tuning;
mod victims;
mod window;

pub use decide::decide;
pub use memory::Memory;
pub use plan::{DrainReason, Limit, Plan, Why};
pub use schedule::{MAX_DURATION, NoSchedule, Schedule, floor, next_change};
pub use snapshot::{Figures, Phase, Snapshot, Stay, Traffic, Worker};
pub use split::split;
pub use time::Moment;
pub use tuning::{Buffer, Mode, NoBuffer, Tuning};
