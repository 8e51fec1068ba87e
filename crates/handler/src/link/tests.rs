use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::context;
use crate::{AudioFrame, CodecName, EncodedPacket, Message, PcmFormat, Session, TrackKind};

/// A link that counts its wakes.
struct Pair {
    media: LoopEnd,
    task: TaskEnd,
    wakes: Arc<AtomicUsize>,
}

fn pair(config: LinkConfig) -> Pair {
    let wakes = Arc::new(AtomicUsize::new(0));
    let count = wakes.clone();
    let wake = move || {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let (media, task) = link(config, Arc::new(wake));
    Pair { media, task, wakes }
}

impl Pair {
    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }

    /// Sends without waiting: whether there was room left behind it.
    fn send(&self, emit: Emit) -> Result<bool, Closed> {
        self.task.send(emit).now_or_never().map_or(Ok(false), |sent| sent.map(|()| true))
    }

    fn pop_all(&self) -> Vec<Emit> {
        std::iter::from_fn(|| self.media.pop()).collect()
    }
}

/// `millis` of sound, told apart by its timestamp.
fn sound(number: u64, millis: usize) -> AudioFrame {
    let timestamp = Duration::from_millis(number);
    AudioFrame { samples: vec![number as i16; 24 * millis], format: PcmFormat::mono(24_000), timestamp }
}

fn audio_in(number: u64) -> Input {
    Input::Audio(sound(number, 20))
}

fn audio_out(number: u64) -> Emit {
    Emit::Audio(sound(number, 20))
}

fn packet(kind: TrackKind, index: u64) -> EncodedPacket {
    let codec = if kind == TrackKind::Audio { CodecName::Opus } else { CodecName::Vp8 };
    // One Opus frame of 20 ms.
    EncodedPacket { kind, codec, index, timestamp: 0, marker: false, payload: Bytes::from_static(&[0x78, 0]) }
}

fn text(number: u64) -> Input {
    Input::Message(number.to_string())
}

#[tokio::test]
async fn input_comes_in_order_and_the_oldest_of_its_kind_makes_room() {
    let Pair { media, task, .. } =
        pair(LinkConfig { max_queued_frames: 2, max_queued_video: 3, max_queued_messages: 1, ..LinkConfig::default() });
    let video = |index| Input::Packet(packet(TrackKind::Video, index));
    let pushed: Vec<_> = [
        audio_in(1),
        text(1),
        video(1),
        audio_in(2),
        text(2),
        audio_in(3),
        video(2),
        video(3),
        video(4),
        Input::Message("x".repeat(MAX_TEXT + 1)),
    ]
    .into_iter()
    .map(|input| media.push(input))
    .collect();
    use Pushed::{DroppedOldest, Queued, Refused};
    assert_eq!(
        pushed,
        [Queued, Queued, Queued, Queued, Refused, DroppedOldest, Queued, Queued, DroppedOldest, Refused]
    );
    let mut received = Vec::new();
    while let Some(input) = task.recv().now_or_never() {
        received.extend(input);
    }
    assert_eq!(received, [text(1), audio_in(2), audio_in(3), video(2), video(3), video(4)]);
    let expected =
        LinkCounters { media_in: 7, media_dropped: 2, messages_in: 3, messages_refused: 2, ..LinkCounters::default() };
    assert_eq!(media.counters(), expected);
}

#[test]
fn the_loop_is_woken_when_something_can_be_popped_after_nothing_could() {
    let pair = pair(LinkConfig::default());
    let session = Session::new(context("wake"), &pair.task);
    assert_eq!(pair.wakes(), 0);
    assert_eq!(pair.send(audio_out(1)), Ok(true));
    assert_eq!(pair.send(audio_out(2)), Ok(true));
    session.send(Message::Log("a".into())).unwrap();
    assert_eq!(pair.wakes(), 1);
    assert!(pair.media.pop().is_some());
    assert_eq!(pair.send(audio_out(3)), Ok(true));
    assert_eq!(pair.wakes(), 1, "the loop has not been through yet");
    assert_eq!(pair.pop_all().len(), 3);
    session.output(json!(1)).unwrap();
    assert_eq!(pair.wakes(), 2);
    assert_eq!(pair.send(Emit::Nothing), Ok(true));
    drop(pair.media.pop());
    assert_eq!(pair.send(Emit::Nothing), Ok(true));
    assert_eq!(pair.wakes(), 2, "nothing is nothing to wake for");
    assert!(!pair.media.is_closed());
    let Pair { media, task, wakes } = pair;
    drop(task);
    assert_eq!(wakes.load(Ordering::SeqCst), 3);
    assert!(media.is_closed());
}

#[tokio::test]
async fn a_handler_is_held_back_by_the_time_of_queued_audio() {
    // 400 ms: twenty frames go through, the twenty-first is queued and holds.
    let pair = pair(LinkConfig::default());
    for number in 0..20 {
        assert_eq!(pair.send(audio_out(number)), Ok(true), "frame {number}");
    }
    let held = pair.task.send(audio_out(20));
    tokio::pin!(held);
    assert_eq!(held.as_mut().now_or_never(), None);
    assert_eq!(pair.media.queued_audio(), Duration::from_millis(420), "queued at once, so its place is kept");
    assert_eq!(pair.media.pop(), Some(audio_out(0)));
    assert_eq!(held.now_or_never(), Some(Ok(())));

    // An interruption makes room too.
    assert_eq!(pair.send(audio_out(21)), Ok(false));
    let held = pair.task.send(Emit::Packet(packet(TrackKind::Audio, 22)));
    tokio::pin!(held);
    assert_eq!(held.as_mut().now_or_never(), None);
    pair.media.clear_audio();
    assert_eq!(held.now_or_never(), Some(Ok(())));
    assert_eq!(pair.media.queued_audio(), Duration::ZERO);
    assert_eq!(pair.media.counters().audio_cleared, Duration::from_millis(440));
}

#[test]
fn what_has_no_duration_is_bounded_by_count() {
    fn check(config: LinkConfig, emit: impl Fn(u64) -> Emit, free: usize) {
        let pair = pair(config);
        for number in 0..free as u64 {
            assert_eq!(pair.send(emit(number)), Ok(true), "item {number}");
        }
        assert_eq!(pair.send(emit(0)), Ok(false));
    }
    let config = LinkConfig { max_queued_emits: 7, max_queued_messages: 3, ..LinkConfig::default() };
    check(config, |number| Emit::Packet(packet(TrackKind::Video, number)), 7);
    check(config, |number| Emit::Output(json!(number)), 3);
    check(config, |_| Emit::Message(Message::Warning("again".into())), 3);
    check(config, |number| Emit::Packet(packet(TrackKind::Audio, number)), 7);
    check(LinkConfig::default(), |number| Emit::Packet(packet(TrackKind::Audio, number)), 20);
}

#[test]
fn an_interruption_keeps_everything_but_sound_and_is_told_before_further_input() {
    let pair = pair(LinkConfig::default());
    let kept = [
        Emit::Output(json!({ "turn": 1 })),
        Emit::Packet(packet(TrackKind::Video, 1)),
        Emit::Message(Message::Log("said".into())),
        Emit::CloseTrack("1".into()),
        Emit::EndStream(None),
    ];
    assert_eq!(pair.media.push(audio_in(1)), Pushed::Queued);
    for (number, emit) in kept.iter().enumerate() {
        assert_eq!(pair.send(audio_out(number as u64)), Ok(true));
        assert_eq!(pair.send(Emit::Packet(packet(TrackKind::Audio, 9))), Ok(true));
        assert_eq!(pair.send(emit.clone()), Ok(true));
    }
    pair.media.clear_audio();
    assert_eq!(pair.pop_all(), kept);
    assert!(matches!(pair.task.event().now_or_never(), Some(Some(Event::Reset))));
    assert!(matches!(pair.task.event().now_or_never(), Some(Some(Event::Input(Input::Audio(_))))));
    assert!(pair.task.event().now_or_never().is_none(), "told once");
}

/// A loop that has no use for audio pops nothing, and has to hear of the end.
#[test]
fn the_end_is_told_although_other_things_wait() {
    let pair = pair(LinkConfig::default());
    assert_eq!(pair.send(audio_out(1)), Ok(true));
    assert!(!pair.media.is_ended());
    let wakes = pair.wakes();
    assert_eq!(pair.send(audio_out(2)), Ok(true));
    assert_eq!(pair.wakes(), wakes);
    pair.task.shared().put_end(None).unwrap();
    assert_eq!((pair.wakes(), pair.media.is_ended()), (wakes + 1, true));
    assert_eq!(pair.pop_all().len(), 3);
    assert!(pair.media.is_ended());
}

#[test]
fn the_end_comes_last_and_once() {
    let pair = pair(LinkConfig::default());
    let session = Session::new(context("end"), &pair.task);
    assert!(pair.task.ended().now_or_never().is_none());
    assert_eq!(pair.send(audio_out(1)), Ok(true));
    assert_eq!(session.end("bye"), Ok(()));
    assert_eq!(pair.task.ended().now_or_never(), Some(Ok(Some("bye".into()))));
    assert_eq!(session.end("bye again"), Err(Closed));
    assert_eq!(session.send(Message::Log("late".into())), Err(SendError::Closed(Closed)));
    assert_eq!(pair.send(audio_out(2)), Err(Closed));
    drop(pair.task);
    assert!(!pair.media.is_closed(), "there is something left to play");
    assert_eq!(pair.media.pop(), Some(audio_out(1)));
    assert_eq!(pair.media.pop(), Some(Emit::EndStream(Some("bye".into()))));
    assert!(pair.media.is_closed());
    assert_eq!(pair.media.push(audio_in(1)), Pushed::Closed);
}

#[test]
fn the_end_finds_room_in_a_full_queue_and_an_empty_text_is_none() {
    let pair = pair(LinkConfig::default());
    let session = Session::new(context("end"), &pair.task);
    let sent = (0..100).filter(|number| session.output(json!(number)).is_ok()).count();
    assert_eq!(sent, LinkConfig::default().max_queued_messages);
    assert_eq!(session.output(json!(0)), Err(SendError::Full));
    assert_eq!(session.end(""), Ok(()));
    assert_eq!(pair.pop_all().last(), Some(&Emit::EndStream(None)));
}

#[tokio::test]
async fn a_loop_that_goes_lets_the_task_go() {
    let Pair { media, task, .. } = pair(LinkConfig { max_queued_audio: Duration::ZERO, ..LinkConfig::default() });
    let session = Session::new(context("gone"), &task);
    let (received, sent, ended) = {
        let recv = task.recv();
        let send = task.send(audio_out(1));
        let ended = task.ended();
        tokio::pin!(recv, send, ended);
        assert!(recv.as_mut().now_or_never().is_none());
        assert!(send.as_mut().now_or_never().is_none());
        assert!(ended.as_mut().now_or_never().is_none());
        assert_eq!(media.push(text(1)), Pushed::Queued);
        drop(media);
        tokio::join!(recv, send, ended)
    };
    assert_eq!((received, sent, ended), (None, Ok(()), Err(Closed)));
    assert_eq!(task.send(audio_out(2)).await, Err(Closed));
    assert_eq!(session.end("bye"), Err(Closed));
    assert_eq!(session.output(json!(1)), Err(SendError::Closed(Closed)));
}

#[test]
fn buffers_go_round() {
    let pair = pair(LinkConfig { max_queued_frames: 1, ..LinkConfig::default() });
    let session = Session::new(context("buffers"), &pair.task);
    let mut frame = sound(1, 20);
    let memory = frame.samples.as_ptr();
    assert_eq!(pair.media.push(Input::Audio(frame)), Pushed::Queued);
    assert_eq!(pair.media.push(audio_in(2)), Pushed::DroppedOldest);
    frame = AudioFrame { samples: session.buffer(), ..sound(3, 0) };
    assert_eq!(frame.samples.as_ptr(), memory, "what was dropped serves again");
    frame.samples.resize(480, 3);
    assert_eq!(pair.send(Emit::Audio(frame)), Ok(true));
    pair.media.clear_audio();
    let buffer = pair.media.buffer();
    assert_eq!(buffer.as_ptr(), memory, "and so does what was interrupted");
    assert!(buffer.is_empty());
}

/// Two real threads, a small queue and no timing: nothing is lost that is not counted, and order holds both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_threads() {
    const FRAMES: u64 = 50_000;
    let config = LinkConfig { max_queued_frames: 8, max_queued_emits: 8, ..LinkConfig::default() };
    let woken = Arc::new((Mutex::new(()), parking_lot::Condvar::new()));
    let wake = woken.clone();
    let waker = Arc::new(move || {
        let _guard = wake.0.lock();
        wake.1.notify_one();
    });
    let (media, task) = link(config, waker);
    let echo = async move {
        let mut last = None;
        let mut seen = 0_u64;
        while let Some(Input::Packet(packet)) = task.recv().await {
            assert!(last < Some(packet.index), "{last:?} before {}", packet.index);
            last = Some(packet.index);
            seen += 1;
            if task.send(Emit::Packet(packet)).await.is_err() || last == Some(FRAMES - 1) {
                break;
            }
        }
        seen
    };
    let media_loop = std::thread::spawn(move || {
        let mut back = Vec::new();
        let mut next = 0;
        loop {
            if next < FRAMES {
                media.push(Input::Packet(packet(TrackKind::Audio, next)));
                next += 1;
            }
            let mut popped = false;
            while let Some(Emit::Packet(packet)) = media.pop() {
                back.push(packet.index);
                popped = true;
            }
            if media.is_closed() {
                return (back, media.counters());
            }
            if !popped && next == FRAMES {
                let mut guard = woken.0.lock();
                // Looked at under the lock that the waker takes, so no wake is missed; one that is would show as a
                // test that never ends.
                if media.queued_audio().is_zero() && !media.is_closed() {
                    woken.1.wait(&mut guard);
                }
            }
        }
    });
    let mut echoing = tokio::task::JoinSet::new();
    echoing.spawn(echo);
    let seen = echoing.join_next().await.unwrap().unwrap();
    let (back, counters) = media_loop.join().unwrap();
    assert_eq!(back.len() as u64, seen);
    assert!(back.is_sorted());
    assert_eq!(back.last(), Some(&(FRAMES - 1)));
    assert_eq!(counters.media_in, FRAMES);
    assert_eq!(counters.media_in - counters.media_dropped, seen);
    assert_eq!(counters.emitted, seen);
}

#[derive(Clone, Debug)]
enum Act {
    Push(Kind),
    Recv,
    Send(Kind),
    Pop,
    Clear,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Frame,
    Sound,
    Picture,
    Text,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let kind = || prop_oneof![Just(Kind::Frame), Just(Kind::Sound), Just(Kind::Picture), Just(Kind::Text)];
    let act = prop_oneof![
        4 => kind().prop_map(Act::Push),
        2 => Just(Act::Recv),
        4 => kind().prop_map(Act::Send),
        2 => Just(Act::Pop),
        1 => Just(Act::Clear),
    ];
    proptest::collection::vec(act, 0..200)
}

proptest! {
    /// Against lists that do the same the slow and obvious way.
    #[test]
    fn a_link_does_what_lists_would_do(acts in acts()) {
        let config = LinkConfig {
            max_queued_frames: 5,
            max_queued_video: 3,
            max_queued_messages: 2,
            max_queued_audio: Duration::from_millis(100),
            max_queued_emits: 9,
        };
        let pair = pair(config);
        let (mut inputs, mut emits) = (Vec::<(Kind, Input)>::new(), Vec::<(Kind, Emit)>::new());
        let mut dropped = 0;
        for (number, act) in (0_u64..).zip(acts) {
            match act {
                Act::Push(kind) => {
                    let input = match kind {
                        Kind::Frame => audio_in(number),
                        Kind::Sound => Input::Packet(packet(TrackKind::Audio, number)),
                        Kind::Picture => Input::Packet(packet(TrackKind::Video, number)),
                        Kind::Text => text(number),
                    };
                    let lane = |kind: &Kind| match kind { Kind::Frame | Kind::Sound => 5, Kind::Picture => 3, Kind::Text => 2 };
                    let waiting = inputs.iter().filter(|(other, _)| lane(other) == lane(&kind)).count();
                    let pushed = pair.media.push(input.clone());
                    if waiting < lane(&kind) {
                        prop_assert_eq!(pushed, Pushed::Queued);
                        inputs.push((kind, input));
                    } else if kind == Kind::Text {
                        prop_assert_eq!(pushed, Pushed::Refused);
                    } else {
                        prop_assert_eq!(pushed, Pushed::DroppedOldest);
                        let oldest = inputs.iter().position(|(other, _)| lane(other) == lane(&kind));
                        inputs.remove(oldest.unwrap());
                        inputs.push((kind, input));
                        dropped += 1;
                    }
                }
                Act::Recv => {
                    let expected = (!inputs.is_empty()).then(|| inputs.remove(0).1);
                    // An interruption is told first; `recv` passes over it.
                    prop_assert_eq!(pair.task.recv().now_or_never().flatten(), expected);
                }
                Act::Send(kind) => {
                    let emit = match kind {
                        Kind::Frame => audio_out(number),
                        Kind::Sound => Emit::Packet(packet(TrackKind::Audio, number)),
                        Kind::Picture => Emit::Packet(packet(TrackKind::Video, number)),
                        Kind::Text => Emit::Output(json!(number)),
                    };
                    emits.push((kind, emit.clone()));
                    let sounds = emits.iter().filter(|(kind, _)| matches!(kind, Kind::Frame | Kind::Sound)).count();
                    let texts = emits.iter().filter(|(kind, _)| *kind == Kind::Text).count();
                    let has_room = sounds <= 5 && texts <= 2 && emits.len() <= 9;
                    prop_assert_eq!(pair.send(emit), Ok(has_room));
                    prop_assert_eq!(pair.media.queued_audio(), Duration::from_millis(20) * sounds as u32);
                }
                Act::Pop => {
                    let expected = (!emits.is_empty()).then(|| emits.remove(0).1);
                    prop_assert_eq!(pair.media.pop(), expected);
                }
                Act::Clear => {
                    pair.media.clear_audio();
                    emits.retain(|(kind, _)| matches!(kind, Kind::Picture | Kind::Text));
                    prop_assert_eq!(pair.media.queued_audio(), Duration::ZERO);
                }
            }
            prop_assert_eq!(pair.media.counters().media_dropped, dropped);
        }
    }
}

#[tokio::test]
async fn several_emitted_at_once_keep_their_order_and_their_place() {
    let pair = pair(LinkConfig { max_queued_audio: Duration::from_millis(30), ..LinkConfig::default() });
    let end = || Emit::EndStream(Some("bye".to_owned()));
    // All of it is queued, though there is room for the first part only; what is behind an end is not.
    let inner = Emit::All(vec![audio_out(2), Emit::Nothing, Emit::Output(json!(3))]);
    assert_eq!(pair.send(Emit::All(vec![audio_out(1), inner, end(), audio_out(4)])), Err(Closed));
    assert_eq!(pair.pop_all(), [audio_out(1), audio_out(2), Emit::Output(json!(3)), end()]);
    assert_eq!(pair.wakes(), 2, "for the first, and for the end");
}
