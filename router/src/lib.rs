//! The router: takes what clients ask, says on which worker a session is to be, and passes requests on.
//!
//! It keeps nothing that another router could not find in the store: any number of them serve the same services.
//!
//! | module | noun |
//! |---|---|
//! | [`identify`] | who is calling |
//! | [`place`] | the workers that a session may go to |
//! | [`attempt`] | what follows when a worker does not take it |
//! | [`known`] | where sessions were seen, and candidates before their offer |
//! | [`hold`], [`tell`] | calls that wait for a worker, and what the store is told of them |
//! | [`limit`] | how often an address or a user may ask |
//! | [`directory`], [`keyring`], [`roster`] | what is known of workers, keys and services, kept by tasks |
//! | [`secret`] | the secrets that services name |
//! | [`kubernetes`] | what a cluster's API server says: services, Secrets, addresses, other relays |
//! | [`reached`] | how the world reaches this router |
//! | [`sockets`] | clients' sockets, read until they have said who they are and passed on after that |
//! | [`relay`] | media, through one port |
//! | [`forward`], [`webhook`] | requests to workers, and to who is asked before a call is taken |
//! | [`web`] | requests to what services name |
//! | [`http`] | routes |
//! | [`sight`] | whether clients are to come, where the store was never seen |
//! | [`config`], [`program`] | the process |
//! | [`leave`] | what ends while it leaves |
//!
//! The first six are pure, and [`reached`]. What is absent: media, SDP, sessions' own state (a worker's), contexts (the store's).

pub mod attempt;
pub mod config;
pub mod directory;
pub mod forward;
pub mod hold;
pub mod http;
pub mod identify;
pub mod keyring;
pub mod known;
pub mod kubernetes;
mod leave;
pub mod limit;
pub mod place;
pub mod program;
pub mod reached;
pub mod relay;
pub mod roster;
pub mod secret;
mod sight;
pub mod sockets;
pub mod tell;
pub mod web;
pub mod webhook;
