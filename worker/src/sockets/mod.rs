//! Sessions over WebSockets.
//!
//! The protocols are machines in `streamfleet_socket`; here is what drives them. [`line`] moves frames between a WebSocket
//! and its [`Connection`](streamfleet_socket::Connection); [`session`] is the session itself: its handler's link, its life
//! and its audio, which outlive a broken socket.
//!
//! One tokio task a session. A loop like that of the WebRTC side would share no system calls here: each session has its own
//! file descriptor. What tokio costs beyond that is kept small: a turn asks only those of its sources that have called
//! ([`bell`]), one timer is set as rarely as can be, and all that is due goes out in one message.

mod bell;
pub(crate) mod line;
pub(crate) mod session;

pub(crate) use bell::Bell;
pub use line::Line;

#[cfg(test)]
mod tests;
