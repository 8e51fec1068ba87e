//! Sessions over WebSockets.
//!
//! The protocols are machines in `streamfleet_socket`; here is what drives them. [`line`] moves frames between a WebSocket
//! and its [`Connection`](streamfleet_socket::Connection); [`session`] is the session itself: its handler's link, its life
//! and its audio, which outlive a broken socket.
//!
//! One tokio task a session. A loop like that of the WebRTC side would share nothing here: each session has its own file
//! descriptor, so there is no batch of system calls to save.

mod bell;
pub(crate) mod line;
pub(crate) mod session;

pub(crate) use bell::Bell;
pub use line::Line;

#[cfg(test)]
mod tests;
