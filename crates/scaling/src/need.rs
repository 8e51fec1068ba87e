//! How many workers a load needs, and how many places of them are to be free.

use std::time::Duration;

use crate::memory::Memory;
use crate::plan::Why;
use crate::schedule;
use crate::time::Moment;
use crate::tuning::{Buffer, Mode, Tuning};

/// How many deviations of what comes while a worker starts are kept free: arrivals are about as scattered as Poisson's, and of
/// those one in 160 times more come.
const DEVIATIONS: f64 = 2.5;

/// What serving workers carry, and what waits for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Sessions and claimed places of workers that serve.
    pub(crate) sessions: u32,
    /// Offers that are held.
    pub(crate) held: u32,
}

/// What a load needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// Workers, within the bounds.
    pub(crate) want: u32,
    /// Workers, had it no maximum.
    pub(crate) needs: u32,
    /// Why so many.
    pub(crate) why: Why,
    /// Places that are to be free on workers that serve.
    pub(crate) buffer: u32,
}

/// What does not depend on the load: computed once for a decision, which asks about several loads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    mode: Mode,
    capacity: u32,
    share: Buffer,
    /// Places that are taken until a worker that is made now serves: by those who come more than go, and by chance.
    growth: f64,
    floor: u32,
    floor_why: Why,
    max: u32,
    idle: bool,
}

impl Rule {
    pub(crate) fn new(tuning: &Tuning, memory: &Memory, now: Moment) -> Self {
        let lead = memory.lead(tuning);
        let scheduled = schedule::floor(&tuning.schedules, now, lead);
        let (floor, floor_why) =
            if scheduled > tuning.min { (scheduled, Why::Schedule) } else { (tuning.min, Why::Minimum) };
        let floor = floor.min(tuning.max);
        let idle = memory.busy.is_none_or(|busy| now.since(busy) >= tuning.idle);
        Self {
            mode: tuning.mode,
            capacity: tuning.sessions_per_worker.get(),
            share: tuning.buffer,
            growth: growth(memory, lead),
            floor,
            floor_why,
            max: tuning.max,
            idle: idle && floor == 0,
        }
    }

    /// The least that there must be, whatever the load.
    pub(crate) fn floor(&self) -> u32 {
        self.floor
    }

    /// What `load` needs.
    pub(crate) fn need(&self, load: Load) -> Need {
        if let Mode::External(replicas) = self.mode {
            let want = replicas.clamp(self.floor, self.max);
            return Need { want, needs: replicas, why: Why::External, buffer: 0 };
        }
        if self.idle {
            return Need { want: 0, needs: 0, why: Why::Idle, buffer: 0 };
        }
        let demand = load.sessions.saturating_add(load.held);
        let share = match self.share {
            // Somebody may always come.
            Buffer::Percent(percent) => (f64::from(demand) * f64::from(percent) / 100.0).max(1.0),
            Buffer::Places(places) => f64::from(places),
        };
        let buffer = places(share.max(self.growth));
        // A worker is needed even by nobody: idleness is found out above.
        let needs = u64::from(demand) + u64::from(buffer);
        let needs = u32::try_from(needs.div_ceil(self.capacity.into())).unwrap_or(u32::MAX).max(1);
        // As many as there have to be anyway, for nobody: they are there because they have to be.
        let why = if needs < self.floor || (needs == self.floor && demand == 0) {
            self.floor_why
        } else if load.held > 0 {
            Why::Held
        } else if self.growth > share {
            Why::Growth
        } else {
            Why::Sessions
        };
        Need { want: needs.clamp(self.floor, self.max), needs, why, buffer }
    }
}

/// The places that are taken within `lead`: by those who come more than go, and by chance.
fn growth(memory: &Memory, lead: Duration) -> f64 {
    let seconds = lead.as_secs_f64();
    let more = (memory.rates.forecast(lead) - memory.departures()).max(0.0);
    more * seconds + DEVIATIONS * (memory.arrivals() * seconds).sqrt()
}

/// A number of places: whole ones, and no more than can be counted.
fn places(places: f64) -> u32 {
    // The cast saturates.
    places.ceil() as u32
}
