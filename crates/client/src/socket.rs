//! Calls over a WebSocket: what a program without WebRTC does, and what a telephone company does.
//!
//! Pure: [`words`] (FastRTC's frames), [`uplink`] (PCM to paced frames), [`playout`] (a queue on a clock), [`talk`]
//! (one call's media and words). Shells: [`open`] (TCP, TLS, the upgrade), [`attach`] (who it is), [`driver`] (the task).

pub(crate) mod attach;
pub(crate) mod bare;
pub(crate) mod decoder;
pub(crate) mod driver;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod playout;
pub(crate) mod talk;
pub(crate) mod uplink;
pub(crate) mod words;
