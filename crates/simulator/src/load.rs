//! The sessions of a day: when each begins and how long it lasts.

use std::time::Duration;

use crate::random::Random;

/// One session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// When it is asked for, in milliseconds since the beginning.
    pub start: u64,
    /// How long it lasts once it has begun, in milliseconds.
    pub duration: u64,
}

/// Sessions in the order in which they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    sessions: Vec<Session>,
    until: u64,
}

impl Load {
    /// A load of these sessions, in any order, which is looked at until `until` (milliseconds since the beginning).
    #[must_use]
    pub fn new(mut sessions: Vec<Session>, until: u64) -> Self {
        sessions.sort_unstable();
        Self { sessions, until }
    }

    /// The sessions, in the order in which they are asked for.
    #[must_use]
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// How long it is looked at, in milliseconds.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.until
    }
}

/// A generated load: days that begin when the fewest call, bursts that nothing announces, and calls most of which are short.
#[derive(Debug, Clone, PartialEq)]
pub struct Generator {
    /// Sessions of a day without its bursts, on the mean.
    pub sessions_per_day: f64,
    /// Days.
    pub days: u32,
    /// How far the rate swings around its mean: 0.8 is from a fifth of it to nine fifths.
    pub swing: f64,
    /// Bursts in a day, at times that the seed says, between its fourth and its sixteenth hour.
    pub bursts: u32,
    /// How many times as many sessions come in a burst.
    pub burst_factor: f64,
    /// How long a burst lasts.
    pub burst: Duration,
    /// How long it takes to rise, and to fall.
    pub burst_rise: Duration,
    /// The duration that half of the sessions do not exceed.
    pub median: Duration,
    /// The deviation of the durations' logarithm: 1.1 makes a mean of 1.8 medians.
    pub sigma: f64,
    /// The longest session.
    pub longest: Duration,
    /// Which day.
    pub seed: u64,
}

impl Default for Generator {
    fn default() -> Self {
        Self {
            sessions_per_day: 82_000.0,
            days: 1,
            swing: 0.8,
            bursts: 2,
            burst_factor: 4.0,
            burst: Duration::from_secs(600),
            burst_rise: Duration::from_secs(120),
            median: Duration::from_secs(240),
            sigma: 1.1,
            longest: Duration::from_secs(4 * 3_600),
            seed: 1,
        }
    }
}

/// Seconds in a day.
const DAY: f64 = 86_400.0;

/// When bursts may begin: while many call.
const BURSTS_FROM: f64 = 4.0 * 3_600.0;
const BURSTS_WITHIN: f64 = 12.0 * 3_600.0;

impl Generator {
    /// The sessions.
    #[must_use]
    pub fn load(&self) -> Load {
        let bursts = self.bursts_begin();
        let mut arrivals = Random::new(self.seed, 0);
        let mut durations = Random::new(self.seed, 1);
        let end = DAY * f64::from(self.days);
        // Poisson by thinning (Lewis and Shedler 1979): as many as ever come, of whom those stay who come now.
        let most = self.sessions_per_day / DAY * (1.0 + self.swing) * self.burst_factor.max(1.0);
        let mut sessions = Vec::new();
        let mut now = 0.0;
        if most > 0.0 {
            loop {
                now += arrivals.exponential(most);
                if now >= end {
                    break;
                }
                if arrivals.unit() * most <= self.rate(now, &bursts) {
                    sessions.push(Session { start: millis(now), duration: self.duration(&mut durations) });
                }
            }
        }
        Load::new(sessions, millis(end))
    }

    fn bursts_begin(&self) -> Vec<f64> {
        let mut random = Random::new(self.seed, 2);
        let day = |day| (0..self.bursts).map(move |_| day);
        (0..self.days)
            .flat_map(day)
            .map(|day| f64::from(day) * DAY + BURSTS_FROM + BURSTS_WITHIN * random.unit())
            .collect()
    }

    /// Sessions a second.
    fn rate(&self, now: f64, bursts: &[f64]) -> f64 {
        let phase = std::f64::consts::TAU * now / DAY;
        let mean = self.sessions_per_day / DAY;
        let burst = bursts.iter().map(|begin| self.strength(now - begin)).fold(0.0, f64::max);
        mean * (1.0 - self.swing * phase.cos()) * (1.0 + (self.burst_factor - 1.0) * burst)
    }

    /// How much of a burst there is so many seconds after its beginning, from 0 to 1.
    fn strength(&self, since: f64) -> f64 {
        let (length, rise) = (self.burst.as_secs_f64(), self.burst_rise.as_secs_f64());
        let left = length - since;
        if since < 0.0 || left <= 0.0 {
            0.0
        } else if rise > 0.0 {
            (since.min(left) / rise).min(1.0)
        } else {
            1.0
        }
    }

    fn duration(&self, random: &mut Random) -> u64 {
        let seconds = self.median.as_secs_f64() * (self.sigma * random.normal()).exp();
        millis(seconds.min(self.longest.as_secs_f64())).max(1)
    }
}

fn millis(seconds: f64) -> u64 {
    // The cast saturates.
    (seconds * 1_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_the_one_of_its_seed() {
        let day = Generator::default().load();
        assert_eq!(day, Generator::default().load());
        assert_ne!(day, Generator { seed: 2, ..Generator::default() }.load());
        assert!(day.sessions().is_sorted());
        assert_eq!(day.until(), 86_400_000);
        assert!(day.sessions().iter().all(|session| session.start < day.until() && session.duration > 0));
    }

    #[test]
    fn it_has_the_shape_that_was_asked_for() {
        let plain = Generator { bursts: 0, ..Generator::default() };
        let sessions = plain.load();
        let count = sessions.sessions().len() as f64;
        assert!((count - 82_000.0).abs() < 5.0 * 82_000_f64.sqrt(), "{count}");
        let hour = |hour: u64| {
            let within = |session: &&Session| session.start / 3_600_000 == hour;
            sessions.sessions().iter().filter(within).count() as f64
        };
        // A fifth of the mean at its beginning and end, nine fifths between, each as the mean over an hour.
        assert!((hour(0) + hour(23)) / 2.0 < 0.25 * 82_000.0 / 24.0, "{}", hour(0));
        assert!((hour(11) + hour(12)) / 2.0 > 1.75 * 82_000.0 / 24.0, "{}", hour(12));
        let mut durations: Vec<u64> = sessions.sessions().iter().map(|session| session.duration).collect();
        durations.sort_unstable();
        let median = durations[durations.len() / 2] as f64 / 1_000.0;
        assert!((median - 240.0).abs() < 8.0, "{median}");
        assert_eq!(durations.last(), Some(&14_400_000), "of so many some are longest");
        let mean = durations.iter().sum::<u64>() as f64 / count / 1_000.0;
        assert!((mean - 240.0 * (1.1_f64.powi(2) / 2.0).exp()).abs() < 12.0, "{mean}");
    }

    #[test]
    fn bursts_come_on_top() {
        let plain = Generator { bursts: 0, ..Generator::default() };
        let burst = Generator { bursts: 1, burst_rise: Duration::ZERO, ..plain.clone() };
        let begin = burst.bursts_begin()[0];
        let within = |load: &Load, from: f64| {
            let range = millis(from)..millis(from + 600.0);
            load.sessions().iter().filter(|session| range.contains(&session.start)).count() as f64
        };
        let load = burst.load();
        let factor = within(&load, begin) / within(&plain.load(), begin);
        assert!((factor - 4.0).abs() < 0.6, "{factor}");
        assert!((4.0 * 3_600.0..16.0 * 3_600.0).contains(&begin));
    }

    #[test]
    fn nobody_may_come() {
        let none = Generator { sessions_per_day: 0.0, ..Generator::default() };
        assert!(none.load().sessions().is_empty());
    }
}
