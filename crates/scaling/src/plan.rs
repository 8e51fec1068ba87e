//! What is to be done, and why: what people read in Events is made of these.

use std::fmt;

use crate::time::Moment;

/// What is to be done. The parts are independent of each other, and none of it has to succeed: what was not done is decided
/// again from the next snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<Id = String> {
    /// Workers that shall serve.
    pub want: u32,
    /// Why so many.
    pub why: Why,
    /// Places that shall be free.
    pub buffer: u32,
    /// Pods to create.
    pub create: u32,
    /// Pods that were asked for, do not exist and are too many: whoever cannot have them made asks for no more of them.
    pub withdraw: u32,
    /// Draining workers to put back, before anything is created.
    pub undrain: Vec<Id>,
    /// Workers that shall take no more sessions, and why.
    pub drain: Vec<(Id, DrainReason)>,
    /// Draining workers that have said that they are empty: exactly these pods go.
    pub remove: Vec<Id>,
    /// What keeps the service from having what it needs.
    pub limited: Option<Limit>,
    /// When something changes by time alone (a schedule, the end of a window): decide again at the latest then.
    pub wake: Option<Moment>,
}

/// Why so many workers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// Sessions, and the share of them that is kept free.
    Sessions,
    /// Sessions come faster than they go, and workers take a while to start.
    Growth,
    /// Offers are held.
    Held,
    /// Its minimum.
    Minimum,
    /// A schedule.
    Schedule,
    /// Nobody has called for a while.
    Idle,
    /// So many were wanted a moment ago.
    Stabilizing,
    /// Somebody else says so.
    External,
    /// Not known: the store cannot be asked, so what is there stays.
    Unknown,
    /// Not known: most of the workers are not heard of, and may be in a moment.
    Lost,
}

/// Why a worker is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DrainReason {
    /// There are more than are wanted.
    Surplus {
        /// Workers that serve or start.
        have: u32,
        /// Workers that shall.
        want: u32,
    },
    /// Nobody has called for a while.
    Idle,
    /// Its node goes, and others have its place.
    Leaving,
    /// It has not become ready, and others have its place.
    NeverReady,
}

/// What keeps a service from having what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Its maximum.
    Max {
        /// Workers that it would take.
        needs: u32,
        /// Its maximum.
        max: u32,
    },
    /// As many start as may start at a time.
    Starting {
        /// Pods that start.
        starting: u32,
    },
    /// Pods do not become ready.
    NotReady {
        /// Pods that are overdue.
        overdue: u32,
    },
    /// As many pods as may be, those that drain or are lost included.
    Pods {
        /// All pods.
        pods: u32,
    },
    /// The store cannot be asked: nothing is created and nothing drained.
    Unknown,
    /// Most of the workers were lost a moment ago: what the store says cannot be, or others are made soon.
    Lost,
}

impl<Id> Plan<Id> {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.create == 0
            && self.withdraw == 0
            && self.undrain.is_empty()
            && self.drain.is_empty()
            && self.remove.is_empty()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sessions => "sessions and their buffer",
            Self::Growth => "sessions come faster than they go",
            Self::Held => "offers are held",
            Self::Minimum => "minReplicas",
            Self::Schedule => "a schedule",
            Self::Idle => "no calls",
            Self::Stabilizing => "so many were wanted within the stabilization window",
            Self::External => "replicas, as set from outside",
            Self::Unknown => "the store cannot be asked",
            Self::Lost => "most workers are not heard of",
        })
    }
}

impl fmt::Display for DrainReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Surplus { have: 1, want } => write!(f, "1 worker, {want} wanted"),
            Self::Surplus { have, want } => write!(f, "{have} workers, {want} wanted"),
            Self::Idle => f.write_str("no calls"),
            Self::Leaving => f.write_str("its node goes"),
            Self::NeverReady => f.write_str("it has not become ready"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max { needs, max } => write!(f, "{needs} workers are needed, maxReplicas is {max}"),
            Self::Starting { starting: 1 } => f.write_str("1 worker is starting, no more at a time"),
            Self::Starting { starting } => write!(f, "{starting} workers are starting, no more at a time"),
            Self::NotReady { overdue: 1 } => f.write_str("1 worker does not become ready"),
            Self::NotReady { overdue } => write!(f, "{overdue} workers do not become ready"),
            Self::Pods { pods } => {
                write!(f, "{pods} pods, draining and lost ones included: no more than twice maxReplicas")
            }
            Self::Unknown => f.write_str("the store cannot be asked: nothing is created or drained"),
            Self::Lost => f.write_str("most workers are not heard of: others are made if that stays so for 15 s"),
        }
    }
}
