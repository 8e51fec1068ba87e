//! Rules one by one. What holds whatever happens is in `tests/promises.rs`.

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
fn as_many_as_sessions_and_buffer_need() {
    #[track_caller]
    fn check(buffer: &str, sessions: &[u32], want: u32, free: u32) {
        let mut bench = Bench::with(sessions);
        bench.tuning.buffer = buffer.parse().unwrap();
        // Whom a minimum wants is wanted by no session.
        bench.tuning.min = 0;
        let plan = bench.tick(5);
        assert_eq!((plan.want, plan.buffer, plan.why), (want, free, Why::Sessions), "{buffer} {sessions:?}");
        assert_eq!(plan.create, want.saturating_sub(u32::try_from(sessions.len()).unwrap()));
        assert_eq!(plan.limited, None);
    }
    check("25%", &[0], 1, 1);
    check("25%", &[16], 1, 4);
    check("25%", &[17], 2, 5);
    check("25%", &[20, 20, 8], 3, 12);
    check("25%", &[20, 20, 9], 4, 13);
    check("0%", &[19], 1, 1);
    check("0%", &[20], 2, 1);
    check("0", &[20], 1, 0);
    check("10", &[10], 1, 10);
    check("10", &[11], 2, 10);
    check("100", &[0], 5, 100);
}

#[test]
fn bounds_hold() {
    let mut bench = Bench::with(&[20, 20, 20]);
    bench.tuning.max = 3;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create, plan.limited), (3, 0, Some(Limit::Max { needs: 4, max: 3 })));
    let mut bench = Bench::with(&[1]);
    bench.tuning.min = 4;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.why, plan.create), (4, Why::Minimum, 3));
    // A minimum above the maximum is the maximum.
    bench.tuning.max = 2;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create), (2, 1));
}

/// A lowered maximum is obeyed as nobody's calls end: a tenth in a minute.
#[test]
fn above_the_maximum_they_drain_though_they_are_full() {
    let mut bench = Bench::with(&[20; 40]).settled();
    bench.tuning.max = 30;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.drain.len()), (30, 4));
    assert_eq!(plan.drain[0], (39, DrainReason::Surplus { have: 40, want: 30 }));
    let mut bench = Bench::with(&[20; 4]).settled();
    bench.tuning.max = 4;
    assert!(bench.tick(5).drain.is_empty(), "at the maximum they stay");
}

#[test]
fn who_drains_comes_back_first() {
    let mut bench = Bench::with(&[20, 20, 3, 7, 0]).drains(&[2, 3, 4]);
    let plan = bench.tick(5);
    // 40 sessions want three; the fullest brings seven with it, and 47 and twelve are still three.
    assert_eq!((plan.undrain.as_slice(), plan.create, plan.want), ([3].as_slice(), 0, 3));
    // One that brings its own sessions may not be enough, and what it needs is counted.
    let mut bench = Bench::with(&[20, 20, 20, 18]).drains(&[2, 3]);
    let plan = bench.tick(5);
    assert_eq!((plan.undrain, plan.create, plan.want), (vec![2, 3], 1, 5));
}

#[test]
fn who_must_go_does_not_come_back() {
    for stay in [Stay::Leaving, Stay::Ending] {
        let mut bench = Bench::with(&[20, 3]).drains(&[1]);
        bench.worker(1).stay = stay;
        let plan = bench.tick(5);
        assert_eq!((plan.undrain.len(), plan.create), (0, 1), "{stay:?}");
    }
    let mut bench = Bench::with(&[20, 3]).drains(&[1]);
    bench.worker(1).figures = Figures::Stale;
    assert!(bench.tick(5).undrain.is_empty(), "nor who has not been heard of");
}

#[test]
fn who_says_to_be_empty_goes_unless_he_is_needed() {
    let mut bench = Bench::with(&[2, 0, 0, 0, 0]).drains(&[1, 2, 3]);
    bench.worker(1).empty = true;
    bench.worker(3).empty = true;
    bench.worker(3).figures = Figures::Stale;
    // Not one that serves, whatever it says.
    bench.worker(4).empty = true;
    assert_eq!(bench.tick(5).remove, [1], "nobody else has said so, or lately");
    bench.worker(0).sessions = 20;
    bench.workers.pop();
    let plan = bench.tick(5);
    assert_eq!((plan.undrain.as_slice(), plan.remove.len()), ([1].as_slice(), 0));
}

#[test]
fn the_emptiest_goes_and_of_those_the_youngest() {
    let mut bench = Bench::with(&[8, 1, 5, 1]).settled();
    let plan = bench.tick(5);
    assert_eq!(plan.drain, [(3, DrainReason::Surplus { have: 4, want: 1 })]);
    assert_eq!((plan.create, plan.undrain.len(), plan.remove.len()), (0, 0, 0));
}

#[test]
fn nobody_goes_whose_places_are_the_buffer() {
    let places = |buffer: u32, capacity: u32| {
        let mut bench = Bench::with(&[20, 13, 0]);
        bench.tuning.buffer = Buffer::Places(buffer);
        bench.worker(1).capacity = capacity;
        drained(&bench.settled().tick(5))
    };
    assert_eq!(places(7, 20), [2], "33 sessions and seven places are two workers");
    assert!(places(8, 20).is_empty());
    // Two by the number, but one of them takes fewer than it should.
    assert_eq!(places(5, 18), [2]);
    assert!(places(5, 17).is_empty());
}

#[test]
fn a_tenth_goes_in_a_minute() {
    #[track_caller]
    fn check(workers: usize, expected: usize) {
        let mut bench = Bench::with(&vec![1; workers]).settled();
        let mut gone = 0;
        let mut in_a_minute = Vec::new();
        for tick in 0..24 {
            let plan = bench.tick(5);
            for id in drained(&plan) {
                bench.workers.iter_mut().find(|worker| worker.id == id).unwrap().phase = Phase::Draining;
            }
            gone += plan.drain.len();
            if tick % 12 == 11 {
                in_a_minute.push(std::mem::take(&mut gone));
            }
        }
        assert_eq!(in_a_minute[0], expected, "{workers}");
        // The settling has drained nobody: the first tick after it does.
        assert!(in_a_minute[1] <= expected);
    }
    check(5, 1);
    check(19, 1);
    check(20, 2);
    check(50, 5);
}

#[test]
fn what_was_wanted_lately_stays() {
    let mut bench = Bench::with(&[20, 20, 20, 4]).settled();
    bench.workers[0].sessions = 1;
    bench.workers[1].sessions = 1;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.why, plan.drain.len()), (4, Why::Stabilizing, 0));
    for _ in 0..57 {
        assert!(bench.tick(5).drain.is_empty());
    }
    // Five minutes, and what the window's pieces are wide.
    let waited = (0..).find(|_| !bench.tick(5).drain.is_empty()).unwrap();
    assert!(waited <= 5, "{waited}");
}

#[test]
fn who_has_just_begun_to_look_drains_nobody() {
    let mut bench = Bench::with(&[1, 1, 1]);
    for _ in 0..60 {
        assert!(bench.tick(5).drain.is_empty());
    }
    assert_eq!(bench.tick(5).drain.len(), 1);
}

#[test]
fn without_figures_nothing_changes() {
    let mut bench = Bench::with(&[20, 1, 1, 0]).drains(&[3]).settled();
    bench.worker(3).empty = true;
    bench.traffic = None;
    let plan = bench.tick(5);
    let expected = Plan { want: 3, limited: Some(Limit::Unknown), why: Why::Unknown, ..nothing() };
    assert_eq!(plan, expected);
    // What has never been there is made as far as it always is: whoever is there counts, whatever the store knows of him.
    bench.tuning.min = 5;
    bench.worker(0).phase = Phase::Lost;
    assert_eq!(bench.tick(5).create, 2);
    bench.coming = 2;
    assert_eq!(bench.tick(5).create, 0);
    // And nobody goes before it has been looked at for as long again.
    bench.tuning.min = 1;
    bench.coming = 0;
    bench.worker(0).phase = Phase::Serving;
    bench.worker(0).sessions = 1;
    bench.worker(3).empty = false;
    bench.traffic = Some(Traffic::default());
    for _ in 0..60 {
        assert!(bench.tick(5).drain.is_empty());
    }
    assert_eq!(bench.tick(5).drain.len(), 1);
}

fn nothing() -> Plan<u32> {
    Plan {
        want: 0,
        why: Why::Sessions,
        buffer: 0,
        create: 0,
        withdraw: 0,
        undrain: Vec::new(),
        drain: Vec::new(),
        remove: Vec::new(),
        limited: None,
        wake: None,
    }
}

#[test]
fn one_old_figure_keeps_all() {
    let mut bench = Bench::with(&[8, 1, 5, 1]).settled();
    bench.worker(0).figures = Figures::Stale;
    assert!(bench.tick(5).drain.is_empty());
    // It adds all the same.
    bench.workers.iter_mut().for_each(|worker| worker.sessions = 20);
    assert_eq!(bench.tick(5).create, 1);
    // What a draining one said is nobody's capacity.
    let mut bench = Bench::with(&[8, 1, 5, 1]).drains(&[1]).settled();
    bench.worker(1).figures = Figures::Stale;
    assert_eq!(drained(&bench.tick(5)), [3]);
}

#[test]
fn who_is_lost_counts_for_nothing_and_stays() {
    let mut bench = Bench::with(&[16, 16, 16]);
    bench.worker(1).phase = Phase::Lost;
    bench.worker(1).empty = true;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create), (2, 0), "32 sessions and a buffer of eight");
    bench.worker(0).sessions = 17;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create), (3, 1));
    assert!(plan.drain.is_empty() && plan.remove.is_empty() && plan.undrain.is_empty());
}

/// A store that was emptied knows nobody for a moment.
#[test]
fn when_nearly_all_are_lost_the_store_is_given_a_moment() {
    let mut bench = Bench::with(&[16, 16, 16]).settled();
    bench.workers.iter_mut().for_each(|worker| worker.phase = Phase::Lost);
    let first = bench.now + Duration::from_secs(5);
    for _ in 0..3 {
        let plan = bench.tick(5);
        let told = (plan.why, plan.limited);
        assert_eq!((plan.create, told, plan.wake), (0, (Why::Lost, Some(Limit::Lost)), Some(first + FORGOTTEN)));
    }
    let plan = bench.tick(5);
    assert_eq!((plan.create, plan.want), (1, 1), "then they are lost");
    // Once more than half are back, the next loss has a moment of its own.
    bench.workers.iter_mut().take(2).for_each(|worker| worker.phase = Phase::Serving);
    assert_eq!(bench.tick(5).why, Why::Sessions);
    bench.workers.iter_mut().for_each(|worker| worker.phase = Phase::Lost);
    assert_eq!(bench.tick(5).why, Why::Lost, "the store can be asked");
    // Half of them is a node: that is no moment's matter.
    let mut bench = Bench::with(&[16, 16]);
    bench.worker(1).phase = Phase::Lost;
    bench.worker(0).sessions = 17;
    assert_eq!(bench.tick(5).create, 1);
}

#[test]
fn a_node_that_goes_gets_its_workers_replaced_first() {
    let mut bench = Bench::with(&[10, 10, 10]);
    bench.worker(0).stay = Stay::Leaving;
    bench.worker(1).stay = Stay::Leaving;
    // 30 sessions want two, one of which is there.
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create), (2, 1));
    assert_eq!(plan.drain, [(1, DrainReason::Leaving)], "three serve where two would do");
    bench.worker(1).phase = Phase::Draining;
    let mut bench = bench.starts(0);
    let plan = bench.tick(5);
    assert_eq!((plan.create, plan.drain.len(), plan.undrain.len()), (0, 0, 0), "its place is being made");
    bench.worker(3).phase = Phase::Serving;
    assert_eq!(drained(&bench.tick(5)), [0]);
}

#[test]
fn the_last_worker_of_a_node_that_goes_waits_for_another_one() {
    let mut bench = Bench::with(&[3]);
    bench.worker(0).stay = Stay::Leaving;
    let plan = bench.tick(5);
    assert_eq!((plan.create, plan.drain.len()), (1, 0));
    let mut bench = bench.starts(0);
    assert!(bench.tick(5).is_idle());
    bench.worker(1).phase = Phase::Serving;
    bench.worker(1).figures = Figures::Stale;
    assert!(bench.tick(5).drain.is_empty(), "one that has not been heard of is none");
    bench.worker(1).figures = Figures::Fresh;
    assert_eq!(bench.tick(5).drain, [(0, DrainReason::Leaving)]);
    // A pod that starts there serves nobody: it goes at once, and another one is made.
    let mut bench = Bench::with(&[20]).starts(1);
    bench.worker(1).stay = Stay::Leaving;
    let plan = bench.tick(5);
    assert_eq!((plan.create, plan.drain), (1, vec![(1, DrainReason::Leaving)]));
}

/// At the maximum too: those that leave are none of it.
#[test]
fn a_full_fleet_can_be_replaced() {
    let mut bench = Bench::with(&[20, 20, 20]);
    bench.tuning.max = 3;
    bench.workers.iter_mut().for_each(|worker| worker.stay = Stay::Leaving);
    assert_eq!(bench.tick(5).create, 3);
}

#[test]
fn what_starts_is_counted() {
    let mut bench = Bench::with(&[20]);
    assert_eq!(bench.tick(5).create, 1);
    bench.coming = 1;
    assert!(bench.tick(5).is_idle());
    bench.coming = 0;
    let mut bench = bench.starts(1);
    assert!(bench.tick(5).is_idle());
}

/// A quota lets six of ten be made. Fewer are wanted by then: for each that went another one came.
#[test]
fn what_cannot_be_made_is_withdrawn_once_it_is_too_many() {
    let mut bench = Bench::with(&[18; 6]);
    bench.coming = 4;
    bench.tuning.min = 10;
    let mut bench = bench.settled();
    assert_eq!(bench.tick(5).withdraw, 0);
    // 54 sessions and 14 places: four. But ten were wanted a moment ago.
    bench.tuning.min = 1;
    bench.workers.iter_mut().for_each(|worker| worker.sessions = 9);
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.withdraw), (10, 0));
    let waited = (0..).find(|_| bench.tick(5).withdraw > 0).unwrap();
    assert!((55..70).contains(&waited), "{waited}");
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.withdraw, plan.create), (4, 4, 0));
    // No more than are too many, and none where it is not known how things are.
    bench.tuning.min = 8;
    assert_eq!(bench.tick(5).withdraw, 2);
    bench.worker(0).figures = Figures::Stale;
    assert_eq!(bench.tick(5).withdraw, 0);
    bench.worker(0).figures = Figures::Fresh;
    bench.traffic = None;
    assert_eq!(bench.tick(5).withdraw, 0);
    // All of them, once nobody calls and none can be made.
    let mut bench = Bench::with(&[]);
    bench.tuning.min = 0;
    bench.coming = 4;
    let mut bench = bench.settled();
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.why, plan.withdraw), (0, Why::Idle, 4));
}

#[test]
fn a_fleet_doubles_at_most() {
    let mut bench = Bench::with(&[20; 10]);
    bench.traffic = Some(Traffic { held: 1_000, ..Traffic::default() });
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.why, plan.create), (75, Why::Held, 10));
    assert_eq!(plan.limited, Some(Limit::Starting { starting: 0 }));
    bench.coming = 10;
    let plan = bench.tick(5);
    assert_eq!((plan.create, plan.limited), (0, Some(Limit::Starting { starting: 10 })));
    // From nothing, eight.
    let mut bench = Bench::with(&[]);
    bench.traffic = Some(Traffic { held: 1_000, ..Traffic::default() });
    assert_eq!(bench.tick(5).create, 8);
    // A minimum is meant.
    let mut bench = Bench::with(&[]);
    bench.tuning.min = 30;
    assert_eq!(bench.tick(5).create, 30);
}

#[test]
fn draining_and_lost_pods_are_counted_in_the_end() {
    let mut bench = Bench::with(&[20; 8]);
    bench.tuning.max = 5;
    for id in 0..3 {
        bench.worker(id).phase = Phase::Draining;
        bench.worker(id).stay = Stay::Ending;
    }
    for id in 3..5 {
        bench.worker(id).phase = Phase::Lost;
    }
    // Three serve, eight exist, ten may.
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create), (4, 1));
    bench.worker(7).phase = Phase::Lost;
    bench.workers.extend(Bench::with(&[20, 20]).drains(&[0, 1]).workers.into_iter().map(|worker| Worker {
        id: worker.id + 100,
        stay: Stay::Ending,
        ..worker
    }));
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create, plan.limited), (3, 0, Some(Limit::Pods { pods: 10 })));
}

#[test]
fn who_does_not_become_ready_gets_another_one_and_no_more() {
    let mut bench = Bench::with(&[20]).starts(60);
    assert!(bench.tick(0).is_idle(), "a minute is no reason");
    let plan = bench.tick(1);
    assert_eq!((plan.create, plan.limited), (1, Some(Limit::NotReady { overdue: 1 })));
    let mut bench = bench.starts(0);
    assert!(bench.tick(5).is_idle());
    // That one does not become ready either.
    for _ in 0..100 {
        let plan = bench.tick(60);
        assert_eq!((plan.create, plan.limited), (0, Some(Limit::NotReady { overdue: 2 })));
    }
    // It does in the end: who is left over goes.
    bench.worker(2).phase = Phase::Serving;
    let plan = bench.tick(5);
    assert_eq!(plan.drain, [(1, DrainReason::NeverReady)]);
    // That needs no window: whoever mends an image does not pay for those that never started.
    let mut bench = Bench::with(&[20, 0]).starts(61);
    bench.tuning.min = 2;
    assert_eq!(bench.tick(0).drain, [(2, DrainReason::NeverReady)]);
    // Nobody gets a second one at the maximum.
    let mut bench = Bench::with(&[20]).starts(61);
    bench.tuning.max = 2;
    assert_eq!(bench.tick(5).create, 0);
    // Patience is as long as others take.
    let mut bench = Bench::with(&[20]).starts(89);
    bench.worker(0).start = Some(Duration::from_secs(30));
    assert_eq!(bench.tick(1).create, 0);
    assert_eq!(bench.tick(1).create, 1);
}

/// Ten that stuck on a bad node had taken up all that may start: ten full ones got nobody.
#[test]
fn who_is_overdue_leaves_room_for_those_in_its_place() {
    let stuck = |mut bench: Bench, pods: u32| {
        for _ in 0..pods {
            bench = bench.starts(61);
        }
        bench
    };
    let mut bench = stuck(Bench::with(&[16; 10]), 10);
    bench.tuning.min = 20;
    bench.tuning.max = 40;
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create, plan.limited), (20, 2, Some(Limit::NotReady { overdue: 10 })));
    bench.coming = 2;
    assert_eq!(bench.tick(5).create, 0);
    // By its sessions, likewise.
    let mut bench = stuck(Bench::with(&[16; 10]), 10);
    bench.traffic = Some(Traffic { held: 160, ..Traffic::default() });
    assert_eq!((bench.tick(0).want, bench.tick(0).create), (20, 2));
    // None of them ever becomes ready: those in their place are no way around what may start at a time.
    let mut bench = Bench::with(&[]);
    bench.traffic = Some(Traffic { held: 1_000, ..Traffic::default() });
    let mut made = Vec::new();
    for _ in 0..100 {
        let create = bench.tick(100).create;
        made.extend((create > 0).then_some(create));
        for _ in 0..create {
            bench = bench.starts(0);
        }
    }
    assert_eq!(made, [8, 6], "one in ten of 63");
}

/// A pod that never became ready was put back when a worker was lacking, and no other one was made until it was overdue again.
#[test]
fn who_never_became_ready_is_not_put_back() {
    let drained = |start: Option<u64>, sessions: u32| {
        let mut bench = Bench::with(&[20, sessions]).drains(&[1]);
        bench.worker(1).start = start.map(Duration::from_secs);
        bench.worker(1).empty = sessions == 0;
        let plan = bench.tick(5);
        (plan.undrain, plan.create, plan.remove)
    };
    assert_eq!(drained(None, 0), (vec![], 1, vec![1]));
    assert_eq!(drained(Some(9), 0), (vec![1], 0, vec![]));
    // How long it took, nobody knows; that it serves, its sessions say.
    assert_eq!(drained(None, 1), (vec![1], 0, vec![]));
}

/// Nothing passed while a clock that was put back by a day came to be where it had been.
#[test]
fn a_clock_that_goes_back_begins_its_measurements_again() {
    let day = Duration::from_secs(86_400);
    let mut bench = Bench::with(&[8, 1, 5, 1]).settled();
    bench.now = bench.now - day;
    for _ in 0..60 {
        assert!(bench.tick(5).drain.is_empty(), "nobody has looked on for long enough");
    }
    assert_eq!(drained(&bench.tick(5)), [3]);
    // Idleness, and the moment that a store is given.
    let mut bench = Bench::with(&[0]).settled();
    bench.tuning.min = 0;
    bench.now = bench.now - day;
    assert_eq!((0..100).find(|_| bench.tick(5).why == Why::Idle), Some(60));
    let mut bench = Bench::with(&[16, 16, 16]);
    bench.workers.iter_mut().for_each(|worker| worker.phase = Phase::Lost);
    bench.tick(5);
    bench.now = bench.now - day;
    assert_eq!((0..100).find(|_| bench.tick(5).why != Why::Lost), Some(3));
}

#[test]
fn the_last_one_goes_when_nobody_has_called_for_a_while() {
    let mut bench = Bench::with(&[1]);
    bench.tuning.min = 0;
    bench.tick(5);
    bench.worker(0).sessions = 0;
    let quiet = bench.now;
    for _ in 0..59 {
        let plan = bench.tick(5);
        assert_eq!((plan.want, plan.drain.len(), plan.wake), (1, 0, Some(quiet + Duration::from_secs(300))));
    }
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.why), (0, Why::Idle));
    assert_eq!(plan.drain, [(0, DrainReason::Idle)]);
    bench.worker(0).phase = Phase::Draining;
    bench.worker(0).empty = true;
    assert_eq!(bench.tick(5).remove, [0]);
    bench.workers.clear();
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create, plan.wake), (0, 0, None));
    // An arrival, a held offer and a session of one that drains each keep it for as long.
    for at in ["arrival", "held", "draining"] {
        let mut bench = Bench::with(&[0, 0]).drains(&[1]).settled();
        bench.tuning.min = 0;
        match at {
            "arrival" => bench.traffic = Some(Traffic { arrived: 1, departed: 1, ..Traffic::default() }),
            "held" => bench.traffic = Some(Traffic { held: 1, ..Traffic::default() }),
            _ => bench.worker(1).sessions = 1,
        }
        assert_eq!(bench.tick(5).want, 1, "{at}");
    }
}

#[test]
fn one_who_waits_starts_the_first() {
    let mut bench = Bench::with(&[]);
    bench.tuning.min = 0;
    assert_eq!(bench.tick(5).want, 0, "an operator that begins wakes nobody");
    bench.traffic = Some(Traffic { held: 1, ..Traffic::default() });
    let plan = bench.tick(0);
    assert_eq!((plan.want, plan.create, plan.why), (1, 1, Why::Held));
    // He has given up by the time it is there: it is there for the next one.
    bench.traffic = Some(Traffic::default());
    assert_eq!(bench.tick(20).want, 1);
}

#[test]
fn growth_is_met_before_it_is_there() {
    let mut bench = Bench::with(&[10, 10]);
    let mut arrived = 0;
    // Forty in twenty seconds is two a second; a start takes ten, and a tick five: thirty, and 2.5 deviations of as many.
    for _ in 0..2 {
        bench.traffic = Some(Traffic { arrived, ..Traffic::default() });
        bench.tick(20);
        arrived += 40;
    }
    let plan = bench.tick(0);
    assert_eq!((plan.buffer, plan.why, plan.want), (44, Why::Growth, 4));
    // As many go: there is only chance.
    let mut bench = Bench::with(&[10, 10]);
    for count in [0, 20, 40] {
        bench.traffic = Some(Traffic { arrived: count, departed: count, ..Traffic::default() });
        bench.tick(10);
    }
    let plan = bench.tick(0);
    assert_eq!((plan.buffer, plan.why), (14, Why::Growth));
}

#[test]
fn a_schedule_is_met_in_time() {
    let schedule = Schedule::parse("0 8 * * *", "UTC", Duration::from_secs(3_600), 12).unwrap();
    let eight = Moment::from_millis(8 * 3_600_000);
    let mut bench = Bench::with(&[1]);
    bench.tuning.schedules = vec![schedule];
    // A start takes ten seconds, and a tick five.
    bench.now = eight - Duration::from_secs(16);
    let plan = bench.tick(0);
    assert_eq!((plan.want, plan.wake), (1, Some(eight - Duration::from_secs(15))));
    let plan = bench.tick(1);
    assert_eq!((plan.want, plan.why, plan.create), (12, Why::Schedule, 11));
    assert_eq!(plan.wake, Some(eight + Duration::from_secs(3_600)));
    let mut bench = bench.starts(0);
    bench.tuning.max = 5;
    let plan = bench.tick(0);
    assert_eq!((plan.want, plan.create), (5, 3), "and the maximum is one");
}

#[test]
fn somebody_else_may_say_how_many() {
    let mut bench = Bench::with(&[20, 20, 20]);
    bench.tuning.mode = Mode::External(5);
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.why, plan.create), (5, Why::External, 2));
    // At once, without a window and without a buffer; the same victims, and none while a figure is old.
    bench.worker(1).sessions = 4;
    bench.tuning.mode = Mode::External(1);
    assert_eq!(
        bench.tick(5).drain,
        [(1, DrainReason::Surplus { have: 3, want: 1 }), (2, DrainReason::Surplus { have: 3, want: 1 })]
    );
    bench.worker(0).figures = Figures::Stale;
    assert!(bench.tick(5).drain.is_empty());
    bench.worker(0).figures = Figures::Fresh;
    // Within the bounds.
    bench.tuning.mode = Mode::External(0);
    assert_eq!(bench.tick(5).want, 1);
    bench.tuning.min = 0;
    assert_eq!(bench.tick(5).want, 0);
    bench.tuning.mode = Mode::External(200);
    let plan = bench.tick(5);
    assert_eq!((plan.want, plan.create), (100, 97));
    assert_eq!(plan.limited, Some(Limit::Max { needs: 200, max: 100 }));
    let mut bench = bench.drains(&[2]);
    bench.tuning.mode = Mode::External(3);
    assert_eq!(bench.tick(5).undrain, [2]);
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
