//! The words that every part of Streamfleet shares, parsed once at the edge.
//!
//! Nothing here opens a socket, reads a clock or makes a random number: time and randomness are arguments. What is
//! absent: SDP (the media core parses it), placement, transports.
//!
//! | module | noun |
//! |---|---|
//! | [`id`] | session id, user id, service name, path prefix |
//! | [`metadata`], [`identity`] | what a client says about its user, validated |
//! | [`lifecycle`] | `connecting → active → ending → closed(reason)` |
//! | [`limits`] | what one service allows |
//! | [`token`], [`service_key`] | resume and admin tokens, what routers show workers |
//! | [`candidate`], [`early`] | trickled ICE candidates, and those that overtake their offer |
//! | [`ufrag`] | where a session's media goes, sealed in its local ufrag; the relay's keys |
//! | [`network`] | ranges of addresses |
//! | [`fleet`] | what passes between a router and a worker |
//! | [`wire`] | HTTP bodies and data-channel messages |

pub mod candidate;
pub mod early;
pub mod fleet;
pub mod id;
pub mod identity;
pub mod lifecycle;
pub mod limits;
pub mod metadata;
pub mod network;
pub mod service_key;
mod text;
pub mod token;
pub mod ufrag;
pub mod wire;

pub use candidate::{InvalidCandidate, ParsedCandidate, RemoteCandidate};
pub use early::EarlyCandidates;
pub use id::{ParseError, PathPrefix, ServiceName, SessionId, UserId};
pub use identity::{Claims, Identity, IdentityPolicy, UserIdSource, Verification, identify};
pub use lifecycle::{CloseReason, LifeEvent, LifeLimits, Lifecycle, RECONNECT_LEAD, State};
pub use limits::Limits;
pub use metadata::{InvalidMetadata, Metadata, MetadataLimits};
pub use network::{InvalidNetwork, Network};
pub use service_key::{FleetKey, ServiceKey};
pub use token::{AdminToken, FleetSecret, ResumeToken};
pub use ufrag::Ufrag;
