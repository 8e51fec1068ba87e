//! Variants: each is scaled for itself, with its share of everything.

use crate::snapshot::Traffic;
use crate::tuning::{Buffer, Mode, Tuning};

/// Shares of `total` by weight. They add up to it, but each part with a weight gets one at least where there is any: a variant
/// without workers could serve none of the users that are its own.
///
/// Which part gets what is left over depends on the weights alone (the largest remainder, of equal ones the first).
#[must_use]
pub fn split(total: u32, weights: &[u32]) -> Vec<u32> {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if sum == 0 || total == 0 {
        return vec![0; weights.len()];
    }
    let exact = |weight: u32| u64::from(total) * u64::from(weight);
    // A share of a number that fits does.
    let mut shares: Vec<u32> = weights.iter().map(|weight| (exact(*weight) / sum) as u32).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|part| std::cmp::Reverse(exact(weights[*part]) % sum));
    let left = total - shares.iter().sum::<u32>();
    order.iter().take(left as usize).for_each(|part| shares[*part] += 1);
    for part in 0..weights.len() {
        if weights[part] == 0 || shares[part] > 0 {
            continue;
        }
        shares[part] = 1;
        // From the one that misses it least, if it is not the only thing that this one has.
        if let Some(most) = (0..weights.len()).max_by_key(|other| shares[*other]).filter(|most| shares[*most] > 1) {
            shares[most] -= 1;
        }
    }
    shares
}

impl Tuning {
    /// The tuning of each variant, by the shares that they have of the users. A maximum that is smaller than the number of
    /// variants becomes one each.
    #[must_use]
    pub fn split(&self, weights: &[u32]) -> Vec<Self> {
        let (min, max) = (split(self.min, weights), split(self.max, weights));
        let replicas = match self.mode {
            Mode::External(replicas) => Some(split(replicas, weights)),
            Mode::Sessions => None,
        };
        let places = match self.buffer {
            Buffer::Places(places) => Some(split(places, weights)),
            Buffer::Percent(_) => None,
        };
        let floors: Vec<Vec<u32>> = self.schedules.iter().map(|schedule| split(schedule.min(), weights)).collect();
        (0..weights.len())
            .map(|part| Self {
                min: min[part],
                max: max[part],
                mode: replicas.as_ref().map_or(Mode::Sessions, |replicas| Mode::External(replicas[part])),
                buffer: places.as_ref().map_or(self.buffer, |places| Buffer::Places(places[part])),
                schedules: self
                    .schedules
                    .iter()
                    .zip(&floors)
                    .map(|(schedule, min)| schedule.with_min(min[part]))
                    .collect(),
                ..self.clone()
            })
            .collect()
    }
}

impl Traffic {
    /// The traffic of each variant, as its users' share has it: the store counts a service's as a whole. Which variant a held
    /// offer is for is not known either, so each that has users has one.
    #[must_use]
    pub fn split(&self, weights: &[u32]) -> Vec<Self> {
        let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let share = |count: u64, weight: u32| {
            let share = (u128::from(count) * u128::from(weight)).checked_div(sum).unwrap_or(0);
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        let held = split(self.held, weights);
        weights
            .iter()
            .zip(held)
            .map(|(weight, held)| Self {
                arrived: share(self.arrived, *weight),
                departed: share(self.departed, *weight),
                refused: share(self.refused, *weight),
                held,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::schedule::Schedule;

    #[test]
    fn shares_are_by_weight_and_never_nothing() {
        #[track_caller]
        fn check(total: u32, weights: &[u32], expected: &[u32]) {
            assert_eq!(split(total, weights), expected);
        }
        check(10, &[100], &[10]);
        check(10, &[90, 10], &[9, 1]);
        check(11, &[50, 50], &[6, 5]);
        check(10, &[95, 5], &[9, 1]);
        check(100, &[33, 33, 34], &[33, 33, 34]);
        // Small shares are one, at the cost of the largest.
        check(10, &[98, 1, 1], &[8, 1, 1]);
        check(2, &[98, 1, 1], &[1, 1, 1]);
        check(1, &[10, 90], &[1, 1]);
        // Who has no users has no workers.
        check(10, &[0, 100], &[0, 10]);
        check(10, &[0, 0], &[0, 0]);
        check(0, &[50, 50], &[0, 0]);
        check(7, &[], &[]);
        check(u32::MAX, &[1, 1], &[u32::MAX / 2 + 1, u32::MAX / 2]);
    }

    #[test]
    fn a_variant_has_its_share_of_everything() {
        let schedule = Schedule::parse("0 8 * * *", "UTC", Duration::from_secs(60), 30).unwrap();
        let tuning = Tuning {
            min: 2,
            max: 20,
            buffer: Buffer::Places(50),
            mode: Mode::External(10),
            schedules: vec![schedule],
            ..Tuning::default()
        };
        let of = |tuning: &Tuning| (tuning.min, tuning.max, tuning.buffer, tuning.mode, tuning.schedules[0].min());
        let parts = tuning.split(&[90, 10]);
        assert_eq!(of(&parts[0]), (1, 18, Buffer::Places(45), Mode::External(9), 27));
        assert_eq!(of(&parts[1]), (1, 2, Buffer::Places(5), Mode::External(1), 3));
        assert_eq!(parts[1].sessions_per_worker, tuning.sessions_per_worker);
        let shared = Tuning::default().split(&[90, 10]);
        assert_eq!((shared[1].buffer, shared[1].mode), (Tuning::default().buffer, Mode::Sessions));

        let traffic = Traffic { arrived: 1_000, departed: 500, refused: 10, held: 1 };
        let parts = traffic.split(&[90, 10, 0]);
        assert_eq!(parts[0], Traffic { arrived: 900, departed: 450, refused: 9, held: 1 });
        assert_eq!(parts[1], Traffic { arrived: 100, departed: 50, refused: 1, held: 1 });
        assert_eq!(parts[2], Traffic::default());
    }

    proptest! {
        #[test]
        fn shares_add_up(total in 0..10_000_u32, weights in proptest::collection::vec(0..100_u32, 0..8)) {
            let shares = split(total, &weights);
            let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let with = weights.iter().filter(|weight| **weight > 0).count() as u32;
            let expected = if sum == 0 || total == 0 { 0 } else { total.max(with) };
            prop_assert_eq!(shares.iter().sum::<u32>(), expected);
            for (share, weight) in shares.iter().zip(&weights) {
                let exact = f64::from(total) * f64::from(*weight) / (sum as f64).max(1.0);
                prop_assert_eq!(*share > 0, *weight > 0 && total > 0);
                // A part may give one to each of the others, and have one more by its remainder.
                prop_assert!(f64::from(*share) <= (exact + 1.0).max(1.0));
                prop_assert!(f64::from(*share) >= exact - 8.0);
            }
        }
    }
}
