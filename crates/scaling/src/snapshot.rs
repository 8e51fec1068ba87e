//! What is known of a service at one moment.

use std::time::Duration;

use crate::time::Moment;

/// What is known of a service, or of one of its variants, at one moment.
///
/// `Id` is how whoever asks tells workers apart: a pod's name for the operator, a number for the simulator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<Id = String> {
    /// Its pods, all that exist, those that are being deleted too.
    pub workers: Vec<Worker<Id>>,
    /// Pods that were asked for and do not exist yet: a Deployment's `replicas` beyond its pods. They are pods that start.
    pub coming: u32,
    /// What the store has told of its traffic. `None`: the store cannot be asked, and what workers said is old.
    pub traffic: Option<Traffic>,
}

impl<Id> Default for Snapshot<Id> {
    fn default() -> Self {
        Self { workers: Vec::new(), coming: 0, traffic: None }
    }
}

/// A service's traffic, as the store counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Places given since the store has known the service. It may begin again from 0.
    pub arrived: u64,
    /// Places that are free again, likewise.
    pub departed: u64,
    /// Offers that were refused because there was no place for them, likewise: they are as much a demand as those that were
    /// given one. 0 where nobody counts them, and a full fleet then grows by its buffer at a time only.
    pub refused: u64,
    /// Offers that routers hold because there is no place for them.
    pub held: u32,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker<Id = String> {
    /// Its name.
    pub id: Id,
    /// Where it is on its way.
    pub phase: Phase,
    /// When it was created. Of two victims the younger goes.
    pub created: Moment,
    /// Since when it is in its phase.
    pub since: Moment,
    /// How long it took from its creation until it served for the first time; `None` while it has not.
    pub start: Option<Duration>,
    /// Sessions that it has and places that are claimed of it: the greater of what it says and what the store knows.
    pub sessions: u32,
    /// Sessions that it takes, as it says.
    pub capacity: u32,
    /// Whether what it says is how things are.
    pub figures: Figures,
    /// Whether it may stay where it is.
    pub stay: Stay,
    /// Whether it holds nothing: no session, no place, and *it has said so itself since it was asked to drain*. A pod that
    /// has never been in the store's directory holds nothing either: nobody can have given it anything.
    pub empty: bool,
}

/// Where a worker is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Its pod exists, and it has not said yet that it is ready; or its process has died, and the next one has not.
    Starting,
    /// It takes sessions.
    Serving,
    /// It finishes those that it has. It may be put back, unless it [must go](Stay::Ending).
    Draining,
    /// Its lease has run out: it counts for nothing, but it may live behind a network that does not, with all its calls.
    /// Nothing here ever removes it.
    Lost,
}

/// Whether what a worker says is how things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figures {
    /// It has said it lately.
    Fresh,
    /// It has missed its last renewals; its lease still holds.
    Stale,
}

/// Whether a worker may stay where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// It may.
    Welcome,
    /// Its node is being drained, or it shall be replaced: another one is made first, then it drains. Nobody puts it back.
    Leaving,
    /// Its pod is being deleted: it drains of its own accord, and nobody can put it back.
    Ending,
}

impl<Id> Worker<Id> {
    /// A worker that serves as it should.
    #[must_use]
    pub fn serving(id: Id, created: Moment, start: Duration, sessions: u32, capacity: u32) -> Self {
        Self {
            id,
            phase: Phase::Serving,
            created,
            since: created + start,
            start: Some(start),
            sessions,
            capacity,
            figures: Figures::Fresh,
            stay: Stay::Welcome,
            empty: false,
        }
    }

    /// A pod that has just been created.
    #[must_use]
    pub fn starting(id: Id, created: Moment, capacity: u32) -> Self {
        Self {
            id,
            phase: Phase::Starting,
            created,
            since: created,
            start: None,
            sessions: 0,
            capacity,
            figures: Figures::Fresh,
            stay: Stay::Welcome,
            empty: false,
        }
    }

    /// Places that it could still give.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.capacity.saturating_sub(self.sessions)
    }
}
