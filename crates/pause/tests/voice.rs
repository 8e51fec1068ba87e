//! The detector that ships here, on a recording: "I would like to book a table for two", a pause, "Yes, this evening,
//! please", by two voices of espeak-ng.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use streamfleet_handler::PcmFormat;
use streamfleet_pause::{Earshot, Heard, Listener, Rules};

const RATE: u32 = 11_025;

/// Where somebody speaks, in seconds.
const SPOKEN: [Range<f64>; 2] = [1.0..3.215, 4.415..5.852];

fn recording(gain_db: f64, noise_dbfs: f64) -> Vec<i16> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/two-sentences.wav");
    let mut reader = hound::WavReader::open(path).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (RATE, 1));
    let mut rng = StdRng::seed_from_u64(1);
    // Uniform noise has an RMS of its peak over the root of three.
    let peak = 32_768.0 * 10_f64.powf(noise_dbfs / 20.0) * 3_f64.sqrt();
    let gain = 10_f64.powf(gain_db / 20.0);
    let samples = reader.samples::<i16>().map(|sample| f64::from(sample.unwrap()) * gain);
    samples.map(|sample| (sample + rng.random_range(-1.0..1.0) * peak).round() as i16).collect()
}

/// What was heard, with its time in seconds.
fn heard(samples: &[i16]) -> Vec<(f64, Heard)> {
    let mut listener = Listener::new(PcmFormat::mono(RATE), Rules::default(), Earshot::new());
    let (mut all, mut new) = (Vec::new(), Vec::new());
    for (number, packet) in samples.chunks(220).enumerate() {
        listener.hear(packet, &mut new);
        let now = (number * 220 + packet.len()) as f64 / f64::from(RATE);
        all.extend(new.drain(..).map(|heard| (now, heard)));
    }
    all
}

#[test]
fn both_sentences_are_heard_whole_and_answered_half_a_second_after() {
    fn check(gain_db: f64, noise_dbfs: f64) {
        let all = heard(&recording(gain_db, noise_dbfs));
        let conditions = format!("{gain_db} dB in {noise_dbfs} dBFS of noise");
        assert_eq!(all.len(), 4, "{conditions}: {:?}", all.iter().map(|(at, _)| at).collect::<Vec<_>>());
        for (spoken, events) in SPOKEN.iter().zip(all.chunks(2)) {
            let [(started, Heard::StartedTalking { .. }), (paused, Heard::PauseDetected(utterance))] = events else {
                panic!("{conditions}: out of order");
            };
            assert!((spoken.start..spoken.start + 0.7).contains(started), "{conditions}: started at {started}");
            let delay = paused - spoken.end;
            assert!((0.3..0.75).contains(&delay), "{conditions}: a pause after {delay} s");
            let from = utterance.range.start as f64 / f64::from(RATE);
            assert!(from <= spoken.start + 0.1, "{conditions}: the first word is in it, from {from}");
            assert!(utterance.range.end as f64 / f64::from(RATE) > spoken.end, "{conditions}: and the last");
        }
    }
    check(0.0, -90.0);
    check(-20.0, -90.0);
    check(10.0, -90.0);
    check(0.0, -45.0);
}

#[test]
fn noise_is_nobody() {
    let mut rng = StdRng::seed_from_u64(2);
    for peak in [10, 300, 10_000] {
        let noise: Vec<i16> = (0..RATE * 30).map(|_| rng.random_range(-peak..peak)).collect();
        assert_eq!(heard(&noise), [], "peak {peak}");
    }
}
