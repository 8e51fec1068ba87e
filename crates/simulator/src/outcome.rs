//! What came of it.

use serde::Serialize;

use crate::load::Load;

/// What came of a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Sessions that were asked for.
    pub offered: u64,
    /// Sessions that were killed.
    pub killed: u64,
    /// Offers that were refused for want of a place, those that were held in vain included.
    pub refused: u64,
    /// Offers that were held.
    pub held: u64,
    /// How long those waited that were held and got a place.
    pub waits: Waits,
    /// Hours of pods, from their creation until they were gone.
    pub pod_hours: f64,
    /// Hours of sessions: what the pods were for.
    pub session_hours: f64,
    /// Most pods at a time.
    pub most_pods: i64,
    /// Pods that were made.
    pub made: u64,
    /// How it went.
    #[serde(skip)]
    pub course: Vec<Sample>,
}

/// How long offers waited, in seconds. All are 0 when none did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Waits {
    /// Half of them no longer than this.
    pub p50: f64,
    /// Nineteen of twenty.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

/// How things stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When, in milliseconds since the beginning.
    pub at: u64,
    /// Sessions.
    pub sessions: i64,
    /// Sessions that the pods that serve could have.
    pub capacity: i64,
    /// Pods, those that start or drain included.
    pub pods: i64,
}

/// A number over time: now, at most, and summed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gauge {
    now: i64,
    most: i64,
    raised: i64,
    /// In millisecond times what is counted.
    sum: i128,
}

impl Gauge {
    pub(crate) fn change(&mut self, by: i64) {
        self.now += by;
        self.raised += by.max(0);
        self.most = self.most.max(self.now);
    }

    fn hours(&self) -> f64 {
        self.sum as f64 / 3_600_000.0
    }
}

/// What is counted while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) arrived: u64,
    pub(crate) departed: u64,
    pub(crate) refused: u64,
    pub(crate) killed: u64,
    pub(crate) held: u64,
    pub(crate) waits: Vec<u64>,
    pub(crate) sessions: Gauge,
    pub(crate) capacity: Gauge,
    pub(crate) pods: Gauge,
    course: Vec<Sample>,
}

/// A sample a minute: what a plot of a day can show.
const EVERY: u64 = 60_000;

impl Tally {
    pub(crate) fn pass(&mut self, millis: u64) {
        for gauge in [&mut self.sessions, &mut self.pods] {
            gauge.sum += i128::from(gauge.now) * i128::from(millis);
        }
    }

    pub(crate) fn sample(&mut self, at: u64) {
        if self.course.last().is_none_or(|last| at >= last.at + EVERY) {
            let (sessions, capacity, pods) = (self.sessions.now, self.capacity.now, self.pods.now);
            self.course.push(Sample { at, sessions, capacity, pods });
        }
    }

    pub(crate) fn outcome(mut self, load: &Load) -> Outcome {
        self.waits.sort_unstable();
        let wait = |percent: usize| {
            // The nearest rank.
            let rank = (self.waits.len() * percent).div_ceil(100).checked_sub(1);
            rank.and_then(|rank| self.waits.get(rank)).map_or(0.0, |wait| *wait as f64 / 1_000.0)
        };
        Outcome {
            offered: load.sessions().len() as u64,
            killed: self.killed,
            refused: self.refused,
            held: self.held,
            waits: Waits { p50: wait(50), p95: wait(95), max: wait(100) },
            pod_hours: self.pods.hours(),
            session_hours: self.sessions.hours(),
            most_pods: self.pods.most,
            made: self.pods.raised.unsigned_abs(),
            course: self.course,
        }
    }
}
