//! What is carried from one decision to the next.

use std::time::Duration;

use crate::rates::Rates;
use crate::starts::Starts;
use crate::time::Moment;
use crate::tuning::Tuning;
use crate::window::Window;

/// What is carried from one decision about a service to the next. It takes the same room however long it is used.
///
/// An operator that begins again begins with an empty one: it has seen no rate, and drains nobody before it has looked on for
/// the stabilization window.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub(crate) rates: Rates,
    pub(crate) starts: Starts,
    /// What was wanted within the stabilization window.
    pub(crate) wanted: Window,
    /// How many were drained within the last minute.
    pub(crate) drained: Window,
    /// Since when it looks on without a gap.
    pub(crate) looking: Option<Moment>,
    /// When there was last a session, an arrival or a held offer.
    pub(crate) busy: Option<Moment>,
    /// Since when most of the workers have been lost.
    pub(crate) mostly_lost: Option<Moment>,
}

impl Memory {
    /// What was to come by now has not been, where the clock has gone back: it is measured from now on. Otherwise nothing would seem to
    /// pass until the clock is again where it was.
    pub(crate) fn turn_back(&mut self, now: Moment) {
        for since in [&mut self.looking, &mut self.busy, &mut self.mostly_lost] {
            *since = since.map(|since| since.min(now));
        }
    }

    /// How long a worker takes from its creation until it serves, as its likes have shown (the 95th percentile), or as
    /// `tuning` supposes.
    #[must_use]
    pub fn start(&self, tuning: &Tuning) -> Duration {
        self.starts.p95().unwrap_or(tuning.start)
    }

    /// How long before it is needed a worker has to be made: what it takes to see the need, and to start.
    #[must_use]
    pub fn lead(&self, tuning: &Tuning) -> Duration {
        self.start(tuning) + tuning.tick
    }

    /// What is counted is another share of the service's traffic from now on. Rates stay as they were; what was counted before
    /// is not compared with what will be.
    pub fn recount(&mut self) {
        self.rates.recount();
    }

    /// Sessions that come in a second, those that are refused included.
    #[must_use]
    pub fn arrivals(&self) -> f64 {
        self.rates.arrivals()
    }

    /// Sessions that end in a second.
    #[must_use]
    pub fn departures(&self) -> f64 {
        self.rates.departures()
    }
}
