//! Who drains, and who is removed.

use super::*;

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
