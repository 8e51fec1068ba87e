//! Harness of the whole-system tests: starts the built `streamfleet` program and drives it from outside, as its clients do.
//!
//! Nothing of the product is linked in here. A [`Server`] is a process with its printed addresses, a [`Script`] is a browser or a
//! Python client that reports events as lines of JSON, [`http`] is a client small enough to send what no library would, and a
//! [`Nat`] is a bad network between the two.

mod balancer;
mod coturn;
mod edge;
mod events;
mod fleet;
mod home;
pub mod http;
mod lines;
mod link;
pub mod metrics;
mod namespaces;
mod nat;
mod program;
mod redis;
mod replicas;
mod scratch;
mod script;
mod sdp;
mod server;
pub mod services;
mod signalling;
mod site;
mod steady;
mod twiml;
mod websocket;

pub use balancer::Balancer;
pub use coturn::{Coturn, Wire, credential};
pub use edge::{Edge, Traffic};
pub use events::{Events, ServerEvent};
pub use fleet::{Fleet, Media, Part, Shape, Wires};
pub use home::{Conditions, Followed, Home};
pub use link::Link;
pub use namespaces::{Namespace, Plug};
pub use nat::{Figures, Loss, Nat};
pub use program::{root, streamfleet, tool, worker};
pub use redis::{Monitor, Redis, Sent};
pub use replicas::{Passed, Replicas};
pub use script::Script;
pub use sdp::browser_offer;
pub use server::{EXACT_HEAP, Server};
pub use signalling::WithoutCandidates;
pub use site::{Keys, Plan, Site};
pub use steady::{Gauge, judged};
pub use twiml::Twiml;
pub use websocket::{Received, WebSocket};
