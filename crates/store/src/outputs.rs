//! A session's additional outputs, where any process can read them.
//!
//! They belong to the session's context, so that those of a session that goes on where another one ended follow that one's.
//! Whoever runs the session numbers them; each number is told apart by the [mark](Seen::mark) of the history that gave it.

use std::sync::Arc;

use async_trait::async_trait;
use streamfleet_session::{ServiceName, SessionId, UserId};

use crate::context::{ContextId, StoreError};
use crate::directory::FleetError;
use crate::words::{Owner, Ticket};

/// Outputs kept of a session: what a page has missed while it reconnected.
pub const MAX_OUTPUTS: usize = 256;
/// Bytes kept over all outputs of a session; the newest is always kept.
pub const MAX_OUTPUTS_BYTES: usize = 1 << 20;
/// Outputs that are read or written in one step.
pub const MAX_READ: usize = 64;
/// Histories that one follows and still knows the marks of: a client that has moved more often within the minutes that
/// outputs are kept gets all of them again.
pub const MAX_EARLIER: usize = 8;

/// An output, as its reader names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Of the history that gave the number: random.
    pub mark: u32,
    /// Its place in that, from 1.
    pub number: u64,
}

/// Some outputs to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Of the history that they are in.
    pub mark: u32,
    /// The last output of each history that this one follows, the latest at the end; of more than [`MAX_EARLIER`] the
    /// rest is not looked at. Numbers go on from one to the next.
    pub earlier: &'a [Seen],
    /// The number of the first.
    pub first: u64,
    /// The number of the oldest that the writer has: what is before it is lost, and nobody waits for it.
    pub oldest: u64,
    /// The JSON text of each, at most [`MAX_READ`].
    pub texts: &'a [Arc<str>],
}

/// What became of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// All up to this number are kept, as far as the bounds go.
    Upto(u64),
    /// Nothing has been written: what follows this number is missing, and the writer still has it.
    Missing(u64),
    /// The session is over, or goes on elsewhere.
    Over,
}

/// Whose outputs.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Those of the session that lives under the id, or of the last that did.
    Session(&'a SessionId),
    /// Those of the sessions that have had this context.
    Context(ContextId),
}

/// Some outputs of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its context.
    pub context: ContextId,
    /// The verified user whose they are. To anybody else they are nothing.
    pub user: Option<UserId>,
    /// What their numbers belong to; `None` if there have not been any.
    pub mark: Option<u32>,
    /// The last output of each history before that.
    pub earlier: Vec<Seen>,
    /// Number and JSON text of each, in order. Of an output that has been seen by the number of an earlier history, what
    /// follows has the numbers of the present one.
    pub outputs: Vec<(u64, String)>,
    /// The number of the newest that there is.
    pub last: u64,
    /// Whether the session is over and nothing follows these. Never so for [`Whose::Context`].
    pub over: bool,
}

/// Outputs of sessions. Some are kept for a while after their session's end.
#[async_trait]
pub trait Outputs: Send + Sync + 'static {
    /// Adds outputs and wakes their readers. What is there already is not written again, so a batch may be repeated.
    ///
    /// # Errors
    /// [`FleetError`].
    async fn append(
        &self,
        service: &ServiceName,
        owner: &Owner,
        ticket: Ticket,
        batch: &Batch<'_>,
    ) -> Result<Appended, FleetError>;

    /// At most [`MAX_READ`] outputs after the one that was seen; all that are kept, if that is none of theirs. `None` if
    /// nothing is known of whose they are.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn outputs(
        &self,
        service: &ServiceName,
        whose: Whose<'_>,
        seen: Option<Seen>,
    ) -> Result<Option<Read>, StoreError>;
}

/// The number in the present history of what was seen in that or an earlier one; 0 if it is unknown.
pub(crate) fn translate(mark: u32, earlier: &[Seen], seen: Option<Seen>) -> u64 {
    let Some(seen) = seen else { return 0 };
    let before = || earlier.iter().find(|before| before.mark == seen.mark).map(|before| before.number.min(seen.number));
    if seen.mark == mark { seen.number } else { before().unwrap_or(0) }
}
