//! The frames path: what a handler hears and what the client hears of it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamfleet_audio::{AudioReceiver, AudioSender, Codec, DelayBounds, analysis};
use streamfleet_handler::{AudioFrame, Emit, Input, Media, PcmFormat};
use streamfleet_session::lifecycle::CloseReason;

use super::hand::Hand;
use super::network::Conditions;
use super::world::World;
use crate::media::shared::{Shared, Stage};

const FORMAT: PcmFormat = PcmFormat::mono(24_000);

/// A session whose handler's end is in the test's hands.
fn call(world: &mut World) -> (usize, Arc<Shared>, Hand) {
    let (endpoint, hand) = world.task(Media::Frames { input: FORMAT, output: FORMAT });
    let (c, shared) = world.call(endpoint, World::limits());
    (c, shared, hand)
}

/// 20 ms Opus packets of a tone.
pub(super) fn tone_packets(hz: f32, seconds: usize) -> Vec<Vec<u8>> {
    let mut sender = AudioSender::new(Codec::Opus).unwrap();
    let format = FORMAT;
    let mut now = std::time::Instant::now();
    let mut packets = vec![];
    for i in 0..seconds * 50 {
        let samples: Vec<i16> = (0..480)
            .map(|s| {
                let t = (i * 480 + s) as f32 / 24_000.0;
                (8_000.0 * (std::f32::consts::TAU * hz * t).sin()) as i16
            })
            .collect();
        sender.push(now, &samples, format).unwrap();
        let mut payload = vec![];
        if sender.poll(now, &mut payload).is_some() {
            packets.push(payload);
        }
        now += Duration::from_millis(20);
    }
    packets
}

/// What the client hears, decoded in order of the RTP timestamps.
fn hear(world: &World, client: usize) -> Vec<i16> {
    let format = PcmFormat::mono(48_000);
    let mut receiver = AudioReceiver::new(Codec::Opus, format, DelayBounds::default()).unwrap();
    let mut now = std::time::Instant::now();
    let mut heard = vec![];
    for (i, (timestamp, payload)) in world.clients[client].payloads.iter().enumerate() {
        receiver.insert(now, i as u64, *timestamp, payload);
        now += Duration::from_millis(20);
        while receiver.poll_timeout().is_some_and(|at| at <= now) {
            receiver.pull(now, &mut heard);
        }
    }
    heard
}

fn echo_frames(world: &mut World, mut end: Hand) -> Arc<Mutex<Vec<i16>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    world.handler = Some(Box::new(move |_| {
        while end.ready() {
            let Some(input) = end.receive() else { break };
            if let Input::Audio(frame) = input {
                sink.lock().extend_from_slice(&frame.samples);
                end.send(Emit::Audio(frame));
            }
        }
    }));
    heard
}

#[test]
fn a_tone_comes_back_as_the_same_tone() {
    let mut world = World::new(1, Conditions::CLEAN);
    let (c, shared, end) = call(&mut world);
    world.clients[c].script = Some(tone_packets(440.0, 10));
    let heard = echo_frames(&mut world, end);
    world.run(Duration::from_secs(6));

    let heard = heard.lock();
    assert!(heard.len() > 24_000 * 5, "{}", heard.len());
    let handler = &heard[24_000..72_000];
    assert!(analysis::tone_level(handler, 24_000, 440.0) > analysis::level_dbfs(handler) - 1.0);
    let back = hear(&world, c);
    let second = &back[96_000..144_000];
    let level = analysis::level_dbfs(second);
    // 8 000 of 32 768 as a sine is -15.3 dBFS.
    assert!((-17.0..-14.0).contains(&level), "{level}");
    assert!(analysis::tone_level(second, 48_000, 440.0) > level - 1.0, "the energy is the tone's");
    // One packet every 20 ms, at even timestamps.
    let stamps: Vec<u32> = world.clients[c].payloads.iter().map(|p| p.0).collect();
    assert!(stamps.windows(2).all(|w| w[1].wrapping_sub(w[0]) == 960), "{stamps:?}");
    let playout = shared.quality().playout.expect("figures of the jitter buffer");
    assert_eq!(playout.concealed, 0);
}

#[test]
fn silence_costs_nothing() {
    let mut world = World::new(2, Conditions::CLEAN);
    let (c, _, _end) = call(&mut world);
    world.clients[c].script = Some(tone_packets(440.0, 2));
    world.run(Duration::from_secs(3));
    // A handler that says nothing: nothing is sent.
    assert!(world.clients[c].payloads.is_empty());
}

#[test]
fn everything_before_the_end_is_played() {
    let mut world = World::new(3, Conditions::CLEAN);
    let (c, shared, mut end) = call(&mut world);
    world.run(Duration::from_secs(1));
    // Two seconds of tone at once and the end behind it, while the queue lets a handler be 400 ms ahead.
    let mut left: Vec<Emit> = (0..100)
        .map(|i| {
            let samples = (0..480)
                .map(|s| (8_000.0 * (std::f32::consts::TAU * 440.0 * (i * 480 + s) as f32 / 24_000.0).sin()) as i16)
                .collect();
            Emit::Audio(AudioFrame { samples, format: FORMAT, timestamp: Duration::ZERO })
        })
        .chain([Emit::EndStream(Some("bye".to_owned()))])
        .rev()
        .collect();
    world.handler = Some(Box::new(move |_| {
        while end.ready() {
            let Some(emit) = left.pop() else { break };
            end.send(emit);
        }
    }));
    world.run(Duration::from_secs(4));
    assert_eq!(shared.stage(), Stage::Closed(CloseReason::EndStream));
    let client = &world.clients[c];
    // Two seconds, and one packet more for what the encoder still holds.
    assert!((100..=101).contains(&client.payloads.len()), "{}", client.payloads.len());
    assert!(client.messages.iter().any(|m| m == r#"{"type":"end_stream","data":"bye"}"#), "{:?}", client.messages);
}
