//! What came of it, as people and programs read it.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;
use streamfleet_simulator::Outcome;

/// One side of a day.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Played {
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    /// What it took to play it.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    took: Duration,
}

/// A day under the rule and under the autoscaler.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Day {
    pub(crate) seed: u64,
    pub(crate) streamfleet: Played,
    #[serde(rename = "hpa5h")]
    pub(crate) hpa_five_hours: Played,
    #[serde(rename = "hpa30s")]
    pub(crate) hpa_half_a_minute: Played,
}

fn seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

impl Played {
    pub(crate) fn new(play: impl FnOnce() -> Outcome) -> Self {
        let began = Instant::now();
        let outcome = play();
        Self { outcome, took: began.elapsed() }
    }
}

impl Day {
    pub(crate) fn all(&self) -> [(&'static str, &Played); 3] {
        [
            ("streamfleet", &self.streamfleet),
            ("HPA 70 %, 5 h", &self.hpa_five_hours),
            ("HPA 70 %, 30 s", &self.hpa_half_a_minute),
        ]
    }

    /// Pod hours, as a share of those of the autoscaler that ends no call.
    fn ratio(&self) -> f64 {
        self.streamfleet.outcome.pod_hours / self.hpa_five_hours.outcome.pod_hours.max(f64::MIN_POSITIVE)
    }
}

/// What is written over a picture.
pub(crate) fn title(name: &str, played: &Played) -> String {
    let Outcome { pod_hours, killed, refused, .. } = &played.outcome;
    format!("{name}: {pod_hours:.0} pod hours, {killed} calls ended, {refused} refused")
}

/// A table, in Markdown.
pub(crate) fn table(days: &[Day]) -> String {
    let mut text = "| seed | | sessions | killed | refused | held | waited p50 | p95 | max | pods made | most | pod hours | of HPA 5 h |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for day in days {
        for (name, played) in day.all() {
            let Outcome { offered, killed, refused, held, waits, pod_hours, most_pods, made, .. } = &played.outcome;
            let share = pod_hours / day.hpa_five_hours.outcome.pod_hours.max(f64::MIN_POSITIVE);
            // Writing to a text does not fail.
            let _ = writeln!(
                text,
                "| {} | {name} | {offered} | {killed} | {refused} | {held} | {:.1} s | {:.1} s | {:.1} s | {made} | {most_pods} | {pod_hours:.0} | {share:.3} |",
                day.seed, waits.p50, waits.p95, waits.max
            );
        }
    }
    if days.len() > 1 {
        let ratios: Vec<f64> = days.iter().map(Day::ratio).collect();
        let worst = ratios.iter().copied().fold(0.0, f64::max);
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let sum = |of: fn(&Outcome) -> u64, played: fn(&Day) -> &Played| {
            days.iter().map(|day| of(&played(day).outcome)).sum::<u64>()
        };
        let _ = writeln!(
            text,
            "\n{} days: {mean:.3} of the pod hours on the mean, {worst:.3} at worst; {} killed, {} refused; HPA with 5 h: {} refused; with 30 s: {} killed",
            days.len(),
            sum(|outcome| outcome.killed, |day| &day.streamfleet),
            sum(|outcome| outcome.refused, |day| &day.streamfleet),
            sum(|outcome| outcome.refused, |day| &day.hpa_five_hours),
            sum(|outcome| outcome.killed, |day| &day.hpa_half_a_minute),
        );
    }
    text
}

/// All of it, for programs.
pub(crate) fn json(days: &[Day]) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(days)? + "\n")
}

/// A sample a minute of each side of each day, for other pictures.
pub(crate) fn csv(days: &[Day]) -> String {
    let mut text = "seed,rule,seconds,sessions,capacity,pods\n".to_owned();
    for day in days {
        for (name, played) in
            [("streamfleet", &day.streamfleet), ("hpa5h", &day.hpa_five_hours), ("hpa30s", &day.hpa_half_a_minute)]
        {
            for sample in &played.outcome.course {
                let _ = writeln!(
                    text,
                    "{},{name},{},{},{},{}",
                    day.seed,
                    sample.at / 1_000,
                    sample.sessions,
                    sample.capacity,
                    sample.pods
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use streamfleet_simulator::Sample;

    use super::*;

    fn day(seed: u64, hours: f64) -> Day {
        let played = |pod_hours: f64, killed, refused| {
            let course = vec![Sample { at: 60_000, sessions: 1, capacity: 20, pods: 2 }];
            Played::new(|| Outcome { offered: 10, killed, refused, pod_hours, course, ..Outcome::default() })
        };
        Day {
            seed,
            streamfleet: played(hours, 0, 1),
            hpa_five_hours: played(100.0, 0, 2),
            hpa_half_a_minute: played(70.0, 3, 2),
        }
    }

    #[test]
    fn a_table_ends_with_what_it_comes_to() {
        let one = table(&[day(1, 80.0)]);
        assert_eq!(one.lines().count(), 5);
        assert!(
            one.contains("| 1 | streamfleet | 10 | 0 | 1 | 0 | 0.0 s | 0.0 s | 0.0 s | 0 | 0 | 80 | 0.800 |"),
            "{one}"
        );
        let two = table(&[day(1, 80.0), day(2, 90.0)]);
        assert!(
            two.ends_with(
                "\n2 days: 0.850 of the pod hours on the mean, 0.900 at worst; 0 killed, 2 refused; \
                 HPA with 5 h: 4 refused; with 30 s: 6 killed\n"
            ),
            "{two}"
        );
        assert_eq!(title("x", &day(1, 80.0).streamfleet), "x: 80 pod hours, 0 calls ended, 1 refused");
    }

    #[test]
    fn programs_have_all_of_it() {
        let json: serde_json::Value = serde_json::from_str(&json(&[day(1, 80.0)]).unwrap()).unwrap();
        assert_eq!(json[0]["streamfleet"]["podHours"], 80.0);
        assert_eq!(json[0]["hpa30s"]["killed"], 3);
        assert!(json[0]["hpa5h"]["seconds"].is_number());
        let csv = csv(&[day(7, 80.0)]);
        assert_eq!(csv.lines().nth(1), Some("7,streamfleet,60,1,20,2"));
        assert_eq!(csv.lines().count(), 4);
    }
}
