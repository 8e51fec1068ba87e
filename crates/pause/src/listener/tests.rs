use std::num::NonZeroUsize;

use proptest::prelude::*;
use streamfleet_audio::tone::Tone;

use super::*;
use crate::{Activity, AlgoOptions};

/// Calls loud hops speech, and is as simple as that.
struct Loud(usize);

impl Vad for Loud {
    fn hop(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.0).unwrap()
    }

    fn hear(&mut self, hop: &[i16]) -> Activity {
        assert_eq!(hop.len(), self.0);
        let loudest = hop.iter().map(|sample| sample.unsigned_abs()).max();
        if loudest > Some(1_000) { Activity::Speech } else { Activity::Silence }
    }

    fn reset(&mut self) {}
}

/// A stream whose frames can be told apart: their number in the lowest bits, loud where somebody speaks.
fn stream(format: PcmFormat, runs: &[(Activity, f64)]) -> Vec<i16> {
    let mut samples = Vec::new();
    let mut tone = Tone::new(format.rate, 500.0, -12.0);
    for &(activity, seconds) in runs {
        for _ in 0..(seconds * f64::from(format.rate)) as usize {
            let mut sample = [0];
            tone.fill(&mut sample);
            let loud = if activity == Activity::Speech { sample[0] & !63 } else { 0 };
            for _ in 0..format.channels {
                samples.push(loud | (samples.len() % 64) as i16);
            }
        }
    }
    samples
}

fn listener(format: PcmFormat, options: &AlgoOptions) -> Listener<Loud> {
    Listener::new(format, Rules::new(options).unwrap(), Loud(256))
}

fn heard_in_one(format: PcmFormat, options: &AlgoOptions, samples: &[i16]) -> Vec<Heard> {
    let mut heard = Vec::new();
    listener(format, options).hear(samples, &mut heard);
    heard
}

#[test]
fn an_utterance_is_its_audio_at_any_rate() {
    fn check(rate: u32, channels: u16) {
        use Activity::{Silence, Speech};
        let format = PcmFormat { rate, channels };
        let samples = stream(format, &[(Silence, 2.0), (Speech, 1.5), (Silence, 1.0)]);
        let heard = heard_in_one(format, &AlgoOptions::default(), &samples);
        let [Heard::StartedTalking { from }, Heard::PauseDetected(utterance)] = heard.as_slice() else {
            panic!("{rate} Hz: {} events", heard.len());
        };
        assert_eq!(utterance.range.start, *from);
        assert_eq!(utterance.cause, PauseCause::Silence);
        let seconds = |frame: u64| frame as f64 / f64::from(rate);
        // Up to 0.4 s of what came before the first word; a hop of 16 ms is the grain.
        let (start, end) = (seconds(utterance.range.start), seconds(utterance.range.end));
        assert!((1.6..1.62).contains(&start), "{rate} Hz: from {start}");
        assert!((3.99..4.03).contains(&end), "{rate} Hz: to {end}");
        let channels = usize::from(channels);
        let frames = utterance.range.start as usize * channels..utterance.range.end as usize * channels;
        assert!(utterance.samples == samples[frames], "{rate} Hz: the audio as it came");
    }
    check(48_000, 1);
    check(48_000, 2);
    check(16_000, 1);
    check(8_000, 1);
    check(44_100, 1);
    check(24_000, 1);
    check(11_025, 2);
}

#[test]
fn nothing_is_heard_without_a_rate_or_channels() {
    for format in [PcmFormat { rate: 0, channels: 1 }, PcmFormat { rate: 48_000, channels: 0 }] {
        assert_eq!(heard_in_one(format, &AlgoOptions::default(), &[i16::MAX; 100_000]), []);
    }
}

#[test]
fn an_utterance_taken_early_is_whole_and_the_next_one_follows_it() {
    use Activity::{Silence, Speech};
    let format = PcmFormat::mono(48_000);
    let samples = stream(format, &[(Silence, 1.0), (Speech, 2.0), (Silence, 1.0)]);
    let (first, second) = samples.split_at(96_000);
    let mut listener = listener(format, &AlgoOptions::default());
    let mut heard = Vec::new();
    listener.hear(first, &mut heard);
    let [Heard::StartedTalking { from }] = heard.as_slice() else { panic!("{} events", heard.len()) };
    let taken = listener.take();
    assert_eq!(taken, samples[*from as usize..][..taken.len()]);
    let end = *from + taken.len() as u64;
    assert!(end + 768 > 96_000, "to the last whole hop");
    heard.clear();
    listener.hear(second, &mut heard);
    let [Heard::StartedTalking { from }, Heard::PauseDetected(utterance)] = heard.as_slice() else {
        panic!("{} events", heard.len());
    };
    assert_eq!((*from, utterance.range.start), (end, end), "neither lost nor doubled");
}

#[test]
fn what_was_not_heard_is_in_no_utterance() {
    use Activity::{Silence, Speech};
    let format = PcmFormat::mono(48_000);
    let mut listener = listener(format, &AlgoOptions::default());
    let mut heard = Vec::new();
    listener.hear(&stream(format, &[(Speech, 0.5)]), &mut heard);
    listener.resume();
    listener.hear(&stream(format, &[(Silence, 1.0)]), &mut heard);
    assert_eq!(heard, [Heard::StartedTalking { from: 0 }], "the utterance is forgotten");
    heard.clear();
    listener.hear(&stream(format, &[(Speech, 0.5), (Silence, 1.0)]), &mut heard);
    let Some(Heard::PauseDetected(utterance)) = heard.last() else { panic!("{} events", heard.len()) };
    let at = utterance.range.start as f64 / 48_000.0;
    assert!((1.1..1.13).contains(&at), "frames are counted over all that was heard: {at}");
    listener.resume();
    heard.clear();
    listener.hear(&stream(format, &[(Speech, 0.3)]), &mut heard);
    assert_eq!(heard, [Heard::StartedTalking { from: 48_000 * 3 }], "nothing from before");
}

#[test]
fn memory_is_bounded_in_silence_and_in_speech() {
    let format = PcmFormat::mono(8_000);
    let mut listener = listener(format, &AlgoOptions::default());
    let mut heard = Vec::new();
    let chunk = 4_800;
    for _ in 0..2_000 {
        listener.hear(&[0; 160], &mut heard);
        assert!(listener.recording.frames() <= (chunk + 200) * 4 / 3);
    }
    let loud = stream(format, &[(Activity::Speech, 200.0)]);
    for piece in loud.chunks(160) {
        listener.hear(piece, &mut heard);
        assert!(listener.recording.frames() <= 60 * 8_000 + (chunk + 200) / 3 + 200);
    }
    let cut =
        heard.iter().filter(|heard| matches!(heard, Heard::PauseDetected(cut) if cut.cause == PauseCause::TooLong));
    assert_eq!(cut.count(), 3);
}

fn runs() -> impl Strategy<Value = Vec<(Activity, f64)>> {
    prop::collection::vec((prop_oneof![Just(Activity::Speech), Just(Activity::Silence)], 0.0..1.5), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn cuts_make_no_difference_and_no_audio_is_lost_or_doubled(
        runs in runs(),
        rate in prop::sample::select(vec![8_000_u32, 11_025, 16_000, 44_100, 48_000]),
        channels in 1_u16..3,
        cuts in prop::collection::vec(1_usize..3_000, 1..20),
        longest in prop_oneof![Just(f64::INFINITY), 0.5..3.0],
    ) {
        let format = PcmFormat { rate, channels };
        let options = AlgoOptions { max_continuous_speech_s: longest, ..AlgoOptions::default() };
        let samples = stream(format, &runs);
        let at_once = heard_in_one(format, &options, &samples);

        let mut cut = Vec::new();
        let mut listener = listener(format, &options);
        let (mut rest, mut lengths) = (samples.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let frames = *lengths.next().unwrap();
            let (piece, after) = rest.split_at((frames * usize::from(channels)).min(rest.len()));
            listener.hear(piece, &mut cut);
            rest = after;
        }
        prop_assert!(at_once == cut, "other cuts, other events");

        let (mut talking, mut end) = (None, 0);
        for heard in at_once {
            match heard {
                Heard::StartedTalking { from } => {
                    prop_assert!(talking.is_none() && from >= end);
                    talking = Some(from);
                }
                Heard::PauseDetected(utterance) => {
                    prop_assert_eq!(talking.take(), Some(utterance.range.start));
                    let range = utterance.range.start as usize * usize::from(channels)..utterance.range.end as usize * usize::from(channels);
                    prop_assert!(utterance.samples == samples[range]);
                    end = utterance.range.end;
                }
            }
        }
    }
}
