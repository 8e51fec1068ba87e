use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::*;
use crate::testing::{Drive, context, sine};
use crate::{AudioFrame, Input, LinkConfig, PcmFormat, async_trait};

/// What a call of the handler under test does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Succeed,
    Fail,
    Panic,
    /// Panics after an await, inside the future.
    PanicLater,
    Hang,
}

impl Does {
    async fn act(self, step: &str) -> Result<(), HandlerError> {
        match self {
            Self::Succeed => Ok(()),
            Self::Fail => Err(HandlerError::new(format!("{step} failed"))),
            Self::Panic => panic!("{step} panicked"),
            Self::PanicLater => {
                sleep(Duration::from_millis(1)).await;
                panic!("{step} panicked later")
            }
            Self::Hang => std::future::pending().await,
        }
    }
}

/// Does as it is told and writes down what was called.
#[derive(Clone)]
struct Script {
    start_up: Does,
    receive: Does,
    emit: Does,
    reset: Does,
    shutdown: Does,
    calls: Arc<Mutex<Vec<&'static str>>>,
}

impl Script {
    fn new() -> Self {
        let calls = Arc::default();
        let (start_up, receive, reset, shutdown) = (Does::Succeed, Does::Succeed, Does::Succeed, Does::Succeed);
        Self { start_up, receive, emit: Does::Hang, reset, shutdown, calls }
    }
}

#[async_trait]
impl Handler for Script {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(self.clone())
    }

    async fn start_up(&self, _: &Session) -> Result<(), HandlerError> {
        self.calls.lock().push("start_up");
        self.start_up.act("start_up").await
    }

    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        self.calls.lock().push("receive");
        self.receive.act("receive").await
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        self.calls.lock().push("emit");
        self.emit.act("emit").await.map(|()| Emit::EndStream(Some("done".into())))
    }

    async fn reset(&self) {
        self.calls.lock().push("reset");
        self.reset.act("reset").await.unwrap();
    }

    async fn shutdown(&self) {
        self.calls.lock().push("shutdown");
        self.shutdown.act("shutdown").await.unwrap();
    }
}

/// Runs a script that is given one text and an interruption; how it ended, when, and what was called.
async fn played(script: Script) -> (Ended, Duration, Vec<&'static str>) {
    let calls = script.calls.clone();
    let began = Instant::now();
    let mut drive = Drive::start(Box::new(script));
    drive.push(Input::Message("hello".into()));
    let ended = drive.ended().await;
    let calls = calls.lock().clone();
    (ended, began.elapsed(), calls)
}

fn panicked(step: Step, text: &str) -> Ended {
    Ended::Failed(HandlerError::Panicked { step, message: crate::Reason::new(text) })
}

fn failed_with(text: &str) -> Ended {
    Ended::Failed(HandlerError::new(text))
}

#[tokio::test(start_paused = true)]
async fn every_failure_ends_the_run_and_is_followed_by_shutdown() {
    async fn check(script: Script, ended: Ended, after: Duration, calls: &[&str]) {
        assert_eq!(played(script).await, (ended, after, calls.to_vec()));
    }
    let (none, a_bit) = (Duration::ZERO, Duration::from_millis(1));
    let base = Script::new;
    let called_start = ["start_up", "shutdown"];
    check(Script { start_up: Does::Fail, ..base() }, failed_with("start_up failed"), none, &called_start).await;
    check(
        Script { start_up: Does::Panic, ..base() },
        panicked(Step::StartUp, "start_up panicked"),
        none,
        &called_start,
    )
    .await;
    check(
        Script { start_up: Does::PanicLater, ..base() },
        panicked(Step::StartUp, "start_up panicked later"),
        a_bit,
        &called_start,
    )
    .await;
    let deadline = Ended::Failed(HandlerError::Deadline { step: Step::StartUp, limit: START_UP_LIMIT });
    check(Script { start_up: Does::Hang, ..base() }, deadline, START_UP_LIMIT, &called_start).await;
}

#[tokio::test(start_paused = true)]
async fn receive_and_emit_fail_alike() {
    async fn check(script: Script, expected: Ended) {
        let (ended, _, calls) = played(script).await;
        assert_eq!(ended, expected);
        assert_eq!(calls.first(), Some(&"start_up"));
        assert_eq!(calls.last(), Some(&"shutdown"));
        assert_eq!(calls.iter().filter(|call| **call == "shutdown").count(), 1);
    }
    let base = Script::new;
    check(Script { receive: Does::Fail, ..base() }, failed_with("receive failed")).await;
    check(Script { receive: Does::Panic, ..base() }, panicked(Step::Receive, "receive panicked")).await;
    check(Script { receive: Does::PanicLater, ..base() }, panicked(Step::Receive, "receive panicked later")).await;
    check(Script { emit: Does::Fail, ..base() }, failed_with("emit failed")).await;
    check(Script { emit: Does::Panic, ..base() }, panicked(Step::Emit, "emit panicked")).await;
    check(Script { emit: Does::PanicLater, ..base() }, panicked(Step::Emit, "emit panicked later")).await;
    check(
        Script { emit: Does::PanicLater, receive: Does::Hang, ..base() },
        panicked(Step::Emit, "emit panicked later"),
    )
    .await;
    let done = || Ended::EndStream(Some("done".into()));
    check(Script { emit: Does::Succeed, ..base() }, done()).await;
    check(Script { emit: Does::Succeed, receive: Does::Hang, ..base() }, done()).await;
    // A shutdown that panics or hangs changes nothing about how it ended.
    check(Script { emit: Does::Succeed, shutdown: Does::Panic, ..base() }, done()).await;
    check(Script { emit: Does::Succeed, shutdown: Does::PanicLater, ..base() }, done()).await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_has_a_deadline() {
    let (ended, after, _) = played(Script { emit: Does::Fail, shutdown: Does::Hang, ..Script::new() }).await;
    assert_eq!((ended, after), (failed_with("emit failed"), SHUTDOWN_LIMIT));
}

#[tokio::test(start_paused = true)]
async fn an_interruption_resets() {
    async fn check(reset: Does, expected: Ended) {
        let script = Script { reset, ..Script::new() };
        let calls = script.calls.clone();
        let mut drive = Drive::start(Box::new(script));
        drive.settle().await;
        drive.link().clear_audio();
        drive.settle().await;
        drive.cancel();
        assert_eq!(drive.ended().await, expected);
        assert_eq!(*calls.lock(), ["start_up", "emit", "reset", "shutdown"]);
    }
    check(Does::Succeed, Ended::Cancelled).await;
    check(Does::Hang, Ended::Cancelled).await;
    check(Does::Panic, panicked(Step::Reset, "reset panicked")).await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_at_any_step_shuts_down() {
    async fn check(script: Script) {
        let calls = script.calls.clone();
        let mut drive = Drive::start(Box::new(script));
        drive.push(Input::Message("hello".into()));
        drive.settle().await;
        drive.cancel();
        assert_eq!(drive.ended().await, Ended::Cancelled);
        assert_eq!(calls.lock().last(), Some(&"shutdown"));
        assert_eq!(drive.next().await, None);
    }
    check(Script::new()).await;
    check(Script { start_up: Does::Hang, ..Script::new() }).await;
    check(Script { receive: Does::Hang, ..Script::new() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_handle_ends_the_run_from_any_task() {
    async fn check(script: Script, message: &str, expected: Option<&str>) {
        let mut drive = Drive::start(Box::new(script));
        drive.push(Input::Message("hello".into()));
        drive.settle().await;
        let handle = drive.session().clone();
        let message = message.to_owned();
        tokio::task::spawn_blocking(move || handle.end(&message)).await.unwrap().unwrap();
        let expected = expected.map(str::to_owned);
        assert_eq!(drive.ended().await, Ended::EndStream(expected.clone()));
        assert_eq!(drive.rest().await, [Emit::EndStream(expected)]);
    }
    check(Script::new(), "bye", Some("bye")).await;
    check(Script::new(), "", None).await;
    check(Script { start_up: Does::Hang, ..Script::new() }, "bye", Some("bye")).await;
    check(Script { receive: Does::Hang, ..Script::new() }, "bye", Some("bye")).await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_goes_cancels() {
    let script = Script::new();
    let calls = script.calls.clone();
    let (media, end) = crate::link(LinkConfig::default(), Arc::new(|| ()));
    let session = Session::new(context("gone"), &end);
    let (ended, ()) =
        tokio::join!(run(Box::new(script), session, end, CancellationToken::new()), async move { drop(media) });
    assert_eq!(ended, Ended::Cancelled);
    assert_eq!(calls.lock().last(), Some(&"shutdown"));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_closes_the_link() {
    let (media, end) = crate::link(LinkConfig::default(), Arc::new(|| ()));
    let session = Session::new(context("dropped"), &end);
    {
        let running = run(Box::new(Script::new()), session.clone(), end, CancellationToken::new());
        assert!(timeout(Duration::from_secs(1), running).await.is_err());
    }
    assert!(media.is_closed());
    assert_eq!(media.push(Input::Message("late".into())), crate::Pushed::Closed);
    assert_eq!(session.end("late"), Err(crate::Closed));
}

/// `receive` waits for ever on its first input; `emit` counts.
#[derive(Default)]
struct Slow(AtomicUsize);

#[async_trait]
impl Handler for Slow {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::default())
    }

    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        std::future::pending().await
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        sleep(Duration::from_millis(20)).await;
        Ok(Emit::Output(json!(self.0.fetch_add(1, Ordering::SeqCst))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_receive_stops_neither_emit_nor_the_loop() {
    let mut drive = Drive::start(Box::new(Slow::default()));
    for (number, frame) in (0..200).zip(sine(PcmFormat::mono(48_000), 440.0, -20.0)) {
        drive.push(Input::Audio(frame));
        assert_eq!(drive.next().await, Some(Emit::Output(json!(number))));
    }
    let counters = drive.link().counters();
    // One frame is in the handler's hands and fifty wait.
    assert_eq!((counters.media_in, counters.media_dropped), (200, 149));
}

/// Always has something, or always nothing, at once; counts how often it is asked.
#[derive(Clone)]
struct Eager {
    emit: Emit,
    asked: Arc<AtomicUsize>,
    received: Arc<AtomicUsize>,
}

impl Eager {
    fn new(emit: Emit) -> Self {
        Self { emit, asked: Arc::default(), received: Arc::default() }
    }
}

#[async_trait]
impl Handler for Eager {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(self.clone())
    }

    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        self.received.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.emit.clone())
    }
}

fn silence(samples: usize, format: PcmFormat) -> Emit {
    Emit::Audio(AudioFrame { samples: vec![0; samples], format, timestamp: Duration::ZERO })
}

#[tokio::test(start_paused = true)]
async fn a_handler_with_nothing_to_say_is_asked_seldom_and_after_every_input() {
    async fn check(emit: Emit) {
        let eager = Eager::new(emit);
        let asked = eager.asked.clone();
        let mut drive = Drive::start(Box::new(eager));
        sleep(Duration::from_secs(60)).await;
        let quiet = asked.load(Ordering::SeqCst);
        assert!((100..=130).contains(&quiet), "{quiet} calls in a quiet minute");

        for _ in 0..50 {
            let before = asked.load(Ordering::SeqCst);
            drive.push(Input::Message("anything?".into()));
            drive.settle().await;
            assert!(asked.load(Ordering::SeqCst) > before);
        }
        let busy = asked.load(Ordering::SeqCst) - quiet;
        assert!((50..=52).contains(&busy), "{busy} calls for 50 inputs");
        drive.cancel();
        assert_eq!(drive.rest().await, []);
    }
    check(Emit::Nothing).await;
    check(silence(0, PcmFormat::mono(24_000))).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_always_has_audio_is_held_at_the_bound_and_still_hears() {
    let eager = Eager::new(silence(480, PcmFormat::mono(24_000)));
    let (asked, received) = (eager.asked.clone(), eager.received.clone());
    let mut drive = Drive::start(Box::new(eager));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(asked.load(Ordering::SeqCst), 21, "400 ms and the frame that is one too many");
    for taken in 1..=100 {
        assert!(drive.next().await.is_some());
        drive.push(Input::Message("hello".into()));
        drive.settle().await;
        assert_eq!(asked.load(Ordering::SeqCst), 21 + taken);
        assert_eq!(received.load(Ordering::SeqCst), taken);
    }
}

#[tokio::test(start_paused = true)]
async fn audio_that_cannot_be_played_fails() {
    for format in [PcmFormat { rate: 0, channels: 1 }, PcmFormat { rate: 48_000, channels: 0 }] {
        let mut drive = Drive::start(Box::new(Eager::new(silence(480, format))));
        let expected = failed_with("the handler emitted audio without a rate or without channels");
        assert_eq!(drive.ended().await, expected, "{format:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn emit_is_not_asked_again_after_the_end() {
    let eager = Eager::new(Emit::EndStream(None));
    let asked = eager.asked.clone();
    let mut drive = Drive::start(Box::new(eager));
    assert_eq!(drive.ended().await, Ended::EndStream(None));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(drive.rest().await, [Emit::EndStream(None)]);
}
