//! What the rule is held to: ten days, with pods that start in 30 s and in 90 s. Counts of events, not time: the same on any
//! machine.

use std::time::Duration;

use streamfleet_simulator::{
    Generator, Holding, Hpa, Load, Outcome, Packing, Rule, SEEDS, Session, Setup, autoscaler, streamfleet,
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

impl Day {
    /// Pod hours, as a share of those of the autoscaler that ends no call.
    fn share(&self) -> f64 {
        self.ours.pod_hours / self.patient.pod_hours
    }
}

fn sum(days: &[Day], of: impl Fn(&Day) -> u64) -> u64 {
    days.iter().map(of).sum()
}

/// These days as docs/scaling.md has them.
fn written(days: &[Day]) -> String {
    let mut lines = vec![
        "| seed | sessions | pod hours | HPA, 5 h | share | refused | HPA refused | HPA with 30 s: killed |".to_owned(),
        "|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for (seed, day) in SEEDS.zip(days) {
        let Day { ours, patient, hasty } = day;
        let hours = format!("{:.0} | {:.0} | {:.3}", ours.pod_hours, patient.pod_hours, day.share());
        let calls = format!("{} | {} | {}", ours.refused, patient.refused, hasty.killed);
        lines.push(format!("| {seed} | {} | {hours} | {calls} |", ours.offered));
    }
    let mean = days.iter().map(Day::share).sum::<f64>() / days.len() as f64;
    let worst = days.iter().map(Day::share).fold(0.0, f64::max);
    let (killed, refused) = (sum(days, |day| day.ours.killed), sum(days, |day| day.ours.refused));
    let (hpa_refused, hpa_killed) = (sum(days, |day| day.patient.refused), sum(days, |day| day.hasty.killed));
    lines.push(String::new());
    lines.push(format!(
        "{} days: {mean:.3} of the pod hours on the mean, {worst:.3} at worst; {killed} killed, {refused} refused; \
         HPA with 5 h: {hpa_refused} refused; with 30 s: {hpa_killed} killed.\n",
        days.len()
    ));
    lines.join("\n")
}

#[track_caller]
fn check(start: u64, more: &str, most_refused: u64) {
    let days = days(start);
    for (seed, day) in SEEDS.zip(&days) {
        let ratio = day.share();
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
    let written =
        format!("Pods that start in {start} s (`streamfleet simulate --seed 1..=10{more}`):\n\n{}", written(&days));
    assert!(include_str!("../../../docs/scaling.md").contains(&written), "docs/scaling.md does not have\n{written}");
}

#[test]
fn ten_days_with_pods_that_start_in_half_a_minute() {
    check(30, "", 0);
}

#[test]
fn ten_days_with_pods_that_start_in_a_minute_and_a_half() {
    check(90, " --pod-start 90", 30);
}

/// What decides the default of `routing.packing`: over the ten days it is 8 % of the pod hours (docs/scaling.md).
#[test]
fn who_packs_needs_fewer_pod_hours() {
    let load = Generator::default().load();
    let played = |packing| streamfleet(&Setup::default(), &Rule { packing, ..Rule::default() }, &load);
    let (packs, spreads) = (played(Packing::Pack), played(Packing::Spread));
    assert!(packs.pod_hours < spreads.pod_hours * 0.95, "{} and {}", packs.pod_hours, spreads.pod_hours);
    assert!(packs.refused <= spreads.refused && packs.killed == 0, "{} and {}", packs.refused, spreads.refused);
    assert_eq!(Rule::default().packing, Packing::Pack);
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
