use std::collections::VecDeque;

use proptest::prelude::*;
use streamfleet_audio::analysis::tone_level;
use streamfleet_audio::tone::Tone;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A playout, its time, and a client that plays at once.
struct Drive {
    playout: Playout,
    now: Instant,
    start: Instant,
    /// When each payload was sent, counted from the start, and its bytes.
    sent: Vec<(Duration, Vec<u8>)>,
}

impl Drive {
    fn new(codec: WireCodec, rate: u32) -> Self {
        let now = Instant::now();
        let mut playout = Playout::new(rate).unwrap();
        playout.attach(now, codec).unwrap();
        Self { playout, now, start: now, sent: Vec::new() }
    }

    fn push(&mut self, samples: &[i16], rate: u32) {
        self.playout.push(self.now, samples, PcmFormat::mono(rate)).unwrap();
        self.pull();
    }

    /// Sends what is due now.
    fn pull(&mut self) {
        let mut payload = Vec::new();
        while let Some(length) = self.playout.poll(self.now, &mut payload) {
            assert!(length <= FRAME + MS, "{length:?}");
            // At rates that do not divide into frames, one may be a sample longer than the others.
            assert!(self.playout.lead(self.now) <= LEAD, "{:?}", self.playout.lead(self.now));
            self.sent.push((self.now - self.start, payload.clone()));
        }
        // Nobody waits who could be served.
        assert!(self.playout.poll_timeout().is_none_or(|due| due > self.now));
    }

    /// Lets time pass, from timer to timer.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.playout.poll_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.pull();
        }
        self.now = end;
    }

    fn times(&self) -> Vec<u128> {
        self.sent.iter().map(|(at, _)| at.as_millis()).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        self.sent.iter().flat_map(|(_, payload)| payload.clone()).collect()
    }
}

#[test]
fn a_long_reply_is_paced_behind_its_lead() {
    let mut drive = Drive::new(WireCodec::MuLaw, 24_000);
    drive.push(&vec![1_000; 24_000], 24_000);
    assert_eq!(drive.sent.len(), 10);
    drive.run(Duration::from_secs(2));
    let expected: Vec<u128> = (0..50u128).map(|at| (at * 20).saturating_sub(180)).collect();
    assert_eq!(drive.times(), expected);
    assert!(drive.sent.iter().all(|(_, payload)| payload.len() == 480));
    assert_eq!(drive.playout.poll_timeout(), None);
}

#[test]
fn a_handler_in_real_time_is_sent_at_once() {
    let mut drive = Drive::new(WireCodec::Pcm16, 24_000);
    for _ in 0..50 {
        drive.push(&[7; 480], 24_000);
        drive.run(20 * MS);
    }
    assert_eq!(drive.times(), (0..50u128).map(|at| at * 20).collect::<Vec<_>>());
}

#[test]
fn a_rest_of_a_frame_waits_for_more_and_not_for_ever() {
    let mut drive = Drive::new(WireCodec::MuLaw, 24_000);
    drive.push(&[0; 100], 24_000);
    assert_eq!(drive.times(), [0; 0]);
    drive.run(19 * MS);
    assert_eq!(drive.times(), [0; 0]);
    drive.push(&[0; 380], 24_000);
    assert_eq!(drive.times(), [19]);
    // The client plays until 39: the rest is sent when it would run dry.
    drive.push(&[0; 240], 24_000);
    drive.run(Duration::from_secs(1));
    assert_eq!(drive.times(), [19, 79]);
    assert_eq!(drive.sent[1].1.len(), 240);
}

#[test]
fn silence_has_no_timer() {
    for codec in [WireCodec::MuLaw, WireCodec::Opus] {
        let mut drive = Drive::new(codec, 24_000);
        assert_eq!(drive.playout.poll_timeout(), None);
        drive.push(&[0; 1_000], 48_000);
        drive.run(Duration::from_secs(1));
        assert_eq!(drive.playout.poll_timeout(), None);
        drive.playout.clear();
        assert_eq!(drive.playout.poll_timeout(), None);
    }
}

#[test]
fn played_out_after_the_last_sample_has_played() {
    let mut drive = Drive::new(WireCodec::MuLaw, 24_000);
    drive.push(&[0; 24_001], 24_000);
    drive.playout.finish(drive.now);
    assert_eq!(drive.playout.played_out_at(), None);
    assert!(matches!(drive.playout.push(drive.now, &[0], PcmFormat::mono(24_000)), Err(PushError::Finished)));
    drive.run(Duration::from_secs(2));
    assert_eq!(drive.bytes().len(), 24_001);
    let over = drive.playout.played_out_at().unwrap() - drive.start;
    assert_eq!(over.as_micros(), 1_000_041);

    let mut silent = Drive::new(WireCodec::MuLaw, 24_000);
    silent.run(5 * MS);
    silent.playout.finish(silent.now);
    assert_eq!(silent.playout.played_out_at(), Some(silent.now));
}

#[test]
fn clear_empties_the_queue_and_keeps_the_clock() {
    let mut drive = Drive::new(WireCodec::MuLaw, 24_000);
    drive.push(&[1; 24_000], 24_000);
    assert_eq!(drive.playout.clear(), 800 * MS);
    assert_eq!(drive.playout.queued(), Duration::ZERO);
    drive.run(10 * MS);
    assert_eq!(drive.sent.len(), 10);
    // The client still plays for 190 ms: there is room for nothing before 20 of them have passed.
    drive.push(&[2; 480], 24_000);
    drive.run(Duration::from_secs(1));
    assert_eq!(drive.times()[10..], [20]);

    let mut call = Drive::new(WireCodec::Telephone, 24_000);
    call.push(&[1; 24_000], 24_000);
    call.playout.clear();
    call.playout.client_cleared(call.now);
    call.push(&[2; 480], 24_000);
    assert_eq!(call.times(), [0; 11]);
}

#[test]
fn a_client_that_comes_back_finds_what_waits() {
    let mut drive = Drive::new(WireCodec::MuLaw, 24_000);
    drive.push(&vec![1_000; 24_000], 24_000);
    let before = drive.bytes().len();
    drive.now += Duration::from_secs(3);
    drive.playout.attach(drive.now, WireCodec::Pcm16).unwrap();
    drive.run(Duration::from_secs(1));
    assert_eq!(before + drive.sent[10..].iter().map(|(_, payload)| payload.len() / 2).sum::<usize>(), 24_000);
    assert_eq!(drive.times()[10..].iter().filter(|&&at| at == 3_000).count(), 10);
}

#[test]
fn what_is_refused() {
    let mut playout = Playout::new(24_000).unwrap();
    let now = Instant::now();
    let mut check = |samples: usize, rate, channels, expected: &str| {
        let error = playout.push(now, &vec![0; samples], PcmFormat { rate, channels }).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(playout.queued(), Duration::ZERO);
    };
    check(10, 7_999, 1, "unsupported PCM format: 7999 Hz, 1 channels");
    check(10, 8_000, 0, "unsupported PCM format: 8000 Hz, 0 channels");
    check(10, 8_000, 9, "unsupported PCM format: 8000 Hz, 9 channels");
    check(11, 8_000, 2, "11 samples cannot be split into 2 channels");
    check(60 * 8_000 + 1, 8_000, 1, "the queue holds 0ns of audio already");
    assert!(Playout::new(0).is_err());
    assert!(Playout::new(1_000_000).is_err());
}

#[test]
fn other_rates_and_channels_are_converted() {
    for (codec, to) in [(WireCodec::Pcm16, 24_000), (WireCodec::Pcm16, 22_050), (WireCodec::Telephone, 8_000)] {
        for (from, channels) in [(48_000, 1), (44_100, 2), (16_000, 1)] {
            let mut drive = Drive::new(codec, if codec == WireCodec::Telephone { 24_000 } else { to });
            let mut tone = vec![0; from as usize];
            Tone::new(from, 440.0, -12.0).fill(&mut tone);
            let samples: Vec<i16> = tone.iter().flat_map(|&sample| vec![sample; usize::from(channels)]).collect();
            drive.playout.push(drive.now, &samples, PcmFormat { rate: from, channels }).unwrap();
            drive.playout.finish(drive.now);
            drive.run(Duration::from_secs(2));
            let heard: Vec<i16> = match codec {
                WireCodec::Pcm16 => {
                    drive.bytes().as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect()
                }
                _ => drive.bytes().iter().map(|&b| streamfleet_audio::g711::MU_LAW[usize::from(b)]).collect(),
            };
            // All of it, and the filter's delay.
            let extra = heard.len() as i64 - i64::from(to);
            assert!((0..i64::from(to) / 200).contains(&extra), "{from} -> {to}: {extra}");
            let level = tone_level(&heard[to as usize / 10..to as usize], to, 440.0);
            assert!((level + 12.0).abs() < 0.3, "{from} -> {to}: {level}");
        }
    }
}

#[test]
fn frames_are_twenty_milliseconds_at_any_rate() {
    let mut drive = Drive::new(WireCodec::MuLaw, 11_025);
    drive.push(&[0; 882], 11_025);
    assert_eq!(drive.sent.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>(), [220, 221, 220, 221]);
}

/// A sound at the very end comes out of the filter too: at the end, when the handler pauses, and when it goes on at
/// another rate.
#[test]
fn the_last_sound_is_not_left_in_the_filter() {
    let loudest = |bytes: Vec<u8>| -> i16 {
        let samples = bytes.as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes).abs());
        samples.max().unwrap()
    };
    let mut click = [0; 960];
    click[950..].fill(20_000);

    let mut ended = Drive::new(WireCodec::Pcm16, 24_000);
    ended.push(&click, 48_000);
    ended.playout.finish(ended.now);
    ended.run(Duration::from_secs(1));
    assert!(loudest(ended.bytes()) > 15_000);

    let mut pausing = Drive::new(WireCodec::Pcm16, 24_000);
    pausing.push(&click, 48_000);
    pausing.run(Duration::from_secs(1));
    assert!(loudest(pausing.bytes()) > 15_000);

    let mut changing = Drive::new(WireCodec::Pcm16, 24_000);
    changing.push(&click, 48_000);
    changing.push(&[0; 480], 24_000);
    changing.run(Duration::from_secs(1));
    assert!(loudest(changing.bytes()) > 15_000);
}

#[test]
fn opus_is_whole_to_the_last_sample() {
    for rate in [16_000, 24_000, 22_050, 44_100, 48_000, 8_010] {
        let mut drive = Drive::new(WireCodec::Opus, rate);
        let mut tone = Tone::new(rate, 1_000.0, -12.0);
        let mut left = rate as usize;
        while left > 0 {
            let mut block = vec![0; left.min(777)];
            tone.fill(&mut block);
            drive.push(&block, rate);
            left -= block.len();
        }
        drive.playout.finish(drive.now);
        drive.run(Duration::from_secs(3));
        assert!(drive.playout.played_out_at().is_some());
        assert_eq!(drive.playout.failures(), 0);
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        let mut heard = Vec::new();
        for (_, packet) in &drive.sent {
            let mut pcm = [0; 960];
            assert_eq!(decoder.decode(packet, &mut pcm, false).unwrap(), 960);
            heard.extend(pcm);
        }
        assert!((48_312..=50_880).contains(&heard.len()), "{rate}: {}", heard.len());
        // The last 20 ms that were said are heard, after the encoder's delay.
        let level = tone_level(&heard[48_000 - 960 + 312..48_312], 48_000, 1_000.0);
        assert!((level + 12.0).abs() < 1.5, "{rate}: {level}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Wait(u64),
    Clear,
    Return,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..6_000).prop_map(Step::Push),
        5 => (0u64..300).prop_map(Step::Wait),
        1 => Just(Step::Clear),
        1 => Just(Step::Return),
    ]
}

proptest! {
    /// In order, none lost but what is cleared, none twice, never further ahead than allowed (see `Drive::pull`).
    #[test]
    fn every_sample_once(
        steps in proptest::collection::vec(step(), 0..60),
        rate in prop_oneof![Just(8_000u32), Just(24_000), Just(48_000), Just(11_025), 8_000u32..50_000],
    ) {
        let mut drive = Drive::new(WireCodec::Pcm16, rate);
        let mut expected = VecDeque::new();
        let mut next = 0i16;
        let check = |drive: &mut Drive, expected: &mut VecDeque<i16>| {
            for (_, payload) in drive.sent.drain(..) {
                for &bytes in payload.as_chunks().0 {
                    assert_eq!(Some(i16::from_le_bytes(bytes)), expected.pop_front());
                }
            }
        };
        for step in steps {
            match step {
                Step::Push(count) => {
                    let samples: Vec<i16> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    expected.extend(&samples);
                    drive.push(&samples, rate);
                }
                Step::Wait(time) => drive.run(Duration::from_millis(time)),
                Step::Clear => {
                    check(&mut drive, &mut expected);
                    prop_assert_eq!(drive.playout.clear(), PcmFormat::mono(rate).duration(expected.len()));
                    expected.clear();
                }
                Step::Return => {
                    drive.playout.attach(drive.now, WireCodec::Pcm16).unwrap();
                    drive.pull();
                }
            }
            check(&mut drive, &mut expected);
        }
        drive.playout.finish(drive.now);
        let left = drive.playout.queued();
        drive.run(left + Duration::from_secs(1));
        check(&mut drive, &mut expected);
        prop_assert!(expected.is_empty());
        prop_assert!(drive.playout.played_out_at().is_some());
        prop_assert!(drive.playout.queue.capacity() <= KEPT);
    }

    /// The same with Opus and other rates: nothing can be compared by sample, but it is in bounds and comes to an end.
    #[test]
    fn any_codec_comes_to_an_end(
        steps in proptest::collection::vec(step(), 0..20),
        codec in prop_oneof![Just(WireCodec::Opus), Just(WireCodec::Telephone)],
        rate in prop_oneof![Just(8_000u32), Just(24_000), Just(22_050)],
        from in prop_oneof![Just(8_000u32), Just(24_000), Just(48_000)],
    ) {
        let mut drive = Drive::new(codec, rate);
        for step in steps {
            match step {
                Step::Push(count) => drive.push(&vec![500; count], from),
                Step::Wait(time) => drive.run(Duration::from_millis(time)),
                Step::Clear => { drive.playout.clear(); drive.pull(); }
                Step::Return => { drive.playout.attach(drive.now, codec).unwrap(); drive.pull(); }
            }
        }
        drive.playout.finish(drive.now);
        let left = drive.playout.queued();
        drive.run(left + Duration::from_secs(1));
        prop_assert!(drive.playout.played_out_at().is_some());
        prop_assert_eq!(drive.playout.failures(), 0);
    }
}
