//! What a StreamService is.
//!
//! Its specification is written by users, as a Kubernetes object or as the same YAML in a file, and read by routers,
//! workers and the operator: all of them read it here.
//!
//! | module | noun |
//! |---|---|
//! | [`spec`] | the specification as it is written: serde data with defaults, and its JSON Schema |
//! | [`service`] | a specification without mistakes, in the words of the parts that obey it |
//! | [`operation`] | what of it only an operator obeys |
//! | [`resource`] | the resource of Kubernetes (feature `kube`): its definition, its rules, its status |
//! | [`manifest`] | YAML documents that hold StreamServices |
//! | [`ice`] | the STUN and TURN servers that clients are told of |
//! | [`turn`] | credentials of TURN servers that share a secret with us |
//! | [`secrets`] | the Secrets that a service names, and what is to be in them |
//! | [`files`] | the files that hold such documents |
//! | [`pattern`] | the path of a service, with parameters |
//! | [`precedence`] | who has a path that two services want |
//! | [`catalog`] | all services of an installation, and which of them a request is for |
//!
//! All of it but [`files`] is pure. What is absent: watching files or the API server, secrets' values (only where they are).

pub mod catalog;
pub mod files;
pub mod ice;
pub mod manifest;
pub mod operation;
pub mod pattern;
pub mod precedence;
#[cfg(feature = "kube")]
pub mod resource;
pub mod secrets;
pub mod service;
pub mod spec;
pub mod turn;

pub use catalog::{Aged, Catalog, Displaced, Matched};
pub use manifest::{API_VERSION, KIND, Manifest, read};
pub use operation::{Autoscaling, Operation, Workers};
pub use pattern::{Params, PathPattern};
#[cfg(feature = "kube")]
pub use resource::{StreamService, StreamServiceStatus};
pub use service::{Affinity, IdentitySource, Service, Strength};
pub use spec::StreamServiceSpec;
