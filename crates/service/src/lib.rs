//! What a StreamService is.
//!
//! Its specification is written by users, as a Kubernetes object or as the same YAML in a file, and read by routers,
//! workers and the operator: all of them read it here.
//!
//! | module | noun |
//! |---|---|
//! | [`spec`] | the specification as it is written: serde data with defaults, and its JSON Schema |
//! | [`service`] | a specification without mistakes, in the words of the parts that obey it |
//! | [`manifest`] | YAML documents that hold StreamServices |
//! | [`ice`] | the STUN and TURN servers that clients are told of |
//! | [`turn`] | credentials of TURN servers that share a secret with us |
//! | [`files`] | the files that hold such documents |
//! | [`pattern`] | the path of a service, with parameters |
//! | [`catalog`] | all services of an installation, and which of them a request is for |
//!
//! All of it but [`files`] is pure. What is absent: watching files or the API server, secrets' values (only where they are), status.

pub mod catalog;
pub mod files;
pub mod ice;
pub mod manifest;
pub mod pattern;
pub mod service;
pub mod spec;
pub mod turn;

pub use catalog::{Catalog, Matched};
pub use manifest::{API_VERSION, KIND, Manifest, read};
pub use pattern::{Params, PathPattern};
pub use service::{Affinity, IdentitySource, Service, Strength};
pub use spec::StreamServiceSpec;
