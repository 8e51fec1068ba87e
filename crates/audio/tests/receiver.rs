//! What a track sounds like: every codec, packet length and output format, pauses, and a change of source.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::{Duration, Instant};

use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_audio::tone::Tone;
use streamfleet_audio::{AudioError, AudioReceiver, Codec, DelayBounds, PcmFormat, PulledKind};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn receiver(codec: Codec, output: PcmFormat) -> AudioReceiver {
    AudioReceiver::new(codec, output, DelayBounds::default()).unwrap()
}

/// Takes all steps that are due until then.
fn drain(receiver: &mut AudioReceiver, until: Instant, heard: &mut Vec<i16>) -> Vec<PulledKind> {
    let mut kinds = Vec::new();
    while let Some(due) = receiver.poll_timeout().filter(|&due| due <= until) {
        kinds.push(receiver.pull(due, heard).kind);
    }
    kinds
}

/// A second of a 400 Hz tone in packets of so many milliseconds: RTP ticks and payload of each.
fn tone(codec: Codec, packet_ms: u32) -> Vec<(u32, Vec<u8>)> {
    let rate = if codec == Codec::Opus { 48_000 } else { 8_000 };
    let ticks = rate / 1_000 * packet_ms;
    let mut tone = Tone::new(rate, 400.0, -12.0);
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
    (0..1_000 / packet_ms)
        .map(|_| {
            let mut block = vec![0; ticks as usize];
            tone.fill(&mut block);
            let payload = match codec {
                Codec::Opus => encoder.encode_vec(&block, 4_000).unwrap(),
                Codec::Pcmu => block.iter().map(|&s| streamfleet_audio::g711::encode_mu_law(s)).collect(),
                Codec::Pcma => block.iter().map(|&s| streamfleet_audio::g711::encode_a_law(s)).collect(),
            };
            (ticks, payload)
        })
        .collect()
}

#[test]
fn every_codec_packet_length_and_output_is_heard() {
    fn check(codec: Codec, packet_ms: u32, rate: u32, channels: u16) {
        let format = PcmFormat { rate, channels };
        let mut receiver = receiver(codec, format);
        let start = Instant::now();
        let (mut heard, mut kinds) = (Vec::new(), Vec::new());
        let packets = tone(codec, packet_ms);
        for (n, (ticks, payload)) in packets.iter().enumerate() {
            let now = start + ms(n as u64 * u64::from(packet_ms));
            receiver.insert(now, n as u64, (n as u32 * ticks).wrapping_sub(20_000), payload);
            kinds.extend(drain(&mut receiver, now, &mut heard));
        }
        let last = start + ms((packets.len() as u64 - 1) * u64::from(packet_ms) + 20);
        kinds.extend(drain(&mut receiver, last, &mut heard));
        let case = format!("{codec:?} {packet_ms} ms to {rate} Hz x{channels}");
        assert!(kinds.iter().all(|&kind| kind == PulledKind::Decoded), "{case}: {kinds:?}");
        let whole = format.duration(heard.len()).as_millis();
        assert!((940..=1_000).contains(&whole), "{case}: {whole} ms");
        for channel in 0..usize::from(channels) {
            let one: Vec<i16> = heard.iter().skip(channel).step_by(channels.into()).copied().collect();
            let level = tone_level(&one[one.len() / 10..], rate, 400.0);
            assert!((level + 12.0).abs() < 0.7, "{case}: {level} dBFS");
        }
    }
    for packet_ms in [10, 20, 40, 60] {
        for (rate, channels) in [(8_000, 1), (16_000, 1), (24_000, 2), (44_100, 1), (48_000, 2)] {
            for codec in [Codec::Opus, Codec::Pcmu, Codec::Pcma] {
                check(codec, packet_ms, rate, channels);
            }
        }
    }
}

#[test]
fn duplicates_and_late_packets_are_counted() {
    let mut receiver = receiver(Codec::Pcmu, PcmFormat::mono(8_000));
    let start = Instant::now();
    let mut heard = Vec::new();
    for n in [0u64, 1, 1, 3, 2, 4, 5, 0] {
        let now = start + ms(20 * n);
        drain(&mut receiver, now, &mut heard);
        receiver.insert(now, 100 + n, 160 * n as u32, &[0xff; 160]);
    }
    // 7 is lost, and 6 comes when it has been made up.
    receiver.insert(start + ms(160), 108, 160 * 8, &[0xff; 160]);
    drain(&mut receiver, start + ms(165), &mut heard);
    receiver.insert(start + ms(165), 106, 160 * 6, &[0xff; 160]);
    drain(&mut receiver, start + ms(170), &mut heard);
    receiver.insert(start + ms(170), 109, 160 * 9, &[]);
    let stats = receiver.stats();
    assert_eq!((stats.received, stats.duplicate, stats.late, stats.malformed), (11, 2, 1, 1));
}

#[test]
fn a_sender_in_discontinuous_transmission_is_silent_not_lost() {
    let mut receiver = receiver(Codec::Opus, PcmFormat::mono(24_000));
    let start = Instant::now();
    let packets = tone(Codec::Opus, 20);
    let (mut heard, mut kinds) = (Vec::new(), Vec::new());
    // 200 ms of sound, then one packet without audio every 400 ms, then sound again.
    let times = (0..10).map(|n| 20 * n).chain([200, 600, 1_000]).chain((0..10).map(|n| 1_300 + 20 * n));
    for (n, at) in times.enumerate() {
        let now = start + ms(at);
        kinds.extend(drain(&mut receiver, now, &mut heard));
        let payload = if (200..1_300).contains(&at) { &packets[0].1[..1] } else { &packets[n].1 };
        receiver.insert(now, n as u64, at as u32 * 48, payload);
    }
    kinds.extend(drain(&mut receiver, start + ms(1_500), &mut heard));
    assert!(kinds.iter().filter(|&&kind| kind == PulledKind::Silence).count() >= 45, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|&&kind| kind == PulledKind::Concealed).count(), 0, "{kinds:?}");
    let stats = receiver.stats();
    assert_eq!((stats.lost, stats.late), (0, 0));
    assert!(level_dbfs(&heard[24_000 * 4 / 10..24_000]) < -60.0);
}

#[test]
fn a_pause_costs_nothing_and_sound_comes_back_at_once() {
    let mut receiver = receiver(Codec::Opus, PcmFormat::mono(24_000));
    let start = Instant::now();
    let packets = tone(Codec::Opus, 20);
    let mut heard = Vec::new();
    // After the pause timestamps go on by wall time, or where they stopped: both happen.
    for resumed in [500u32, 10] {
        for n in 0..10u32 {
            receiver.insert(start + ms(u64::from(20 * n)), n.into(), n * 960, &packets[n as usize].1);
            drain(&mut receiver, start + ms(u64::from(20 * n)), &mut heard);
        }
        drain(&mut receiver, start + ms(9_000), &mut heard);
        assert_eq!(receiver.poll_timeout(), None);
        let back = start + ms(10_000);
        receiver.insert(back, 10, resumed * 960, &packets[10].1);
        let due = receiver.poll_timeout().unwrap();
        assert!(due >= back && due <= back + ms(25), "{:?}", due - back);
        receiver = self::receiver(Codec::Opus, PcmFormat::mono(24_000));
    }
}

#[test]
fn another_source_and_a_jump_of_the_clock_are_followed() {
    for reset in [None, Some(())] {
        let mut receiver = receiver(Codec::Opus, PcmFormat::mono(24_000));
        let start = Instant::now();
        let packets = tone(Codec::Opus, 20);
        let (mut heard, mut kinds) = (Vec::new(), Vec::new());
        for n in 0..50u32 {
            let now = start + ms(u64::from(20 * n));
            kinds.extend(drain(&mut receiver, now, &mut heard));
            if n == 25 && reset.is_some() {
                receiver.reset();
            }
            let (index, timestamp) = if n < 25 {
                (n + 60_000, n * 960)
            } else {
                (n + if reset.is_some() { 0 } else { 60_000 }, n * 960 + 3_000_000_000)
            };
            receiver.insert(now, index.into(), timestamp, &packets[n as usize].1);
        }
        kinds.extend(drain(&mut receiver, start + ms(1_000), &mut heard));
        assert_eq!(kinds.len(), 50, "{kinds:?}");
        assert!(kinds.iter().all(|&kind| kind == PulledKind::Decoded), "{kinds:?}");
        assert!((tone_level(&heard[2_400..], 24_000, 400.0) + 12.0).abs() < 0.5);
    }
}

#[test]
fn unusable_outputs_and_bounds_are_refused() {
    fn check(rate: u32, channels: u16, min: u64, max: u64, matches: fn(&AudioError) -> bool) {
        let bounds = DelayBounds { min: ms(min), max: ms(max) };
        assert!(matches(&AudioReceiver::new(Codec::Opus, PcmFormat { rate, channels }, bounds).unwrap_err()));
    }
    check(0, 1, 20, 200, |error| matches!(error, AudioError::UnsupportedFormat(_)));
    check(48_000, 3, 20, 200, |error| matches!(error, AudioError::UnsupportedFormat(_)));
    check(48_000, 1, 200, 20, |error| matches!(error, AudioError::DelayBounds { .. }));
}
