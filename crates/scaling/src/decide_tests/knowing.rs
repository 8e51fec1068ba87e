//! What is not known, or not as it was.

use super::*;

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
