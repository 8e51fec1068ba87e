//! The media worker: a complete FastRTC-compatible server for one or more services.

pub mod admission;
pub mod config;
mod feed;
pub mod fleet;
pub mod history;
pub mod http;
pub mod media;
pub mod metrics;
pub mod program;
pub mod sessions;
pub mod sockets;
pub mod worker;
