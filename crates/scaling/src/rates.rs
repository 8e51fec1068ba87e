//! How many sessions come and go in a second.

use std::time::Duration;

use crate::snapshot::Traffic;
use crate::time::Moment;

/// Over how long a mean forgets: the short one sees a burst, the long one does not forget it between two calls.
const SHORT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(120);

/// How many deviations above the long mean the short one is no chance any more: one in forty.
const DEVIATIONS: f64 = 2.0;

/// How many times as steep as it is seen a rise is taken to be. Of one that has begun the two means show a part, about a third of its
/// slope after a minute, and a worker that comes too late is of no use to it: `docs/scaling.md` has what the figures are with 1.
const STEEPER: f64 = 3.0;

/// Rates, from counters that are read now and then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rates {
    read: Option<(Moment, Traffic)>,
    arrivals: Rate,
    departures: Rate,
}

impl Rates {
    /// Reads the counters. Returns whether anything came since they were last read.
    pub(crate) fn read(&mut self, traffic: Traffic, now: Moment) -> bool {
        let Some((then, before)) = self.read else {
            self.read = Some((now, traffic));
            return false;
        };
        let demand = |traffic: &Traffic| traffic.arrived.saturating_add(traffic.refused);
        if now < then {
            // A clock that went back: nobody knows how long it took what came meanwhile. It is measured from here on.
            self.read = Some((now, traffic));
            return demand(&traffic) > demand(&before);
        }
        let passed = now.since(then);
        if passed.is_zero() {
            return false;
        }
        self.read = Some((now, traffic));
        // Counters that went back are those of a store that has lost what it held: what came meanwhile is not known.
        let (Some(arrived), Some(departed)) =
            (demand(&traffic).checked_sub(demand(&before)), traffic.departed.checked_sub(before.departed))
        else {
            return false;
        };
        self.arrivals.add(arrived as f64, passed);
        self.departures.add(departed as f64, passed);
        arrived > 0
    }

    /// The counters are others from now on: what they differ by from what was read last is nobody's coming or going.
    pub(crate) fn recount(&mut self) {
        self.read = None;
    }

    /// Sessions that come in a second.
    pub(crate) fn arrivals(&self) -> f64 {
        self.arrivals.long() + self.rise()
    }

    /// Sessions that will come in a second, on the mean of the time from now until `ahead`, if they become more as they do.
    ///
    /// Where a rate rises steadily, a mean that forgets over `t` shows what it was `t` ago: the two tell the slope. That a rate
    /// falls is nothing to count on.
    pub(crate) fn forecast(&self, ahead: Duration) -> f64 {
        let slope = self.rise() / (LONG - SHORT).as_secs_f64();
        self.arrivals() + STEEPER * slope * (SHORT + ahead / 2).as_secs_f64()
    }

    /// By how much the short mean is above the long one, if that is more than chance.
    fn rise(&self) -> f64 {
        let (short, long) = (self.arrivals.short(), self.arrivals.long());
        // The deviation of a mean of Poisson's arrivals that forgets over `t` is √(λ/2t), and each arrival is 1/t of it.
        let seconds = SHORT.as_secs_f64();
        let chance = DEVIATIONS * (long / (2.0 * seconds)).sqrt() + 1.0 / seconds;
        if short - long > chance { short - long } else { 0.0 }
    }

    /// Sessions that end in a second: by the long mean, for what ends late is missed too.
    pub(crate) fn departures(&self) -> f64 {
        self.departures.long()
    }
}

#[derive(Debug, Clone, Default)]
struct Rate {
    short: Mean,
    long: Mean,
}

impl Rate {
    fn add(&mut self, count: f64, passed: Duration) {
        let seconds = passed.as_secs_f64();
        self.short.add(count / seconds, seconds / SHORT.as_secs_f64());
        self.long.add(count / seconds, seconds / LONG.as_secs_f64());
    }

    fn short(&self) -> f64 {
        self.short.value(SHORT)
    }

    fn long(&self) -> f64 {
        self.long.value(LONG)
    }
}

/// An exponentially weighted mean that knows how little it has seen: its first value is the first one added. But what has been looked
/// at for less than [`SHORT`] is no rate yet: one call in the first second is not one in each.
#[derive(Debug, Clone, Default)]
struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64, time_constants: f64) {
        let forget = (-time_constants).exp();
        self.sum = self.sum * forget + value * (1.0 - forget);
        self.weight = self.weight * forget + (1.0 - forget);
    }

    /// Of a mean that forgets over this.
    fn value(&self, over: Duration) -> f64 {
        let least = 1.0 - (-SHORT.as_secs_f64() / over.as_secs_f64()).exp();
        self.sum / self.weight.max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(arrived: u64, refused: u64, departed: u64) -> Traffic {
        Traffic { arrived, refused, departed, held: 0 }
    }

    fn second(n: u64) -> Moment {
        Moment::from_millis(n * 1_000)
    }

    #[test]
    fn counters_become_rates() {
        let mut rates = Rates::default();
        assert!(!rates.read(traffic(500, 0, 100), second(0)), "what came before is nobody's");
        assert_eq!((rates.arrivals(), rates.departures()), (0.0, 0.0));
        assert!(rates.read(traffic(530, 10, 120), second(20)));
        assert!((rates.arrivals() - 2.0).abs() < 1e-9, "who was refused came too: {}", rates.arrivals());
        assert!((rates.departures() - 1.0).abs() < 1e-9);
        assert!(!rates.read(traffic(530, 10, 121), second(21)), "somebody went, nobody came");
    }

    /// The first call of a service made it need workers for one a second.
    #[test]
    fn one_call_in_the_first_moment_is_no_rate() {
        let mut rates = Rates::default();
        rates.read(traffic(0, 0, 0), second(0));
        assert!(rates.read(traffic(1, 0, 0), second(1)));
        assert!(rates.arrivals() < 0.06 && rates.forecast(Duration::from_secs(30)) < 0.07, "{}", rates.arrivals());
        // Forty are.
        assert!(rates.read(traffic(41, 0, 0), second(2)));
        assert!(rates.arrivals() > 1.9, "{}", rates.arrivals());
    }

    /// A burst counts at once and for a while, and is forgotten.
    #[test]
    fn a_burst_is_seen_soon_and_forgotten_slowly() {
        let mut rates = Rates::default();
        let mut arrived = 0;
        let mut steps = |rates: &mut Rates, from: u64, to: u64, each: u64| {
            for n in from..to {
                rates.read(traffic(arrived, 0, 0), second(n * 5));
                arrived += each;
            }
        };
        steps(&mut rates, 0, 100, 5);
        assert!((rates.arrivals() - 1.0).abs() < 1e-9);
        steps(&mut rates, 100, 104, 20);
        // 15 s of four a second: 1 + 3·(1 − e^(−15/20)).
        assert!((rates.arrivals() - 2.583).abs() < 0.01, "{}", rates.arrivals());
        steps(&mut rates, 104, 112, 5);
        let after = rates.arrivals();
        // 35 s later the long mean is the higher one.
        assert!(after > 1.2 && after < 1.5, "{after}");
        steps(&mut rates, 112, 400, 5);
        assert!((rates.arrivals() - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_store_that_forgets_makes_no_rate() {
        let mut rates = Rates::default();
        rates.read(traffic(1_000, 0, 900), second(0));
        rates.read(traffic(1_020, 0, 920), second(20));
        assert!(!rates.read(traffic(3, 0, 0), second(40)));
        assert!((rates.arrivals() - 1.0).abs() < 1e-9);
        assert!(rates.read(traffic(13, 0, 10), second(50)), "and counts on from there");
        assert!((rates.arrivals() - 1.0).abs() < 1e-9);
        assert!((rates.departures() - 1.0).abs() < 1e-9);
    }

    /// A tenth of the users has become half of them: so many more have not come.
    #[test]
    fn other_counters_make_no_rate() {
        let mut rates = Rates::default();
        rates.read(traffic(1_000, 0, 900), second(0));
        rates.read(traffic(1_020, 0, 920), second(20));
        rates.recount();
        assert!(!rates.read(traffic(5_050, 0, 4_550), second(40)));
        assert!(rates.read(traffic(5_060, 0, 4_560), second(50)));
        assert!((rates.arrivals() - 1.0).abs() < 1e-9 && (rates.departures() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_same_moment_twice_is_nothing() {
        let mut rates = Rates::default();
        rates.read(traffic(0, 0, 0), second(10));
        assert!(!rates.read(traffic(50, 0, 0), second(10)));
        rates.read(traffic(100, 0, 0), second(30));
        assert!((rates.arrivals() - 5.0).abs() < 1e-9);
    }

    /// A clock that was put back by an hour switched the rates off for an hour.
    #[test]
    fn a_clock_that_goes_back_begins_again() {
        let mut rates = Rates::default();
        rates.read(traffic(0, 0, 0), second(3_600));
        rates.read(traffic(20, 0, 20), second(3_620));
        assert!(rates.read(traffic(25, 0, 20), second(20)), "somebody came, within nobody knows what time");
        assert!((rates.arrivals() - 1.0).abs() < 1e-9, "{}", rates.arrivals());
        assert!(rates.read(traffic(385, 0, 20), second(140)));
        assert!(rates.arrivals() > 2.0, "{}", rates.arrivals());
        assert!(!rates.read(traffic(3, 0, 0), second(10)), "nor is that of a store that has lost what it held");
    }
}
