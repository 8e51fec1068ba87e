//! Harness of the whole-system tests: starts the built `streamfleet` program and drives it from outside, as its clients do.
//!
//! Nothing of the product is linked in here. A [`Server`] is a process with its printed addresses, a [`Script`] is a browser or a
//! Python client that reports events as lines of JSON, [`http`] is a client small enough to send what no library would, and a
//! [`Nat`] is a bad network between the two.

mod events;
pub mod http;
mod lines;
pub mod metrics;
mod nat;
mod program;
mod scratch;
mod script;
mod server;
pub mod services;
mod signalling;
mod websocket;

pub use events::{Events, ServerEvent};
pub use nat::{Figures, Loss, Nat};
pub use program::{root, streamfleet, tool, worker};
pub use script::Script;
pub use server::{EXACT_HEAP, Server};
pub use signalling::WithoutCandidates;
pub use websocket::{Received, WebSocket};
