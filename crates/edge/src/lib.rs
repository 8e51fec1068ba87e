//! What every HTTP server of a fleet does at its edge, whether it serves sessions itself or passes requests on.
//!
//! | module | noun |
//! |---|---|
//! | [`body`] | the body of a stranger's request, bounded in size and time |
//! | [`headers`] | texts and tokens in headers |
//! | [`lobby`] | the places of sockets that have not said who they are |
//! | [`origin`], [`cors`] | which pages may ask what |
//! | [`proxy`] | proxies whose word is taken, and whose request they bring |
//! | [`rate`] | how often one source may |
//! | [`reply`] | every outcome as a response |
//! | [`unknown`] | paths that are nobody's |
//!
//! What is absent: routes, sessions, listeners and TLS (`streamfleet_process::serve`).

pub mod body;
pub mod cors;
pub mod headers;
pub mod lobby;
pub mod origin;
pub mod proxy;
pub mod rate;
pub mod reply;
pub mod unknown;
