//! What a loop lends its sessions, and what they tell it.

use std::net::SocketAddr;
use std::time::Instant;

use streamfleet_net::stun::TransactionId;
use streamfleet_rtp::rtcp::WallClock;

use super::counters::Counters;
use super::outlet::Outlet;

/// What a session needs of its loop while it works.
pub(crate) struct Io<'a> {
    pub(crate) now: Instant,
    pub(crate) clock: &'a WallClock,
    pub(crate) out: &'a mut Outlet,
    pub(crate) counters: &'a Counters,
    pub(crate) routes: &'a mut Vec<Route>,
    /// Room for one packet's payload.
    pub(crate) payload: &'a mut Vec<u8>,
}

/// What the loop's tables are to learn of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Something authentic came from there. Integrity does not cover the source address, so this takes the address from
    /// nobody.
    Claimed(SocketAddr),
    /// A check of ours was answered from there: whoever is there is this session's client.
    Proven(SocketAddr),
    /// The session has no more use for it.
    Forgotten(SocketAddr),
    /// A check of ours left with this id; its answer carries no name.
    Asked(TransactionId),
    /// It was answered, or is too old to be.
    Answered(TransactionId),
    /// Authenticated media has this SSRC.
    Source(u32),
}
