use proptest::prelude::*;
use streamfleet_audio::analysis::tone_level;
use streamfleet_audio::g711;
use streamfleet_audio::tone::Tone;
use streamfleet_audio::{AudioSender, Codec};

use super::*;

fn intake(codec: WireCodec, rate: u32) -> Intake {
    let mut intake = Intake::new(rate).unwrap();
    intake.attach(codec).unwrap();
    intake
}

fn drain(intake: &mut Intake) -> Vec<i16> {
    std::iter::from_fn(|| intake.poll()).flatten().collect()
}

#[test]
fn frames_are_twenty_milliseconds() {
    fn check(codec: WireCodec, rate: u32, payloads: &[&[u8]], expected: &[usize]) {
        let now = Instant::now();
        let mut intake = intake(codec, rate);
        for payload in payloads {
            intake.take(now, payload).unwrap();
        }
        intake.finish();
        let lengths: Vec<usize> = std::iter::from_fn(|| intake.poll()).map(|frame| frame.len()).collect();
        assert_eq!(lengths, expected, "{codec:?} {rate}");
    }
    check(WireCodec::MuLaw, 48_000, &[&[0xff; 960]], &[960]);
    check(WireCodec::MuLaw, 48_000, &[&[0xff; 500], &[0xff; 500]], &[960, 40]);
    check(WireCodec::MuLaw, 11_025, &[&[0xff; 662]], &[220, 221, 220, 1]);
    check(WireCodec::Pcm16, 16_000, &[&[0; 640], &[0; 2], &[]], &[320, 1]);
    check(WireCodec::Telephone, 8_000, &[&[0xff; 160]], &[160]);
    check(WireCodec::Telephone, 24_000, &[&[0xff; 160]], &[480]);
    check(WireCodec::Opus, 48_000, &[&[]], &[]);
}

#[test]
fn samples_are_those_of_the_codec() {
    let now = Instant::now();
    let mut mu_law = intake(WireCodec::MuLaw, 24_000);
    let bytes: Vec<u8> = (0..=255).cycle().take(480).collect();
    mu_law.take(now, &bytes).unwrap();
    let expected: Vec<i16> = bytes.iter().map(|&byte| g711::MU_LAW[usize::from(byte)]).collect();
    assert_eq!(mu_law.poll(), Some(expected));

    let mut pcm = intake(WireCodec::Pcm16, 8_000);
    let samples: Vec<i16> = (0..160).map(|at| at * 200 - 16_000).collect();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    pcm.take(now, &bytes).unwrap();
    assert_eq!(pcm.poll(), Some(samples));
}

#[test]
fn a_telephone_is_heard_at_the_handlers_rate() {
    let now = Instant::now();
    let mut tone = vec![0; 8_000];
    Tone::new(8_000, 1_000.0, -12.0).fill(&mut tone);
    let bytes: Vec<u8> = tone.iter().map(|&sample| g711::encode_mu_law(sample)).collect();
    for rate in [16_000, 24_000, 48_000] {
        let mut intake = intake(WireCodec::Telephone, rate);
        intake.take(now, &bytes).unwrap();
        let heard = drain(&mut intake);
        assert_eq!(heard.len(), rate as usize);
        let level = tone_level(&heard[rate as usize / 10..], rate, 1_000.0);
        assert!((level + 12.0).abs() < 0.3, "{rate}: {level}");
    }
}

/// One second of a tone as Opus packets.
fn opus_packets() -> Vec<Vec<u8>> {
    let mut encoder = AudioSender::new(Codec::Opus).unwrap();
    let (mut now, mut packets) = (Instant::now(), Vec::new());
    let mut tone = Tone::new(24_000, 1_000.0, -12.0);
    for _ in 0..50 {
        let mut block = [0; 480];
        tone.fill(&mut block);
        encoder.push(now, &block, PcmFormat::mono(24_000)).unwrap();
        let mut packet = Vec::new();
        encoder.poll(now, &mut packet).unwrap();
        packets.push(packet);
        now += Duration::from_millis(20);
    }
    packets
}

#[test]
fn opus_is_decoded_at_any_rate() {
    let (now, packets) = (Instant::now(), opus_packets());
    for rate in [16_000, 22_050, 24_000, 44_100, 48_000] {
        let mut intake = intake(WireCodec::Opus, rate);
        for packet in &packets {
            intake.take(now, packet).unwrap();
        }
        intake.finish();
        let heard = drain(&mut intake);
        assert_eq!(heard.len(), rate as usize);
        let level = tone_level(&heard[rate as usize / 10..], rate, 1_000.0);
        assert!((level + 12.0).abs() < 1.0, "{rate}: {level}");
    }
}

#[test]
fn payloads_that_are_none() {
    fn check(codec: WireCodec, payload: &[u8], expected: BadPayload) {
        let mut intake = intake(codec, 48_000);
        assert_eq!(intake.take(Instant::now(), payload), Err(expected), "{payload:02x?}");
        assert!(drain(&mut intake).is_empty());
    }
    check(WireCodec::Pcm16, &[1], BadPayload::OddPcm);
    check(WireCodec::Pcm16, &[0; 1_921], BadPayload::OddPcm);
    // A code-3 packet without its frame count, one of no frames, one of more than 120 ms.
    check(WireCodec::Opus, &[0xff], BadPayload::NotOpus);
    check(WireCodec::Opus, &[0xff, 0], BadPayload::NotOpus);
    check(WireCodec::Opus, &[0xff, 0x3f], BadPayload::NotOpus);
    // A code-1 packet whose two frames cannot be equally long.
    check(WireCodec::Opus, &[0xf9, 1, 2, 3], BadPayload::NotOpus);
}

#[test]
fn ten_times_real_time_is_cut_to_real_time() {
    for codec in [WireCodec::MuLaw, WireCodec::Telephone, WireCodec::Opus] {
        let start = Instant::now();
        let mut intake = intake(codec, 48_000);
        let packet = &opus_packets()[10];
        let mu_law = vec![0xff; codec.rate(48_000) as usize / 50];
        let payload = if codec == WireCodec::Opus { packet } else { &mu_law };
        let mut heard = 0;
        for at in 0..60_000 / 2 {
            intake.take(start + Duration::from_millis(at * 2), payload).unwrap();
            heard += drain(&mut intake).len();
        }
        let heard = PcmFormat::mono(48_000).duration(heard).as_secs_f64();
        // A minute, a hundredth of it, and the burst.
        assert!((65.5..=65.62).contains(&heard), "{codec:?}: {heard}");
        let dropped = intake.dropped().as_secs_f64();
        assert!((heard + dropped - 600.0).abs() < 0.1, "{codec:?}: {dropped}");
    }
}

#[test]
fn a_clock_that_is_a_little_fast_loses_nothing() {
    let start = Instant::now();
    let mut intake = intake(WireCodec::MuLaw, 8_000);
    // Half a per cent, for a quarter of an hour.
    for at in 0..45_000 {
        intake.take(start + Duration::from_micros(at * 19_900), &[0xff; 160]).unwrap();
        assert!(intake.poll().is_some());
    }
    assert_eq!(intake.dropped(), Duration::ZERO);
}

#[test]
fn nobody_polls() {
    let start = Instant::now();
    let mut intake = intake(WireCodec::MuLaw, 8_000);
    for at in 0..1_000 {
        intake.take(start + Duration::from_millis(at * 20), &[0xff; 160]).unwrap();
    }
    assert_eq!(intake.samples.len(), 40_000);
    assert_eq!(intake.dropped(), Duration::from_secs(15));
    assert_eq!(drain(&mut intake).len(), 40_000);
    assert!(intake.samples.capacity() <= KEPT);
}

proptest! {
    #[test]
    fn chunks_do_not_matter(
        rate in prop_oneof![Just(8_000u32), Just(11_025), Just(24_000), Just(48_000), 8_000u32..50_000],
        codec in prop_oneof![Just(WireCodec::MuLaw), Just(WireCodec::Pcm16), Just(WireCodec::Telephone)],
        bytes in proptest::collection::vec(any::<u8>(), 0..4_000),
        cuts in proptest::collection::vec(0usize..600, 1..20),
    ) {
        let now = Instant::now();
        let bytes = &bytes[..bytes.len() / 2 * 2];
        let (mut whole, mut parts) = (intake(codec, rate), intake(codec, rate));
        whole.take(now, bytes).unwrap();
        let (mut rest, mut frames) = (bytes, Vec::new());
        for cut in cuts.iter().cycle() {
            let (payload, later) = rest.split_at((cut * 2).min(rest.len()));
            parts.take(now, payload).unwrap();
            frames.extend(parts.poll());
            rest = later;
            if rest.is_empty() || cuts.iter().all(|&cut| cut == 0) {
                break;
            }
        }
        parts.take(now, rest).unwrap();
        whole.finish();
        parts.finish();
        frames.extend(std::iter::from_fn(|| parts.poll()));
        prop_assert_eq!(frames, std::iter::from_fn(|| whole.poll()).collect::<Vec<_>>());
    }

    #[test]
    fn garbage_never_panics_and_is_bounded(
        codec in prop_oneof![Just(WireCodec::MuLaw), Just(WireCodec::Pcm16), Just(WireCodec::Opus), Just(WireCodec::Telephone)],
        payloads in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), 0u64..50), 0..50),
    ) {
        let mut now = Instant::now();
        let mut intake = intake(codec, 48_000);
        for (payload, wait) in payloads {
            now += Duration::from_millis(wait);
            let _ = intake.take(now, &payload);
            prop_assert!(intake.samples.len() <= 5 * 48_000 + 64);
        }
        intake.finish();
        drain(&mut intake);
    }
}
