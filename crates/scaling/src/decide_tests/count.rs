//! How many are wanted.

use super::*;

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
