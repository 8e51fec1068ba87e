//! What a client hears when its handler is interrupted, ends, or closes a track: counted in samples, which G.711 keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_audio::g711;
use streamfleet_handler::{AudioFrame, Emit, Input, Media, PcmFormat};
use streamfleet_session::lifecycle::CloseReason;

use super::client::Offering;
use super::hand::Hand;
use super::network::Conditions;
use super::world::World;
use crate::media::shared::{Shared, Stage};

const MS: Duration = Duration::from_millis(1);
/// What an interruption may take, from the call to the client's ear.
const TAKES_EFFECT: Duration = Duration::from_millis(60);
/// The levels of two replies.
const OLD: i16 = 8_000;
const NEW: i16 = -4_000;

fn call(world: &mut World, rate: u32) -> (usize, Arc<Shared>, Hand) {
    let format = PcmFormat::mono(rate);
    let (endpoint, hand) = world.task(Media::Frames { input: format, output: format });
    // As long as a service gives an end: what ends sooner does so by itself.
    let limits = streamfleet_session::Limits::default().life();
    let (c, shared) = world.call_offering(Offering::ListeningPcmu, endpoint, limits);
    world.run(Duration::from_secs(1));
    assert_eq!(shared.stage(), Stage::Active);
    (c, shared, hand)
}

fn audio(level: i16, samples: usize, rate: u32) -> Emit {
    let format = PcmFormat::mono(rate);
    Emit::Audio(AudioFrame { samples: vec![level; samples], format, timestamp: Duration::ZERO })
}

/// Every sample that the client heard, and when it played: with its packet, which came when it was needed.
fn heard(world: &World, client: usize) -> Vec<(Instant, i16)> {
    let client = &world.clients[client];
    let packets = client.payloads.iter().zip(&client.heard_at);
    packets
        .flat_map(|((_, payload), at)| {
            let sample = |(i, byte): (usize, &u8)| {
                (*at + Duration::from_micros(125) * i as u32, g711::MU_LAW[usize::from(*byte)])
            };
            payload.iter().enumerate().map(sample)
        })
        .collect()
}

/// How many of the samples are of this level, to half of it.
fn count(heard: &[(Instant, i16)], level: i16) -> usize {
    heard.iter().filter(|(_, s)| (i32::from(*s) * i32::from(level)).signum() == 1 && s.abs() > level.abs() / 2).count()
}

#[test]
fn an_interruption_is_heard_within_sixty_milliseconds_and_costs_the_next_reply_nothing() {
    // Whatever the phase between the call and the packets, and however much is queued on the way.
    for phase in 0..24 {
        let mut world = World::new(phase, Conditions::CLEAN);
        let (c, shared, mut hand) = call(&mut world, 8_000);
        for _ in 0..100 {
            while hand.ready() {
                hand.send(audio(OLD, 130, 8_000));
            }
            world.run(5 * MS);
        }
        world.run(phase as u32 * MS);
        let at = world.now;
        hand.withdraw();
        hand.send(Emit::Clear);
        hand.send(audio(NEW, 1_234, 8_000));
        hand.send(Emit::EndStream(None));
        world.run(Duration::from_secs(2));
        let heard = heard(&world, c);
        let last = heard.iter().filter(|(_, s)| *s > OLD / 2).map(|(at, _)| *at).max().unwrap();
        assert!(last <= at + TAKES_EFFECT, "phase {phase}: {:?} too long", last - at);
        let first = heard.iter().find(|(_, s)| *s < NEW / 2).unwrap().0;
        assert!(first <= at + TAKES_EFFECT + 10 * MS, "phase {phase}: the reply begins after {:?}", first - at);
        assert_eq!(count(&heard, NEW), 1_234, "phase {phase}");
        assert_eq!(shared.stage(), Stage::Closed(CloseReason::EndStream));
    }
}

#[test]
fn what_is_said_before_the_end_is_heard_to_its_last_sample() {
    // Less than a packet, and what none of the lengths on the way divides.
    for rate in [8_000, 16_000, 24_000, 44_100, 48_000] {
        for samples in [1, rate as usize / 70, rate as usize / 3 + 7] {
            let mut world = World::new(1, Conditions::CLEAN);
            let (c, shared, mut hand) = call(&mut world, rate);
            let before = world.clients[c].messages.len();
            let said = audio(OLD, samples.max(rate as usize / 1_000), rate);
            hand.send(Emit::All(vec![said, Emit::EndStream(Some("bye".to_owned()))]));
            let expected = samples.max(rate as usize / 1_000) * 8_000 / rate as usize;
            let plays = Duration::from_secs_f64(expected as f64 / 8_000.0) + 30 * MS;
            world.run(plays + Duration::from_secs(1));
            let heard = heard(&world, c);
            // The edges of a resampler are where they cross half the level.
            let off = count(&heard, OLD).abs_diff(expected);
            assert!(off <= if rate == 8_000 { 0 } else { 1 }, "{rate} Hz, {samples}: off by {off} of {expected}");
            assert_eq!(shared.stage(), Stage::Closed(CloseReason::EndStream));
            assert_eq!(world.clients[c].messages[before..], [r#"{"type":"end_stream","data":"bye"}"#]);
        }
    }
}

#[test]
fn the_end_comes_within_a_second_of_the_last_sample_whatever_the_client_does() {
    // It does nothing, or has gone.
    for alive in [true, false] {
        let mut world = World::new(2, Conditions::CLEAN);
        let (c, shared, mut hand) = call(&mut world, 24_000);
        world.clients[c].mute = true;
        world.clients[c].alive = alive;
        hand.send(audio(OLD, 7_200, 24_000));
        hand.send(Emit::EndStream(None));
        world.run(Duration::from_millis(290));
        assert_eq!(shared.stage(), Stage::Active, "it still plays");
        world.run(Duration::from_millis(1_010));
        assert_eq!(shared.stage(), Stage::Closed(CloseReason::EndStream), "alive: {alive}");
        assert_eq!(world.shard.table_sizes(), [0; 5]);
    }
}

#[test]
fn a_closed_track_leaves_the_rest() {
    let mut world = World::new(3, Conditions::CLEAN);
    let (endpoint, mut hand) = world.task(Media::Packets);
    let (c, shared) = world.call_offering(Offering::Vp8, endpoint, World::limits());
    let closes = std::rc::Rc::new(std::cell::Cell::new(None));
    let close = closes.clone();
    world.handler = Some(Box::new(move |_| {
        while hand.ready() {
            let emit = match close.take() {
                Some(mid) => Emit::CloseTrack(mid),
                None => match hand.receive() {
                    Some(Input::Packet(packet)) => Emit::Packet(packet),
                    Some(_) => continue,
                    None => break,
                },
            };
            hand.send(emit);
        }
    }));
    world.run(Duration::from_secs(3));
    let tracks = shared.quality().tracks;
    let sound = tracks.iter().find(|track| track.kind == "audio").unwrap().mid.clone();
    let seen = |world: &World| (world.clients[c].echoes.len(), world.clients[c].pictures.len());
    let (sounds, pictures) = seen(&world);
    assert!(sounds > 100 && pictures > 50, "{sounds} {pictures}");
    closes.set(Some(sound.clone()));
    world.run(100 * MS);
    let (sounds, pictures) = seen(&world);
    // Longer than a client without media is waited for.
    world.run(Duration::from_secs(40));
    let (later, pictures_later) = seen(&world);
    assert_eq!(later, sounds, "nothing is sent on it");
    assert!(pictures_later > pictures + 950, "{pictures_later} after {pictures}");
    assert_eq!(shared.stage(), Stage::Active);
    let closed: Vec<(String, bool)> =
        shared.quality().tracks.into_iter().map(|track| (track.mid, track.closed)).collect();
    assert!(closed.iter().all(|(mid, closed)| *closed == (*mid == sound)), "{closed:?}");
}
