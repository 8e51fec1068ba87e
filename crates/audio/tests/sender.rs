//! Pacing, timestamps, and changes of the encoder's mode, as a receiver sees them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and their figures are printed"
)]

use std::time::{Duration, Instant};

use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_audio::policy::Coder;
use streamfleet_audio::tone::{Tone, Voice};
use streamfleet_audio::{AudioError, AudioSender, Codec, PacketInfo, PcmFormat};

const PACKET: Duration = Duration::from_millis(20);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Polls whatever is due until `until`; gives when each packet came and what it was.
fn drain(sender: &mut AudioSender, until: Instant) -> Vec<(Instant, PacketInfo, Vec<u8>)> {
    let mut packets = Vec::new();
    while let Some(due) = sender.poll_timeout().filter(|&due| due <= until) {
        let mut payload = Vec::new();
        let info = sender.poll(due, &mut payload).unwrap();
        packets.push((due, info, payload));
    }
    packets
}

#[test]
fn a_long_frame_leaves_in_packets_of_twenty_milliseconds() {
    for (codec, ticks) in [(Codec::Opus, 960), (Codec::Pcmu, 160), (Codec::Pcma, 160)] {
        for rate in [8_000, 16_000, 22_050, 44_100, 48_000] {
            let start = Instant::now();
            let mut sender = AudioSender::new(codec).unwrap();
            let mut voice = vec![0; rate as usize * 2];
            Voice::new(rate, 1).fill(&mut voice[..rate as usize]);
            sender.push(start, &voice, PcmFormat { rate, channels: 2 }).unwrap();
            assert!(sender.queued() <= ms(1_000) && sender.queued() > ms(990));
            sender.flush();
            let packets = drain(&mut sender, start + ms(5_000));
            assert!((50..=51).contains(&packets.len()), "{codec:?} {rate}: {}", packets.len());
            for (n, (at, info, payload)) in packets.iter().enumerate() {
                assert_eq!(*at, start + PACKET * n as u32);
                let expected = PacketInfo { timestamp: n as u32 * ticks, marker: n == 0, duration: PACKET };
                assert_eq!(*info, expected);
                assert!(!payload.is_empty());
                if codec != Codec::Opus {
                    assert_eq!(payload.len(), 160);
                }
            }
            assert_eq!((sender.queued(), sender.poll_timeout()), (Duration::ZERO, None));
        }
    }
}

#[test]
fn pauses_are_in_the_timestamps() {
    fn check(pause: Duration, expected: (u32, bool)) {
        let start = Instant::now();
        let mut sender = AudioSender::new(Codec::Opus).unwrap();
        let mut payload = Vec::new();
        sender.push(start, &[100; 480], PcmFormat::mono(24_000)).unwrap();
        sender.poll(start, &mut payload).unwrap();
        // The next packet would be on time at 20 ms.
        let late = start + PACKET + pause;
        sender.push(late, &[100; 480], PcmFormat::mono(24_000)).unwrap();
        let info = sender.poll(late, &mut payload).unwrap();
        assert_eq!((info.timestamp, info.marker), expected, "{pause:?}");
    }
    check(Duration::ZERO, (960, false));
    check(ms(60), (960, false));
    check(ms(61), (960 + 61 * 48, true));
    check(ms(10_000), (960 + 480_000, true));
}

#[test]
fn lateness_within_a_talk_spurt_is_caught_up() {
    let start = Instant::now();
    let mut sender = AudioSender::new(Codec::Opus).unwrap();
    let mut due = Vec::new();
    for n in 0..20u64 {
        // The handler gives 20 ms every 20 ms, once 30 ms late.
        let at = start + ms(20 * n + if n == 10 { 30 } else { 0 });
        let at = due.last().map_or(at, |&(last, _): &(Instant, bool)| at.max(last));
        sender.push(at, &[100; 480], PcmFormat::mono(24_000)).unwrap();
        due.extend(drain(&mut sender, at).into_iter().map(|(due, info, _)| (due.max(at), info.marker)));
    }
    assert_eq!(due.len(), 20);
    assert!(due[1..].iter().all(|&(_, marker)| !marker));
    assert_eq!(due[19].0, start + ms(380));
}

#[test]
fn an_interruption_forgets_what_waits_and_keeps_the_pace() {
    let start = Instant::now();
    let mut sender = AudioSender::new(Codec::Opus).unwrap();
    sender.push(start, &vec![100; 24_000], PcmFormat::mono(24_000)).unwrap();
    assert_eq!(drain(&mut sender, start + ms(100)).len(), 6);
    sender.clear();
    assert_eq!((sender.queued(), sender.poll_timeout()), (PACKET, Some(start + ms(120))));
    sender.push(start + ms(105), &[100; 960], PcmFormat::mono(24_000)).unwrap();
    let packets = drain(&mut sender, start + ms(200));
    assert_eq!(packets.iter().map(|(at, ..)| *at - start).collect::<Vec<_>>(), [ms(120), ms(140), ms(160)]);
    assert!(!packets[0].1.marker);
}

#[test]
fn silence_costs_nothing_and_a_flush_of_nothing_sends_nothing() {
    let start = Instant::now();
    let mut sender = AudioSender::new(Codec::Opus).unwrap();
    sender.flush();
    assert_eq!(sender.poll_timeout(), None);
    sender.push(start, &[1; 240], PcmFormat::mono(24_000)).unwrap();
    assert_eq!(sender.poll_timeout(), None, "half a packet waits for its other half");
    sender.flush();
    assert_eq!(drain(&mut sender, start + ms(1_000)).len(), 1);
    sender.clear();
    sender.flush();
    assert_eq!(drain(&mut sender, start + ms(1_000)).len(), 0);
}

#[test]
fn the_last_sound_is_heard_in_full() {
    let start = Instant::now();
    let format = PcmFormat::mono(24_000);
    let mut sender = AudioSender::new(Codec::Opus).unwrap();
    let mut samples = vec![0; 2_400];
    Tone::new(24_000, 1_000.0, -12.0).fill(&mut samples[2_160..]);
    sender.push(start, &samples, format).unwrap();
    sender.flush();
    let heard = decode(24_000, drain(&mut sender, start + ms(1_000)).into_iter().map(|(_, _, payload)| payload));
    let energy: f64 = heard.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    let expected: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    assert!(energy > 0.7 * expected, "{energy} of {expected}");
}

#[test]
fn bad_frames_are_refused_whole() {
    fn check(samples: usize, rate: u32, channels: u16, matches: fn(&AudioError) -> bool) {
        let mut sender = AudioSender::new(Codec::Opus).unwrap();
        let result = sender.push(Instant::now(), &vec![0; samples], PcmFormat { rate, channels });
        assert!(matches(&result.unwrap_err()));
        assert_eq!(sender.queued(), Duration::ZERO);
    }
    check(480, 0, 1, |error| matches!(error, AudioError::UnsupportedFormat(_)));
    check(480, 1_000_000, 1, |error| matches!(error, AudioError::UnsupportedFormat(_)));
    check(480, 48_000, 0, |error| matches!(error, AudioError::UnsupportedFormat(_)));
    check(480, 48_000, 9, |error| matches!(error, AudioError::UnsupportedFormat(_)));
    check(481, 48_000, 2, |error| matches!(error, AudioError::RaggedFrame { .. }));
    check(8_000 * 61, 8_000, 1, |error| matches!(error, AudioError::QueueFull { .. }));
}

#[test]
fn a_handler_may_change_its_rate() {
    let start = Instant::now();
    let mut sender = AudioSender::new(Codec::Opus).unwrap();
    let mut payloads = Vec::new();
    for (n, rate) in [24_000u32, 24_000, 16_000, 44_100, 8_000, 48_000, 48_000].into_iter().enumerate() {
        let at = start + ms(200 * n as u64);
        let mut samples = vec![0; rate as usize / 5];
        Tone::new(rate, 500.0, -12.0).fill(&mut samples);
        sender.push(at, &samples, PcmFormat::mono(rate)).unwrap();
        payloads.extend(drain(&mut sender, at + ms(199)).into_iter().map(|(_, _, payload)| payload));
    }
    assert!(payloads.len() >= 68, "{}", payloads.len());
    let heard = decode(48_000, payloads);
    // A change of rate may leave a seam, but the tone goes on at its frequency and level.
    let windows = heard.chunks_exact(48_000 / 20);
    let wrong = windows.filter(|window| (tone_level(window, 48_000, 500.0) + 12.0).abs() > 1.5).count();
    assert!(wrong <= 8, "{wrong} of {} windows", heard.len() / 2_400);
}

fn decode(rate: u32, payloads: impl IntoIterator<Item = Vec<u8>>) -> Vec<i16> {
    let mut decoder = opus::Decoder::new(rate, opus::Channels::Mono).unwrap();
    let mut heard = Vec::new();
    for payload in payloads {
        let mut block = vec![0; rate as usize / 50];
        let length = decoder.decode(&payload, &mut block, false).unwrap();
        heard.extend_from_slice(&block[..length]);
    }
    heard
}

/// A tone is sent while the receiver reports loss for a while. Both changes of coder happen, and neither clicks: what is
/// not the tone stays as quiet as it is within either coder.
#[test]
fn a_change_of_mode_does_not_click() {
    for rate in [16_000, 24_000, 48_000] {
        let start = Instant::now();
        let mut sender = AudioSender::new(Codec::Opus).unwrap();
        let mut tone = Tone::new(rate, 400.0, -15.0);
        let mut block = vec![0; rate as usize / 50];
        let (mut payloads, mut coders) = (Vec::new(), Vec::new());
        for n in 0..2_500u32 {
            let now = start + PACKET * n;
            if n % 50 == 49 {
                sender.report(now, if (500..700).contains(&n) { 0.10 } else { 0.0 });
            }
            tone.fill(&mut block);
            sender.push(now, &block, PcmFormat::mono(rate)).unwrap();
            let mut payload = Vec::new();
            sender.poll(now, &mut payload).unwrap();
            // RFC 6716, table 2: configurations from 16 on are CELT.
            let coder = if payload[0] >> 3 >= 16 { Coder::Transform } else { Coder::Speech };
            // The packet of a change to CELT is still SILK with a transition frame in it.
            coders.push(coder);
            payloads.push(payload);
        }
        assert_eq!(coders[100], Coder::Transform);
        assert_eq!(coders[1_000], Coder::Speech);
        assert_eq!(coders[2_499], Coder::Transform);
        let changes: Vec<usize> = (1..coders.len()).filter(|&n| coders[n] != coders[n - 1]).collect();
        assert_eq!(changes.len(), 2, "{changes:?}");

        let heard = decode(rate, payloads);
        for change in changes {
            let (tone, rest) = around(&heard, rate, change);
            println!("{rate} Hz, change of coder: tone at {tone:.1} dBFS, all else at most {rest:.1} dBFS");
            assert!((tone + 15.0).abs() < 1.5, "{tone}");
            assert!(rest < -33.0, "{rest}");
        }
    }
}

/// What the single encoder is for: a second one, taken at once, is heard as a break.
#[test]
fn a_change_of_encoder_would_click() {
    let mut tone = Tone::new(24_000, 400.0, -15.0);
    let mut encoders = [opus::Application::LowDelay, opus::Application::Voip]
        .map(|application| opus::Encoder::new(24_000, opus::Channels::Mono, application).unwrap());
    let payloads: Vec<Vec<u8>> = (0..200)
        .map(|n| {
            let mut block = [0; 480];
            tone.fill(&mut block);
            encoders[n / 100].encode_vec(&block, 1_276).unwrap()
        })
        .collect();
    let (_, rest) = around(&decode(24_000, payloads), 24_000, 100);
    println!("24 kHz, change of encoder: all else at {rest:.1} dBFS");
    assert!(rest > -33.0, "{rest}");
}

/// Level of the 400 Hz tone that is furthest from -15 dBFS, and highest level of all else, in windows of 40 ms around a
/// packet.
fn around(heard: &[i16], rate: u32, packet: usize) -> (f32, f32) {
    let size = rate as usize / 50;
    let (mut level, mut rest) = (-15.0f32, f32::MIN);
    for packet in packet - 2..=packet + 3 {
        let window = &heard[(packet - 1) * size..(packet + 1) * size];
        let tone = tone_level(window, rate, 400.0);
        if (tone + 15.0).abs() > (level + 15.0).abs() {
            level = tone;
        }
        rest = rest.max(residue(window, rate, 400.0));
    }
    (level, rest)
}

/// Level of what is left when the best-fitting sine is taken away.
fn residue(samples: &[i16], rate: u32, hz: f64) -> f32 {
    let (mut cc, mut ss, mut cs, mut cx, mut sx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let at = |position: usize| (std::f64::consts::TAU * hz * position as f64 / f64::from(rate)).sin_cos();
    for (position, &sample) in samples.iter().enumerate() {
        let ((s, c), x) = (at(position), f64::from(sample));
        cc += c * c;
        ss += s * s;
        cs += c * s;
        cx += c * x;
        sx += s * x;
    }
    let determinant = cc * ss - cs * cs;
    let (a, b) = ((cx * ss - sx * cs) / determinant, (sx * cc - cx * cs) / determinant);
    let rest: Vec<i16> = samples
        .iter()
        .enumerate()
        .map(|(position, &sample)| {
            let (s, c) = at(position);
            (f64::from(sample) - a * c - b * s).round() as i16
        })
        .collect();
    level_dbfs(&rest)
}

/// After an interruption the receiver comes to rest, and the next reply has nothing of the last one in it.
#[test]
fn an_interrupted_sound_ends_in_silence() {
    for rate in [8_000, 24_000, 48_000] {
        let start = Instant::now();
        let mut sender = AudioSender::new(Codec::Opus).unwrap().discontinuous();
        let mut tone = vec![0; rate as usize];
        Tone::new(rate, 440.0, -15.0).fill(&mut tone);
        sender.push(start, &tone, PcmFormat::mono(rate)).unwrap();
        let mut packets = drain(&mut sender, start + ms(500));
        sender.clear();
        let silence = drain(&mut sender, start + ms(2_000));
        assert_eq!(silence.len(), 1);
        assert_eq!(silence[0].0, packets.last().unwrap().0 + PACKET, "in its place");
        packets.extend(silence);
        // The next reply begins softly.
        sender.push(start + ms(2_000), &vec![0; rate as usize / 25], PcmFormat::mono(rate)).unwrap();
        packets.extend(drain(&mut sender, start + ms(2_100)));
        // All of it has been sent: there is nothing to end.
        sender.flush();
        drain(&mut sender, start + ms(2_200));
        sender.clear();
        assert_eq!((sender.queued(), sender.poll_timeout()), (Duration::ZERO, None));

        let heard = decode(48_000, packets.into_iter().map(|(_, _, payload)| payload));
        let block = |n: usize| &heard[n * 960..][..960];
        assert!(level_dbfs(block(25)) > -17.0, "{rate} Hz: the sound itself");
        assert!(level_dbfs(&block(26)[480..]) < -45.0, "{rate} Hz: {} dB", level_dbfs(&block(26)[480..]));
        assert!(level_dbfs(block(27)) < -50.0, "{rate} Hz: {} dB of it before the next reply", level_dbfs(block(27)));
    }
}
