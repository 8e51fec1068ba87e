//! A UDP relay between clients and media workers, without its sockets: whose packet is this, and may it pass?
//!
//! | module | noun |
//! |---|---|
//! | [`announce`] | what relays tell each other of flows |
//! | [`cookie`] | who asks what relays know is where it says it is |
//! | [`header`] | what relay and worker put before each datagram |
//! | [`flows`] | clients' addresses and where they lead, bounded |
//! | `index` | from a hash to a place |
//! | [`relay`] | the decision for each datagram |
//! | `replays` | what other relays have said already |
//! | `shares` | how many flows of one session there may be |
//! | [`told`] | flows that relays have told of, bounded |
//! | [`view`] | what people see of a flow |
//!
//! What is absent: sockets, clocks, threads, and the installation's key. Time is an argument.

pub mod announce;
pub mod cookie;
pub mod flows;
pub mod header;
mod index;
pub mod relay;
mod replays;
mod shares;
mod strangers;
pub mod told;
pub mod view;

pub use flows::{Bounds, FlowKey, Target, Traffic};
pub use header::{Direction, FlowId, HEADER, Header, NotAHeader, Sealed, SessionHandle, Standing};
pub use relay::{Announced, Drop, Elsewhere, Homeward, Onward, Relay, Ufrags};
pub use view::FlowView;
