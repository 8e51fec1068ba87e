//! Rules one by one. What holds whatever happens is in `tests/promises.rs`.

mod count;
mod going;
mod knowing;
mod making;

use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::plan::DrainReason;
use crate::schedule::Schedule;
use crate::snapshot::{Figures, Phase, Stay, Traffic};
use crate::tuning::Buffer;

/// A service of workers with 20 places, which has been looked at for long enough to judge.
struct Bench {
    tuning: Tuning,
    memory: Memory,
    workers: Vec<Worker<u32>>,
    coming: u32,
    traffic: Option<Traffic>,
    now: Moment,
}

const EPOCH: u64 = 1_000_000_000;

impl Bench {
    /// Workers that serve so many sessions each, the first the oldest, all older than a day.
    fn with(sessions: &[u32]) -> Self {
        let tuning = Tuning { sessions_per_worker: NonZeroU32::new(20).unwrap(), max: 100, ..Tuning::default() };
        let start = Duration::from_secs(10);
        let workers = (0..).zip(sessions);
        let workers =
            workers.map(|(id, n)| Worker::serving(id, Moment::from_millis(1_000 * u64::from(id)), start, *n, 20));
        Self {
            tuning,
            memory: Memory::default(),
            workers: workers.collect(),
            coming: 0,
            traffic: Some(Traffic::default()),
            now: Moment::from_millis(EPOCH),
        }
    }

    /// Has been looked at as it is for nearly five minutes: the next look may judge.
    fn settled(mut self) -> Self {
        for _ in 0..60 {
            assert!(self.tick(5).drain.is_empty());
        }
        self
    }

    fn tick(&mut self, seconds: u64) -> Plan<u32> {
        self.now = self.now + Duration::from_secs(seconds);
        let (workers, coming, traffic) = (self.workers.clone(), self.coming, self.traffic);
        decide(&self.tuning, &Snapshot { workers, coming, traffic }, &mut self.memory, self.now)
    }

    fn worker(&mut self, id: usize) -> &mut Worker<u32> {
        &mut self.workers[id]
    }

    fn drains(mut self, ids: &[usize]) -> Self {
        ids.iter().for_each(|id| self.workers[*id].phase = Phase::Draining);
        self
    }

    /// Adds a pod that has been starting for so long.
    fn starts(mut self, seconds: u64) -> Self {
        let id = u32::try_from(self.workers.len()).unwrap();
        self.workers.push(Worker::starting(id, self.now - Duration::from_secs(seconds), 20));
        self
    }
}

fn drained(plan: &Plan<u32>) -> Vec<u32> {
    plan.drain.iter().map(|(id, _)| *id).collect()
}

#[test]
fn reasons_can_be_read() {
    #[track_caller]
    fn check(said: &impl ToString, expected: &str) {
        assert_eq!(said.to_string(), expected);
    }
    check(&DrainReason::Surplus { have: 4, want: 3 }, "4 workers, 3 wanted");
    check(&DrainReason::Leaving, "its node goes");
    check(&DrainReason::NeverReady, "it has not become ready");
    check(&DrainReason::Idle, "no calls");
    check(&Limit::Max { needs: 7, max: 5 }, "7 workers are needed, maxReplicas is 5");
    check(&Limit::Starting { starting: 8 }, "8 workers are starting, no more at a time");
    check(&Limit::NotReady { overdue: 2 }, "2 workers do not become ready");
    check(&Limit::NotReady { overdue: 1 }, "1 worker does not become ready");
    check(&Limit::Starting { starting: 1 }, "1 worker is starting, no more at a time");
    check(&Limit::Pods { pods: 9 }, "9 pods, draining and lost ones included: no more than twice maxReplicas");
    check(&Limit::Unknown, "the store cannot be asked: nothing is created or drained");
    check(&Limit::Lost, "most workers are not heard of: others are made if that stays so for 15 s");
    let whys = [
        (Why::Sessions, "sessions and their buffer"),
        (Why::Growth, "sessions come faster than they go"),
        (Why::Held, "offers are held"),
        (Why::Minimum, "minReplicas"),
        (Why::Schedule, "a schedule"),
        (Why::Idle, "no calls"),
        (Why::Stabilizing, "so many were wanted within the stabilization window"),
        (Why::External, "replicas, as set from outside"),
        (Why::Unknown, "the store cannot be asked"),
        (Why::Lost, "most workers are not heard of"),
    ];
    for (why, expected) in whys {
        check(&why, expected);
    }
}
