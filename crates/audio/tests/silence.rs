//! What silence costs: a client that says nothing, in each of the ways in which clients say nothing, is echoed by a
//! sender in discontinuous transmission.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and their figures are printed"
)]

use std::time::{Duration, Instant};

use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_audio::g711::{encode_a_law, encode_mu_law};
use streamfleet_audio::tone::{Tone, Voice};
use streamfleet_audio::{AudioReceiver, AudioSender, Codec, DelayBounds, PacketInfo, PcmFormat};

const RATE: u32 = 24_000;
const PACKET: Duration = Duration::from_millis(20);

/// The packets of a client, one per 20 ms, where it sends one.
type Script = Vec<Option<Vec<u8>>>;

struct Sent {
    at: Duration,
    info: PacketInfo,
    payload: Vec<u8>,
}

/// Echoes a client's packets; gives what comes back, and how often the pair asked to be called.
fn echo(codec: Codec, script: &Script, mut sender: AudioSender) -> (Vec<Sent>, usize) {
    let start = Instant::now();
    let format = PcmFormat::mono(RATE);
    let mut receiver = AudioReceiver::new(codec, format, DelayBounds::default()).unwrap();
    let (mut sent, mut calls, mut index, mut pcm) = (Vec::new(), 0, 0, Vec::new());
    for (n, packet) in (0u32..).zip(script) {
        let now = start + PACKET * n;
        if let Some(payload) = packet {
            receiver.insert(now, index, n * codec.clock_rate() / 50, payload);
            index += 1;
        }
        loop {
            let until = now + PACKET;
            let play = receiver.poll_timeout().filter(|&due| due < until);
            let send = sender.poll_timeout().filter(|&due| due < until);
            let Some(due) = [play, send].into_iter().flatten().min() else { break };
            calls += 1;
            if play == Some(due) {
                pcm.clear();
                receiver.pull(due, &mut pcm);
                sender.push(due, &pcm, format).unwrap();
            }
            let mut payload = Vec::new();
            while let Some(info) = sender.poll(due, &mut payload) {
                sent.push(Sent { at: due - start, info, payload: payload.clone() });
            }
        }
    }
    (sent, calls)
}

/// What a browser's encoder makes of a second of speech and then of nothing: a muted track.
fn muted(seconds: usize, prepare: impl FnOnce(&mut opus::Encoder)) -> Script {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    prepare(&mut encoder);
    let mut voice = Voice::new(48_000, 1);
    (0..seconds * 50)
        .map(|n| {
            let mut block = [0; 960];
            if n < 50 {
                voice.fill(&mut block);
            }
            let packet = encoder.encode_vec(&block, 1_276).unwrap();
            // In discontinuous transmission the encoder gives packets without audio, of which one in twenty is sent.
            (packet.len() > 2 || n % 20 == 0).then_some(packet)
        })
        .collect()
}

#[test]
fn a_silent_client_costs_no_encoding_and_next_to_no_packets() {
    const SECONDS: usize = 11;
    /// From here on there is nothing but silence: a second of speech, what the network's buffer holds, the hangover.
    const QUIET: Duration = Duration::from_secs(2);
    fn check(name: &str, codec: Codec, script: &Script, most: usize, most_calls: usize) {
        let (sent, calls) = echo(codec, script, AudioSender::new(codec).unwrap().discontinuous());
        let speech = sent.iter().filter(|packet| packet.at < QUIET && packet.payload.len() > 2).count();
        let quiet: Vec<&Sent> = sent.iter().filter(|packet| packet.at >= QUIET).collect();
        println!("{name}: {speech} packets of speech, {} in 9 s of silence, {calls} calls", quiet.len());
        assert!((50..=75).contains(&speech), "{name}: {speech} packets of speech");
        assert!(quiet.iter().all(|packet| packet.payload.len() == 1), "{name}: silence was encoded");
        assert!(quiet.len() <= most, "{name}: {} packets in 9 s of silence", quiet.len());
        assert!(calls <= most_calls, "{name}: {calls} calls");
    }
    // One packet of one octet every 400 ms.
    let comfort = 9_000 / 400 + 1;
    let always = 2 * SECONDS * 50 + 50;
    check("muted", Codec::Opus, &muted(SECONDS, |_| ()), comfort, always);
    let redundant = |encoder: &mut opus::Encoder| {
        encoder.set_inband_fec(true).unwrap();
        encoder.set_packet_loss_perc(20).unwrap();
        encoder.set_bitrate(opus::Bitrate::Bits(24_000)).unwrap();
    };
    check("muted, with redundancy", Codec::Opus, &muted(SECONDS, redundant), comfort, always);
    let dtx = |encoder: &mut opus::Encoder| encoder.set_dtx(true).unwrap();
    check("muted, in discontinuous transmission", Codec::Opus, &muted(SECONDS, dtx), comfort, always);
    // A client that sends nothing at all is not even asked for.
    let mut gone = muted(SECONDS, |_| ());
    gone[50..].fill(None);
    check("gone quiet", Codec::Opus, &gone, 0, 150);
    let mut voice = Voice::new(8_000, 1);
    for (codec, law) in [(Codec::Pcmu, encode_mu_law as fn(i16) -> u8), (Codec::Pcma, encode_a_law)] {
        let script: Script = (0..SECONDS * 50)
            .map(|n| {
                let mut block = [0; 160];
                if n < 50 {
                    voice.fill(&mut block);
                }
                Some(block.into_iter().map(law).collect())
            })
            .collect();
        check(codec.name(), codec, &script, 0, always);
    }
}

/// Two seconds of a tone, four of silence, two of the tone.
fn tone_again() -> (Vec<Sent>, Vec<i16>) {
    let start = Instant::now();
    let format = PcmFormat::mono(RATE);
    let mut sender = AudioSender::new(Codec::Opus).unwrap().discontinuous();
    let mut tone = Tone::new(RATE, 400.0, -15.0);
    let (mut sent, mut said) = (Vec::new(), Vec::new());
    for n in 0..400u32 {
        let now = start + PACKET * n;
        let mut block = [0; RATE as usize / 50];
        if !(100..300).contains(&n) {
            tone.fill(&mut block);
        }
        said.extend_from_slice(&block);
        sender.push(now, &block, format).unwrap();
        let mut payload = Vec::new();
        if let Some(info) = sender.poll(now, &mut payload) {
            sent.push(Sent { at: now - start, info, payload });
        }
    }
    (sent, said)
}

#[test]
fn a_pause_is_a_gap_in_the_timestamps_and_ends_with_a_marker() {
    let (sent, _) = tone_again();
    for Sent { at, info, .. } in &sent {
        assert_eq!(Duration::from_micros(u64::from(info.timestamp) * 1_000 / 48), *at);
        assert_eq!(info.duration, PACKET);
    }
    let markers: Vec<u128> =
        sent.iter().filter(|packet| packet.info.marker).map(|packet| packet.at.as_millis()).collect();
    assert_eq!(markers, [0, 6_000]);
    // 200 ms of silence are encoded; then there is one packet every 400 ms, from 2.2 s to 5.8 s.
    let pauses: Vec<u128> =
        sent.iter().filter(|packet| packet.payload.len() == 1).map(|packet| packet.at.as_millis()).collect();
    assert_eq!(pauses, (0..10).map(|n| 2_200 + 400 * n).collect::<Vec<_>>());
    assert_eq!(sent.len(), 100 + 10 + 10 + 100);
}

#[test]
fn a_receiver_hears_the_pause_as_a_pause_and_all_of_the_sound_after_it() {
    let (sent, said) = tone_again();
    let start = Instant::now();
    let mut receiver = AudioReceiver::new(Codec::Opus, PcmFormat::mono(RATE), DelayBounds::default()).unwrap();
    let mut heard = Vec::new();
    for (index, packet) in (0u64..).zip(&sent) {
        let now = start + packet.at;
        while let Some(due) = receiver.poll_timeout().filter(|&due| due < now) {
            receiver.pull(due, &mut heard);
        }
        receiver.insert(now, index, packet.info.timestamp, &packet.payload);
    }
    let last = start + sent.last().unwrap().at + PACKET;
    while let Some(due) = receiver.poll_timeout().filter(|&due| due < last) {
        receiver.pull(due, &mut heard);
    }
    let stats = receiver.stats();
    assert_eq!((stats.lost, stats.late, stats.concealed), (0, 0, 0), "{stats:?}");
    assert!(heard.len().abs_diff(said.len()) <= RATE as usize / 20, "{} of {}", heard.len(), said.len());
    let second = RATE as usize;
    assert!(level_dbfs(&heard[5 * second / 2..5 * second]) < -80.0);
    // Where the tone comes back, within the decoder's delay, it has its level at once.
    let onset = 5 * second + heard[5 * second..].iter().position(|sample| sample.unsigned_abs() > 1_000).unwrap();
    let expected = 6 * second;
    assert!(onset.abs_diff(expected) <= second / 20, "{onset}");
    let first = &heard[onset..onset + second / 10];
    assert!((tone_level(first, RATE, 400.0) + 15.0).abs() < 1.5, "{}", tone_level(first, RATE, 400.0));
}

#[test]
fn another_sender_sends_silence_like_sound() {
    let (sent, _) = echo(Codec::Opus, &muted(3, |_| ()), AudioSender::new(Codec::Opus).unwrap());
    assert!(sent.len() >= 145 && sent.iter().all(|packet| packet.payload.len() > 1), "{}", sent.len());
}
