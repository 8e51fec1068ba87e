//! The operator: makes StreamServices into workers, as many as are needed, and ends none that has a call.
//!
//! Pure: [`names`], [`kind`], [`prepare`] (validate), [`objects`] (build), [`diff`], [`facts`], [`workers`], [`steps`],
//! [`status`], [`reasons`], [`events`], [`precedence`], [`lease`], [`due`], [`resource`]. Shells: [`cluster`], [`follow`], [`watch`], [`address`], [`view`], [`apply`], `secrets`,
//! [`operator`] with its looks, [`leader`], [`program`]. How many workers there are is decided in `streamfleet_scaling`.

pub mod address;
pub mod apply;
pub mod care;
pub mod cluster;
pub mod config;
pub mod diff;
#[cfg(test)]
mod doubles;
pub mod due;
pub mod events;
pub mod facts;
pub mod farewell;
pub mod follow;
pub mod kind;
pub mod known;
pub mod leader;
pub mod lease;
mod look;
pub mod metrics;
pub mod names;
pub mod objects;
pub mod operator;
pub mod precedence;
pub mod prepare;
pub mod program;
pub mod reasons;
pub mod requests;
pub mod resource;
mod scale;
mod secrets;
pub mod small;
pub mod status;
pub mod steps;
mod tell;
mod traces;
pub mod users;
pub mod view;
pub mod watch;
pub mod workers;
