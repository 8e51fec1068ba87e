//! How much there is to do: what an autoscaler goes by, beside what workers say.

use std::time::Duration;

/// How long a router's word counts on the calls that wait with it: several of them, which come every second.
pub const HELD_LEASE: Duration = Duration::from_secs(10);

/// Routers whose words on waiting calls are kept: more than any service has. Those of routers that are gone go with their lease.
pub const MAX_HOLDERS: usize = 256;

/// Words on waiting calls that the list of [all services](crate::Directory::held) has: that many services with one router, or a
/// quarter of them with four. Those of more are known to their services alone.
pub const MAX_WORDS: usize = 4096;

/// A session that is [restored](crate::Sessions::restore) counts as one that has come if it is younger than this: it began while the
/// store was away from it. Older ones are no news, and many that come back at once would look like a rush.
pub const RECENT: Duration = Duration::from_secs(60);

/// What a service's clients do, counted since the store has known a worker of it.
///
/// The counts are for rates: of two readings the differences, unless a count has become smaller. Then the store was lost in between, and
/// has begun again; where a count has passed the old one by then, the difference is too small once, and never too large. They are no
/// balance: sessions that are lost and come back have gone twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Clients that have come: sessions that a worker has confirmed. A client that moves to another connection, or a claim that
    /// nobody confirms, is none.
    pub arrived: u64,
    /// Clients that have gone: such sessions that are over, whatever the reason.
    pub departed: u64,
    /// Calls that routers have refused for want of a place, at least; one that is refused while the store is away may be counted twice.
    pub refused: u64,
    /// Calls that wait at routers for a worker to be ready.
    pub held: u32,
}

/// What a router says of the calls of a service that it has no worker for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many wait.
    pub held: u32,
    /// How many were refused since its last word that was heard.
    pub refused: u32,
}
