use proptest::prelude::*;

use super::*;
use crate::AlgoOptions;

const TEN_MS: NonZeroUsize = NonZeroUsize::new(160).unwrap();

/// Hears a script of `s` (speech) and `-` (silence), 10 ms each with a count before; what was decided, when in ms.
fn heard(options: AlgoOptions, script: &[(usize, char)]) -> Vec<(u64, Decision)> {
    let mut detector = PauseDetector::new(Rules::new(&options).unwrap(), TEN_MS);
    let mut decisions = Vec::new();
    for &(ms, what) in script {
        let activity = if what == 's' { Activity::Speech } else { Activity::Silence };
        for _ in 0..ms / 10 {
            let new = detector.hear(activity);
            decisions.extend(new.into_iter().flatten().map(|decision| (detector.position() / 16, decision)));
        }
    }
    decisions
}

fn started(at: u64, from: u64) -> (u64, Decision) {
    (at, Decision::StartedTalking { from: from * 16 })
}

fn paused(at: u64, from: u64) -> (u64, Decision) {
    (at, Decision::PauseDetected { utterance: from * 16..at * 16, cause: PauseCause::Silence })
}

fn too_long(at: u64, from: u64) -> (u64, Decision) {
    (at, Decision::PauseDetected { utterance: from * 16..at * 16, cause: PauseCause::TooLong })
}

#[test]
fn utterances_begin_and_end_by_the_rules() {
    fn check(script: &[(usize, char)], expected: &[(u64, Decision)]) {
        assert_eq!(heard(AlgoOptions::default(), script), expected, "{script:?}");
    }
    check(&[(5_000, '-')], &[]);
    // More than 200 ms of speech: the hop after; it begins a chunk of 600 ms before.
    check(&[(1_000, '-'), (200, 's'), (1_000, '-')], &[]);
    check(&[(1_000, '-'), (210, 's'), (200, '-')], &[started(1_210, 610)]);
    // Less than 100 ms of speech in the last 600: 510 ms after the end of a long one.
    check(&[(1_000, '-'), (2_000, 's'), (2_000, '-')], &[started(1_210, 610), paused(3_510, 610)]);
    // A breath shorter than half a second ends nothing.
    check(&[(1_000, 's'), (500, '-'), (1_000, 's')], &[started(210, 0)]);
    check(&[(1_000, 's'), (510, '-'), (1_000, 's')], &[started(210, 0), paused(1_510, 0), started(1_720, 1_510)]);
    // Short words count together if they are close.
    check(&[(110, 's'), (200, '-'), (100, 's')], &[started(410, 0)]);
    check(&[(110, 's'), (500, '-'), (100, 's'), (500, '-')], &[]);
    // Clicks are no speech.
    let clicks: Vec<_> = (0..20).flat_map(|_| [(50, 's'), (200, '-')]).collect();
    check(&clicks, &[]);
    // The next utterance never begins within the last one.
    let twice = [(1_000, 's'), (600, '-'), (1_000, 's'), (600, '-')];
    check(&twice, &[started(210, 0), paused(1_510, 0), started(1_810, 1_510), paused(3_110, 1_510)]);
}

#[test]
fn a_chunk_must_be_whole_to_be_a_pause() {
    // Every chunk has less speech than 0.5 s; still a word of 0.21 s is heard out.
    let options = AlgoOptions { speech_threshold: 0.5, ..AlgoOptions::default() };
    assert_eq!(heard(options, &[(210, 's'), (1_000, '-')]), [started(210, 0), paused(600, 0)]);
}

#[test]
fn long_speech_is_cut_without_a_gap() {
    let options = AlgoOptions { max_continuous_speech_s: 1.0, ..AlgoOptions::default() };
    assert_eq!(
        heard(options, &[(2_500, 's'), (1_000, '-')]),
        [
            started(210, 0),
            too_long(1_000, 0),
            started(1_210, 1_000),
            too_long(2_000, 1_000),
            started(2_210, 2_000),
            too_long(3_000, 2_000),
        ]
    );
    // A maximum shorter than a chunk: over as soon as it has begun.
    let options = AlgoOptions { max_continuous_speech_s: 0.1, ..AlgoOptions::default() };
    assert_eq!(heard(options, &[(300, 's')]), [started(210, 0), too_long(210, 0)]);
    let endless = heard(AlgoOptions::default(), &[(61_000, 's')]);
    assert_eq!(endless, [started(210, 0), too_long(60_000, 0), started(60_210, 60_000)]);
}

#[test]
fn taking_an_utterance_ends_it_at_once() {
    fn check(script: &[(usize, Activity)], expected: Range<u64>) {
        let mut detector = PauseDetector::new(Rules::default(), TEN_MS);
        for &(ms, activity) in script {
            for _ in 0..ms / 10 {
                detector.hear(activity);
            }
        }
        let taken = detector.take();
        assert_eq!(taken.start / 16..taken.end / 16, expected, "{script:?}");
        assert!(!detector.is_talking());
        assert_eq!(detector.keeps_from(), taken.end);
        assert_eq!(detector.take(), taken.end..taken.end, "nothing is taken twice");
    }
    use Activity::{Silence, Speech};
    check(&[], 0..0);
    check(&[(2_000, Silence)], 2_000..2_000);
    check(&[(2_000, Silence), (100, Speech)], 1_500..2_100);
    check(&[(2_000, Silence), (1_000, Speech)], 1_610..3_000);
    check(&[(1_000, Speech), (550, Silence), (50, Speech)], 1_510..1_600);
}

/// The rules as they are written, over the whole history.
fn by_the_book(rules: &Rules, hop: usize, script: &[Activity]) -> Vec<Decision> {
    let spoken: Vec<bool> = script.iter().flat_map(|activity| vec![*activity == Activity::Speech; hop]).collect();
    let (mut barrier, mut talking, mut decisions) = (0, None, Vec::new());
    for end in (hop..=spoken.len()).step_by(hop) {
        let start = end.saturating_sub(rules.window).max(barrier);
        let speech = spoken[start..end].iter().filter(|&&speaks| speaks).count();
        if talking.is_none() && speech > rules.started {
            talking = Some(start);
            decisions.push(Decision::StartedTalking { from: start as u64 });
        }
        let Some(from) = talking else { continue };
        let cause = if (end - from) as u64 >= rules.longest {
            PauseCause::TooLong
        } else if end - barrier >= rules.window && speech < rules.speech {
            PauseCause::Silence
        } else {
            continue;
        };
        decisions.push(Decision::PauseDetected { utterance: from as u64..end as u64, cause });
        (barrier, talking) = (end, None);
    }
    decisions
}

fn scripts() -> impl Strategy<Value = Vec<Activity>> {
    let run = (prop_oneof![Just(Activity::Speech), Just(Activity::Silence)], 1_usize..60);
    prop::collection::vec(run, 0..16)
        .prop_map(|runs| runs.into_iter().flat_map(|(activity, hops)| vec![activity; hops]).collect())
}

fn options() -> impl Strategy<Value = AlgoOptions> {
    (0.05..1.5, 0.0..0.99, 0.01..1.0, prop_oneof![Just(f64::INFINITY), 0.1..5.0]).prop_map(
        |(chunk, started, speech, longest)| AlgoOptions {
            audio_chunk_duration: chunk,
            started_talking_threshold: started * chunk,
            speech_threshold: speech * chunk,
            max_continuous_speech_s: longest,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_window_decides_as_the_rules_say(script in scripts(), options in options(), hop in 100_usize..500) {
        let rules = Rules::new(&options).unwrap();
        let mut detector = PauseDetector::new(rules, NonZeroUsize::new(hop).unwrap());
        let mut decisions = Vec::new();
        for &activity in &script {
            decisions.extend(detector.hear(activity).into_iter().flatten());
            prop_assert!(detector.recent.len() <= rules.window / hop + 2, "the window is bounded");
            if !detector.is_talking() {
                prop_assert!(detector.position() - detector.keeps_from() <= rules.window as u64);
            } else {
                prop_assert!(detector.position() - detector.keeps_from() < rules.longest.max(rules.window as u64));
            }
        }
        prop_assert_eq!(&decisions, &by_the_book(&rules, hop, &script));

        // Starts and pauses alternate, and utterances neither overlap nor run backwards.
        let (mut talking, mut end) = (None, 0);
        for decision in decisions {
            match decision {
                Decision::StartedTalking { from } => {
                    prop_assert!(talking.is_none() && from >= end);
                    talking = Some(from);
                }
                Decision::PauseDetected { utterance, .. } => {
                    prop_assert_eq!(talking.take(), Some(utterance.start));
                    prop_assert!(utterance.start < utterance.end);
                    end = utterance.end;
                }
            }
        }
    }
}
