//! RTCP for RTP that the core never sees (RFC 3550, RFC 4585, RFC 5104).
//!
//! SRTCP itself stays with the core: reports leave through its `handle_write`, and what the peer sends is collected by
//! [`RtcpTap`]. Counting ([`Reception`], [`Transmission`]), building ([`compound`], [`pli`], [`bye`]) and reading
//! ([`read`]) are pure.

mod clock;
mod feedback;
mod reception;
mod report;
mod tap;

pub use clock::{Ntp, WallClock};
pub use feedback::{Event, Feedback, KeyFrameRequest, read};
pub use reception::Reception;
pub use report::{Transmission, bye, compound, pli};
pub use tap::{Packets, RtcpInbox, RtcpTap};
