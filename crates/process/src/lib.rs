//! Process shell: what every Streamfleet program has around its own work.
//!
//! A `main` reads as a table of contents: [`config`] (one typed value out of flags, environment, file and defaults),
//! [`telemetry`] (logs, traces, metrics), [`crypto`] (the one TLS provider), [`serve`] and [`tls`] (HTTP listeners that
//! bound what a client can hold), [`admin`] (probes and metrics on a thread of their own), [`tasks`] (owners of
//! everything that runs), [`signals`] (drain, then leave), [`exit`] (why it ends, and with which code).
//!
//! Nothing here knows of sessions, media or Kubernetes.

pub mod admin;
pub mod config;
pub mod crypto;
pub mod exit;
pub mod readiness;
pub mod serve;
pub mod signals;
pub mod tasks;
pub mod telemetry;
pub mod tls;
