//! What the rule is held to: ten days, with pods that start in 30 s and in 90 s. Counts of events, not time: the same on any
//! machine.

use std::time::Duration;

use streamfleet_simulator::{
    Generator, Holding, Hpa, Load, Outcome, Rule, SEEDS, Session, Setup, autoscaler, streamfleet,
};

/// The share of the autoscaler's pod hours that the rule may take.
const MOST: f64 = 0.86;

struct Day {
    ours: Outcome,
    patient: Outcome,
    hasty: Outcome,
}

fn days(start: u64) -> Vec<Day> {
    let setup = Setup { start: Duration::from_secs(start), ..Setup::default() };
    let of_seed = |seed| {
        let load = Generator { seed, ..Generator::default() }.load();
        let patient = Hpa { seed, ..Hpa::default() };
        let hasty = Hpa { grace: Duration::from_secs(30), ..patient.clone() };
        Day {
            ours: streamfleet(&setup, &Rule::default(), &load),
            patient: autoscaler(&setup, &patient, &load),
            hasty: autoscaler(&setup, &hasty, &load),
        }
    };
    SEEDS.map(of_seed).collect()
}

fn sum(days: &[Day], of: impl Fn(&Day) -> u64) -> u64 {
    days.iter().map(of).sum()
}

#[track_caller]
fn check(start: u64, most_refused: u64) {
    let days = days(start);
    for (seed, day) in SEEDS.zip(&days) {
        let ratio = day.ours.pod_hours / day.patient.pod_hours;
        assert_eq!(day.ours.killed, 0, "seed {seed}");
        assert!(ratio <= MOST, "seed {seed}: {ratio}");
        assert!(ratio > 0.5, "seed {seed}: {ratio} is too good to be true");
        assert!(day.hasty.killed > 500, "seed {seed}: a short grace ends {} calls", day.hasty.killed);
        assert_eq!(day.patient.killed, 0, "seed {seed}: five hours are longer than any call");
        // Whoever is refused costs nothing: nearly all must have been served.
        assert!(day.ours.session_hours >= day.patient.session_hours * 0.999, "seed {seed}");
    }
    let (ours, hpa) = (sum(&days, |day| day.ours.refused), sum(&days, |day| day.patient.refused));
    assert!(ours <= most_refused && ours <= hpa, "{ours} refusals, {hpa} of the autoscaler");
}

#[test]
fn ten_days_with_pods_that_start_in_half_a_minute() {
    check(30, 0);
}

#[test]
fn ten_days_with_pods_that_start_in_a_minute_and_a_half() {
    check(90, 30);
}

/// Scale to zero: the first call waits for as long as a pod takes, and is answered.
#[test]
fn the_first_call_of_a_day_is_held() {
    let setup = Setup { min: 0, start: Duration::from_secs(12), ..Setup::default() };
    let call = |hour: u64| Session { start: hour * 3_600_000, duration: 60_000 };
    let load = Load::new(vec![call(1), call(9)], 24 * 3_600_000);
    let outcome = streamfleet(&setup, &Rule::default(), &load);
    assert_eq!((outcome.held, outcome.refused, outcome.killed, outcome.made), (2, 0, 0, 2));
    // A start, and at most a tick until it is seen.
    assert!((12.0..=17.0).contains(&outcome.waits.max), "{:?}", outcome.waits);
    // Two calls of a minute, the window in which somebody else may come, and a start each.
    assert!(outcome.pod_hours < 0.3, "{}", outcome.pod_hours);
    // With a pod that takes longer than an offer is held, nobody is answered.
    let slow = Setup { start: Duration::from_secs(40), ..setup };
    let outcome = streamfleet(&slow, &Rule::default(), &load);
    assert_eq!((outcome.held, outcome.refused), (2, 2));
}

/// All pods are full: who calls waits for one more if one may come, and is refused at once if not.
#[test]
fn a_call_that_finds_all_full_waits_for_what_may_come() {
    let hour = 3_600_000;
    // The second comes before a second pod can be there.
    let calls = [Session { start: hour, duration: hour }, Session { start: hour + 1_000, duration: 60_000 }];
    let played = |max, holding| {
        let setup = Setup { capacity: 1, max, holding, start: Duration::from_secs(12), ..Setup::default() };
        let outcome = streamfleet(&setup, &Rule::default(), &Load::new(calls.to_vec(), 4 * hour));
        (outcome.held, outcome.refused, outcome.killed)
    };
    assert_eq!(played(2, Holding::NoPlace), (1, 0, 0), "one more may come");
    assert_eq!(played(1, Holding::NoPlace), (0, 1, 0), "there are as many as may be");
    assert_eq!(played(2, Holding::NoneServes), (0, 1, 0));
}

/// The same day is the same day.
#[test]
fn a_day_can_be_played_again() {
    let load = Generator { sessions_per_day: 5_000.0, ..Generator::default() }.load();
    let setup = Setup::default();
    assert_eq!(streamfleet(&setup, &Rule::default(), &load), streamfleet(&setup, &Rule::default(), &load));
    let hpa = Hpa::default();
    assert_eq!(autoscaler(&setup, &hpa, &load), autoscaler(&setup, &hpa, &load));
}

/// Every session is served, refused, or killed; hours are what they are.
#[test]
fn nobody_is_lost_in_the_count() {
    let load = Generator { sessions_per_day: 20_000.0, bursts: 4, ..Generator::default() }.load();
    // Everybody is there by the end of the day, and the last has gone a day later.
    let load = Load::new(load.sessions().to_vec(), 2 * load.until());
    let setup = Setup { max: 12, ..Setup::default() };
    let outcome = streamfleet(&setup, &Rule::default(), &load);
    assert!(outcome.refused > 100, "a fleet that is too small refuses");
    assert!(outcome.most_pods <= 24 && outcome.killed == 0);
    let asked: u64 = load.sessions().iter().map(|session| session.duration).sum();
    let refused_share = outcome.refused as f64 / outcome.offered as f64;
    let served = outcome.session_hours / (asked as f64 / 3_600_000.0);
    assert!((served + refused_share - 1.0).abs() < 0.02, "{served} and {refused_share}");
}
