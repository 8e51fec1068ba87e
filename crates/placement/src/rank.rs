//! The order in which workers are asked.

use std::cmp::Ordering;

use crate::hash::{Key, Seed, score};

/// A worker as a snapshot shows it. Those that drain, are stale, or serve another variant are left out by whoever makes
/// the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Its part in the scores.
    pub seed: Seed,
    /// Sessions that it has, and places that are claimed of it.
    pub active: u32,
    /// Sessions that it can have.
    pub capacity: u32,
}

impl Worker {
    /// A worker by its name.
    #[must_use]
    pub fn new(name: &str, active: u32, capacity: u32) -> Self {
        Self { seed: Seed::of(name), active, capacity }
    }

    fn has_room(&self) -> bool {
        self.active < self.capacity
    }

    /// Compares loads as shares of capacity, without rounding.
    fn by_load(&self, other: &Self) -> Ordering {
        let share = |a: &Self, b: &Self| u64::from(a.active) * u64::from(b.capacity);
        share(self, other).cmp(&share(other, self))
    }
}

/// Whether sessions gather or scatter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Packing {
    /// Few full workers, so that the others run empty and can go.
    #[default]
    Pack,
    /// All workers alike.
    Spread,
}

/// Whether sessions with one key should meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Affinity {
    /// It does not matter.
    #[default]
    None,
    /// If their worker has room.
    Prefer,
}

/// How a service places its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Gather or scatter.
    pub packing: Packing,
    /// Whether sessions with one key should meet.
    pub affinity: Affinity,
    /// With [`Packing::Spread`]: the most of what the mean worker carries, in percent.
    pub bound_percent: u32,
    /// With [`Packing::Spread`]: the share of its capacity, in percent, up to which a worker is filled while others have room:
    /// what is left takes the sessions that come before a snapshot is renewed.
    pub soft_cap_percent: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { packing: Packing::default(), affinity: Affinity::default(), bound_percent: 125, soft_cap_percent: 85 }
    }
}

/// Workers that one claim tries: a snapshot that is so old that sixteen in a row are full is renewed instead.
pub const MAX_RANKED: usize = 16;

/// The workers with room, as indices into `workers`, in the order in which the claim is to try them: the first
/// [`MAX_RANKED`] of it.
#[must_use]
pub fn rank(key: Key, workers: &[Worker], policy: &Policy) -> Vec<usize> {
    let mut order: Vec<Candidate> = candidates(key, workers, policy).collect();
    let compare = |a: &Candidate, b: &Candidate| a.compare(b, workers, policy);
    // Linear in the workers: a thousand of them are looked at for every offer.
    if order.len() > MAX_RANKED {
        order.select_nth_unstable_by(MAX_RANKED - 1, compare);
        order.truncate(MAX_RANKED);
    }
    order.sort_unstable_by(compare);
    order.into_iter().map(|c| c.index).collect()
}

/// The first of [`rank`], without the others: a simulation asks a million times. Scores are computed only of those that are
/// alike in everything else.
#[must_use]
pub fn first(key: Key, workers: &[Worker], policy: &Policy) -> Option<usize> {
    let limits = Limits::of(workers, policy);
    let score_of = |index: usize| score(key, workers[index].seed);
    let mut best: Option<(usize, bool, Option<u64>)> = None;
    for (index, worker) in workers.iter().enumerate().filter(|(_, worker)| worker.has_room()) {
        let is_allowed = limits.allow(worker);
        let Some((leader, leads_allowed, leads)) = &mut best else {
            best = Some((index, is_allowed, None));
            continue;
        };
        match policy.compare((worker, is_allowed), (&workers[*leader], *leads_allowed)) {
            Ordering::Less => best = Some((index, is_allowed, None)),
            Ordering::Greater => {}
            Ordering::Equal => {
                let own = score_of(index);
                // Of equal scores the first in the list, as everywhere.
                if own > *leads.get_or_insert_with(|| score_of(*leader)) {
                    best = Some((index, is_allowed, Some(own)));
                }
            }
        }
    }
    best.map(|(index, ..)| index)
}

/// The workers with room.
fn candidates(key: Key, workers: &[Worker], policy: &Policy) -> impl Iterator<Item = Candidate> {
    let limits = Limits::of(workers, policy);
    workers.iter().enumerate().filter(|(_, worker)| worker.has_room()).map(move |(index, worker)| Candidate {
        index,
        score: score(key, worker.seed),
        is_allowed: limits.allow(worker),
    })
}

struct Candidate {
    index: usize,
    score: u64,
    /// Whether it is taken before those that are not.
    is_allowed: bool,
}

impl Candidate {
    /// Who is asked before whom.
    fn compare(&self, other: &Self, workers: &[Worker], policy: &Policy) -> Ordering {
        policy
            .compare((&workers[self.index], self.is_allowed), (&workers[other.index], other.is_allowed))
            .then_with(|| self.by_score(other))
    }

    fn by_score(&self, other: &Self) -> Ordering {
        other.score.cmp(&self.score).then(self.index.cmp(&other.index))
    }
}

impl Policy {
    /// Who is asked before whom, scores apart. With each worker: whether it is taken before those that are not.
    fn compare(&self, (a, a_allowed): (&Worker, bool), (b, b_allowed): (&Worker, bool)) -> Ordering {
        if self.affinity == Affinity::Prefer {
            return Ordering::Equal;
        }
        match (a_allowed, b_allowed, self.packing) {
            (true, false, _) => Ordering::Less,
            (false, true, _) => Ordering::Greater,
            (true, true, Packing::Spread) => Ordering::Equal,
            (true, true, Packing::Pack) => b.by_load(a),
            (false, false, _) => a.by_load(b),
        }
    }
}

/// Up to where a worker is taken before the others.
struct Limits {
    soft_cap_percent: u64,
    /// With `Spread` only.
    bound: Option<Bound>,
}

struct Bound {
    percent: u128,
    active: u128,
    capacity: u128,
}

impl Limits {
    fn of(workers: &[Worker], policy: &Policy) -> Self {
        let bound = (policy.packing == Packing::Spread).then(|| Bound {
            percent: u128::from(policy.bound_percent),
            // With the session that is placed.
            active: workers.iter().map(|w| u128::from(w.active)).sum::<u128>() + 1,
            capacity: workers.iter().map(|w| u128::from(w.capacity)).sum(),
        });
        // Who packs fills up to the last place: what comes before a snapshot is renewed goes to the next one of the order.
        let soft_cap_percent = if policy.packing == Packing::Pack { 100 } else { policy.soft_cap_percent.into() };
        Self { soft_cap_percent, bound }
    }

    fn allow(&self, worker: &Worker) -> bool {
        let (with_it, capacity) = (u64::from(worker.active) + 1, u64::from(worker.capacity));
        let under_cap = with_it * 100 <= capacity * self.soft_cap_percent;
        under_cap && self.bound.as_ref().is_none_or(|bound| bound.allows(with_it, capacity))
    }
}

impl Bound {
    /// A worker's share of its capacity against the mean share of all. The bound is rounded up to a whole session: with
    /// fewer sessions than workers it would otherwise allow none.
    fn allows(&self, with_it: u64, capacity: u64) -> bool {
        // `with_it` is at most ⌈a / b⌉ where one less is under a / b; a division for each worker would cost more than all else.
        (u128::from(with_it) - 1) * 100 * self.capacity.max(1) < self.percent * self.active * u128::from(capacity)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread() -> Policy {
        Policy { packing: Packing::Spread, ..Policy::default() }
    }

    #[test]
    fn orders() {
        #[track_caller]
        fn check(policy: Policy, loads: &[(u32, u32)], expected: &[usize]) {
            let workers: Vec<Worker> = loads
                .iter()
                .enumerate()
                .map(|(n, (active, capacity))| Worker::new(&format!("w{n}"), *active, *capacity))
                .collect();
            assert_eq!(rank(Key::of("k"), &workers, &policy), expected);
        }
        check(spread(), &[], &[]);
        check(spread(), &[(20, 20), (0, 0)], &[]);
        // The fullest, up to its last place.
        check(Policy::default(), &[(3, 20), (16, 20), (9, 20)], &[1, 2, 0]);
        check(Policy::default(), &[(3, 20), (17, 20), (19, 20), (20, 20)], &[2, 1, 0]);
        // Whoever spreads keeps some: 18 of 20 is above the cap.
        check(spread(), &[(17, 20), (16, 20)], &[1, 0]);
        // Shares of capacity, not sessions.
        check(Policy::default(), &[(10, 100), (3, 10)], &[1, 0]);
        // Over the bound: last, though its score may be the highest.
        check(spread(), &[(10, 20), (0, 20)], &[1, 0]);
    }

    fn workers() -> impl Strategy<Value = Vec<Worker>> {
        let worker = (0..60_u32, 0..60_u32).prop_map(|(active, capacity)| (active, capacity));
        proptest::collection::vec(worker, 0..40).prop_map(|loads| {
            let named = |(n, (active, capacity))| Worker::new(&format!("w{n}"), active, capacity);
            loads.into_iter().enumerate().map(named).collect()
        })
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let packing = prop_oneof![Just(Packing::Pack), Just(Packing::Spread)];
        let affinity = prop_oneof![Just(Affinity::None), Just(Affinity::Prefer)];
        (packing, affinity, 100..200_u32, 50..=100_u32).prop_map(
            |(packing, affinity, bound_percent, soft_cap_percent)| Policy {
                packing,
                affinity,
                bound_percent,
                soft_cap_percent,
            },
        )
    }

    proptest! {
        /// Workers with room are asked once, no others, and none is left out while there is a place in the list.
        #[test]
        fn nobody_is_forgotten(key in "[a-z0-9]{1,11}", workers in workers(), policy in policies()) {
            let mut order = rank(Key::of(&key), &workers, &policy);
            order.sort_unstable();
            let with_room: Vec<usize> = (0..workers.len()).filter(|n| workers[*n].has_room()).collect();
            prop_assert_eq!(order.len(), with_room.len().min(MAX_RANKED));
            order.dedup();
            prop_assert_eq!(order.len(), with_room.len().min(MAX_RANKED));
            prop_assert!(order.iter().all(|n| workers[*n].has_room()));
        }

        /// One that is asked for alone is the first of all.
        #[test]
        fn the_first_is_the_first(key in "[a-z0-9]{1,11}", workers in workers(), policy in policies()) {
            let first = first(Key::of(&key), &workers, &policy);
            prop_assert_eq!(first, rank(Key::of(&key), &workers, &policy).first().copied());
        }

        /// The list is the beginning of the whole order: taking its first worker away brings the next one to the front.
        #[test]
        fn the_list_is_the_beginning_of_an_order(key in "[a-z0-9]{1,11}", workers in workers()) {
            // Without a bound, which depends on everybody's load.
            let policy = Policy::default();
            let mut left = workers;
            let mut before: Option<Vec<Seed>> = None;
            loop {
                let order = rank(Key::of(&key), &left, &policy);
                let seeds: Vec<Seed> = order.iter().map(|n| left[*n].seed).collect();
                if let Some(before) = before {
                    prop_assert!(seeds.starts_with(&before[1..]));
                }
                let Some(first) = order.first() else { break };
                left.remove(*first);
                before = Some(seeds);
            }
        }

        /// The order does not depend on the order in which a router has learned of its workers.
        #[test]
        fn routers_agree(key in "[a-z0-9]{1,11}", workers in workers(), policy in policies(), turn in 0..40_usize) {
            let mut turned = workers.clone();
            if !turned.is_empty() {
                let by = turn % turned.len();
                turned.rotate_left(by);
            }
            let seeds = |list: &[Worker]| {
                rank(Key::of(&key), list, &policy).into_iter().map(|n| list[n].seed).collect::<Vec<_>>()
            };
            prop_assert_eq!(seeds(&workers), seeds(&turned));
        }

        /// A worker that goes moves only what was its own: for everybody else the order stays.
        #[test]
        fn a_worker_that_goes_moves_its_own_keys_only(key in "[a-z0-9]{1,11}", count in 2..40_usize, gone in 0..40_usize) {
            let policy = Policy { affinity: Affinity::Prefer, ..Policy::default() };
            let all: Vec<Worker> = (0..count).map(|n| Worker::new(&format!("w{n}"), 0, 10)).collect();
            let gone = gone % count;
            let left: Vec<Worker> = all.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, w)| *w).collect();
            let before: Vec<Seed> = rank(Key::of(&key), &all, &policy).into_iter().map(|n| all[n].seed).collect();
            let after: Vec<Seed> = rank(Key::of(&key), &left, &policy).into_iter().map(|n| left[n].seed).collect();
            let expected: Vec<Seed> = before.into_iter().filter(|seed| *seed != all[gone].seed).collect();
            prop_assert!(after.starts_with(&expected));
        }
    }
}
