use std::sync::Arc;

use serde_json::json;
use streamfleet_handler::{Context, LinkConfig, PcmFormat, Session, TaskEnd, Transport, link};
use streamfleet_session::{Metadata, Verification};

use super::*;

const FORMAT: PcmFormat = PcmFormat { rate: 8_000, channels: 1 };
const AHEAD: Duration = Duration::from_millis(60);

/// A transport that plays when it is told to.
#[derive(Default)]
struct Played {
    queued: Duration,
    refuses: bool,
    flushed: usize,
    cleared: usize,
}

impl Voice for Played {
    fn queued(&self) -> Duration {
        self.queued
    }

    fn push(&mut self, _: Instant, frame: &AudioFrame) -> Taken {
        if self.refuses {
            return Taken::Lost;
        }
        self.queued += frame.duration();
        Taken::Yes
    }

    fn flush(&mut self) {
        self.flushed += 1;
    }

    fn clear(&mut self, _: Instant) {
        self.cleared += 1;
        self.queued = Duration::ZERO;
    }
}

struct World {
    loop_end: LoopEnd,
    task: TaskEnd,
    session: Session,
    feed: Feed,
    voice: Played,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let (loop_end, task) = link(LinkConfig::default(), Arc::new(|| {}));
        let context = Context {
            session_id: "a".parse().unwrap(),
            transport: Transport::WebSocket,
            service: "s".parse().unwrap(),
            user_id: None,
            verified: Verification::Unverified,
            metadata: Metadata::default(),
            claims: serde_json::Map::new(),
            variant: None,
            resumed: false,
            trace_id: None,
        };
        let session = Session::new(context, &task);
        let (feed, voice, now) = (Feed::new(AHEAD), Played::default(), Instant::now());
        Self { loop_end, task, session, feed, voice, now }
    }

    fn emit(&self, emit: Emit) {
        use futures_util::FutureExt as _;
        // It is queued at once, whatever room there is.
        let _ = self.task.send(emit).now_or_never();
    }

    fn say(&self, millis: u64) {
        let samples = vec![1; FORMAT.samples_in(Duration::from_millis(millis))];
        self.emit(Emit::Audio(AudioFrame { samples, format: FORMAT, timestamp: Duration::ZERO }));
    }

    fn next(&mut self) -> Option<Said> {
        self.feed.next(self.now, &self.loop_end, &mut self.voice)
    }

    fn play(&mut self, millis: u64) {
        self.voice.queued = self.voice.queued.saturating_sub(Duration::from_millis(millis));
    }

    fn queued_ms(&self) -> u128 {
        self.voice.queued.as_millis()
    }
}

fn output(n: u64) -> Option<Said> {
    Some(Said::Now(Emit::Output(json!(n))))
}

#[test]
fn audio_is_taken_as_fast_as_it_plays() {
    let mut world = World::new();
    for _ in 0..10 {
        world.say(20);
    }
    assert_eq!((world.next(), world.queued_ms()), (None, 60));
    assert_eq!((world.next(), world.queued_ms()), (None, 60));
    assert_eq!(world.loop_end.queued_audio(), Duration::from_millis(140), "the rest holds its handler back");
    world.play(30);
    assert_eq!((world.next(), world.queued_ms()), (None, 70));
    assert_eq!(world.feed.fed_at(), Some(world.now));
    world.feed.rested();
    assert_eq!(world.feed.fed_at(), None);
}

#[test]
fn outputs_come_after_the_audio_before_them() {
    let mut world = World::new();
    world.say(20);
    world.emit(Emit::Output(json!(1)));
    world.emit(Emit::Output(json!(2)));
    world.say(20);
    world.emit(Emit::Output(json!(3)));
    assert_eq!(world.next(), None);
    // Less than a packet is left: an output need not tear a sentence apart for it.
    world.play(1);
    assert_eq!([world.next(), world.next(), world.next()], [output(1), output(2), None]);
    assert_eq!(world.queued_ms(), 39);
    world.play(20);
    assert_eq!([world.next(), world.next()], [output(3), None]);
    assert_eq!(world.voice.flushed, 0);
}

#[test]
fn the_end_comes_after_the_last_sample_and_nothing_after_it() {
    let mut world = World::new();
    world.say(25);
    world.emit(Emit::EndStream(Some("bye".into())));
    assert_eq!(world.next(), None);
    assert!(world.voice.flushed > 0, "what is too short for a packet is played as well");
    world.play(24);
    assert_eq!(world.next(), None, "a millisecond is left");
    world.play(1);
    assert_eq!(world.next(), Some(Said::End(Some("bye".into()))));
    world.say(20);
    world.emit(Emit::Output(json!(1)));
    assert_eq!((world.next(), world.queued_ms()), (None, 0));
}

#[test]
fn what_is_urgent_waits_for_nothing() {
    let mut world = World::new();
    world.say(60);
    world.emit(Emit::Output(json!(1)));
    assert_eq!(world.next(), None);
    world.session.send_now(Message::Log("now".into())).unwrap();
    assert_eq!(world.next(), Some(Said::Now(Emit::Message(Message::Log("now".into())))));
    assert_eq!(world.next(), None, "and what waited, waits");
    world.play(60);
    assert_eq!(world.next(), output(1));
}

#[test]
fn an_interruption_takes_audio_and_nothing_else() {
    let mut world = World::new();
    world.say(60);
    world.emit(Emit::Output(json!(1)));
    world.say(60);
    assert_eq!((world.next(), world.queued_ms()), (None, 60));
    world.session.clear().unwrap();
    assert_eq!(world.next(), output(1), "there is nothing left to wait for");
    assert_eq!((world.voice.cleared, world.queued_ms()), (1, 0));
    // What is said after it is heard.
    world.say(20);
    world.emit(Emit::EndStream(None));
    assert_eq!((world.next(), world.queued_ms()), (None, 20));
    world.play(20);
    assert_eq!((world.next(), world.voice.cleared), (Some(Said::End(None)), 1));
}

#[test]
fn what_is_lost_is_counted_once() {
    let mut world = World::new();
    world.voice.refuses = true;
    world.say(20);
    world.say(20);
    world.emit(Emit::Output(json!(1)));
    assert_eq!(world.next(), output(1));
    assert_eq!((world.feed.take_dropped(), world.feed.take_dropped(), world.feed.fed_at()), (2, 0, None));
}
