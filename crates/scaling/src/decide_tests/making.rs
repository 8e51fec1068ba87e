//! Who is made, or put back.

use super::*;

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

/// At the maximum too: those that leave are none of it.
#[test]
fn a_full_fleet_can_be_replaced() {
    let mut bench = Bench::with(&[20, 20, 20]);
    bench.tuning.max = 3;
    bench.workers.iter_mut().for_each(|worker| worker.stay = Stay::Leaving);
    assert_eq!(bench.tick(5).create, 3);
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
