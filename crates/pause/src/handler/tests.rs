use std::future::pending;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde_json::json;
use streamfleet_handler::testing::{Drive, context, level_dbfs, sine};
use streamfleet_handler::{Ended, LinkConfig, Reason, Step};

use tokio::time::sleep;

use super::*;
use crate::Activity;

/// Calls loud hops speech.
struct Loud;

impl Vad for Loud {
    fn hop(&self) -> NonZeroUsize {
        NonZeroUsize::new(160).unwrap()
    }

    fn hear(&mut self, hop: &[i16]) -> Activity {
        if level_dbfs(hop) > -40.0 { Activity::Speech } else { Activity::Silence }
    }

    fn reset(&mut self) {}
}

/// A handler that both the runner and the test hold.
struct Shared(Arc<ReplyOnPause>);

#[async_trait]
impl Handler for Shared {
    fn media(&self) -> Media {
        self.0.media()
    }
    fn copy(&self) -> Box<dyn Handler> {
        self.0.copy()
    }
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        self.0.start_up(session).await
    }
    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        self.0.receive(input).await
    }
    fn replies(&self) -> streamfleet_handler::Replies {
        self.0.replies()
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        self.0.emit().await
    }
    async fn reset(&self) {
        self.0.reset().await;
    }
    async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

/// A session with a microphone.
struct Call {
    drive: Drive,
    handler: Arc<ReplyOnPause>,
    heard: Vec<String>,
    /// How often the transport was told to forget what the client has not heard.
    cleared: usize,
}

impl Call {
    async fn start(handler: ReplyOnPause) -> Self {
        Self::start_on(handler, Transport::WebRtc).await
    }

    async fn start_on(handler: ReplyOnPause, transport: Transport) -> Self {
        let handler = Arc::new(handler.with_vad(|| Loud));
        let context = streamfleet_handler::Context { transport, ..context("call") };
        let drive = Drive::start_with(Box::new(Shared(handler.clone())), context, LinkConfig::default());
        drive.settle().await;
        Self { drive, handler, heard: Vec::new(), cleared: 0 }
    }

    /// Sends this much audio of a level, and takes what comes back: texts, outputs, and audio by its loudest sample.
    async fn send(&mut self, ms: usize, dbfs: f64) {
        let frames = sine(PcmFormat::mono(48_000), 440.0, dbfs).take(ms / 20);
        for frame in frames {
            self.drive.push(Input::Audio(frame));
            sleep(Duration::from_millis(20)).await;
            self.take().await;
        }
    }

    async fn speak(&mut self, ms: usize) {
        self.send(ms, -10.0).await;
    }

    async fn pause(&mut self) {
        self.send(600, -90.0).await;
    }

    async fn take(&mut self) {
        self.drive.settle().await;
        while let Some(emit) = self.drive.link().pop() {
            self.heard.push(match emit {
                Emit::Clear => {
                    self.cleared += 1;
                    continue;
                }
                Emit::Audio(frame) => match frame.samples.iter().max() {
                    Some(sample) => format!("audio {sample}"),
                    None => "empty audio".to_owned(),
                },
                Emit::Message(Message::Log(text)) => text,
                Emit::Message(Message::SendInput) => SENT.to_owned(),
                Emit::Output(value) => format!("output {value}"),
                Emit::EndStream(message) => format!("end {message:?}"),
                other => format!("{other:?}"),
            });
            self.drive.settle().await;
        }
    }

    /// What has come since the last question, without repetitions.
    fn heard(&mut self) -> Vec<String> {
        let mut heard = std::mem::take(&mut self.heard);
        heard.dedup();
        heard
    }
}

fn beep(loud: i16, ms: usize) -> Vec<i16> {
    vec![loud; 24 * ms]
}

fn handler<F, R>(options: ReplyOptions, reply: F) -> ReplyOnPause
where
    F: Fn(Request, Speaker) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    ReplyOnPause::new(options, reply).unwrap()
}

const BEFORE: [&str; 3] = ["started_talking", "pause_detected", "response_starting"];

#[tokio::test(start_paused = true)]
async fn a_turn_is_told_in_order_and_the_reply_is_given_the_utterance() {
    let given = Arc::new(Mutex::new(Vec::new()));
    let keep = given.clone();
    let mut call = Call::start(handler(ReplyOptions::default(), move |request, speaker| {
        keep.lock().push(request);
        async move {
            speaker.say(beep(5, 60)).await?;
            speaker.output(json!({ "text": "hi" })).await?;
            speaker.say(beep(6, 20)).await?;
            Ok(())
        }
    }))
    .await;
    call.send(1_000, -90.0).await;
    call.speak(1_000).await;
    assert_eq!(call.heard(), ["started_talking"]);
    call.pause().await;
    let reply = ["pause_detected", "response_starting", "audio 5", r#"output {"text":"hi"}"#, "audio 6"];
    assert_eq!(call.heard(), reply);
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard()[..3], BEFORE);

    let given = given.lock();
    let [first, second] = given.as_slice() else { panic!("{} replies", given.len()) };
    assert!(first.args.is_empty());
    assert_eq!(first.audio.format, PcmFormat::mono(48_000));
    let about = |ms: usize, frame: &AudioFrame| frame.duration().abs_diff(Duration::from_millis(ms as u64));
    // 0.4 s before the first word, the words, and the half second that made the pause.
    assert!(about(1_900, &first.audio) < Duration::from_millis(30), "{:?}", first.audio.duration());
    assert!(about(900, &second.audio) < Duration::from_millis(110), "{:?}", second.audio.duration());
    assert!(first.audio.timestamp + first.audio.duration() <= second.audio.timestamp);
}

#[tokio::test(start_paused = true)]
async fn a_reply_without_audio_is_told_as_well() {
    let mut call = Call::start(handler(ReplyOptions::default(), |_, _| async { Ok(()) })).await;
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), BEFORE);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_fails_ends_its_session_in_its_own_words() {
    async fn check<F, R>(reply: F, expected: HandlerError)
    where
        F: Fn(Request, Speaker) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let mut call = Call::start(handler(ReplyOptions::default(), reply)).await;
        call.speak(400).await;
        call.pause().await;
        assert_eq!(call.drive.ended().await, Ended::Failed(expected));
    }
    let panicked = |text| HandlerError::Panicked { step: Step::Emit, message: Reason::new(text) };
    check(|_, _| async { Err(HandlerError::new("no such voice")) }, HandlerError::new("no such voice")).await;
    check(|_, _| async { panic!("inside") }, panicked("inside")).await;
    fn at_once() -> std::future::Ready<Result<(), HandlerError>> {
        panic!("at once")
    }
    check(|_, _| at_once(), panicked("at once")).await;
}

/// Counts those that live.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_never_yields_is_stopped_by_the_next_pause_and_by_the_end() {
    let alive = Arc::new(AtomicUsize::new(0));
    let count = alive.clone();
    let mut call = Call::start(handler(ReplyOptions::default(), move |_, _| {
        let alive = Alive::new(&count);
        async move {
            let _alive = alive;
            pending().await
        }
    }))
    .await;
    for _ in 0..20 {
        call.speak(400).await;
        call.pause().await;
        assert_eq!(call.heard(), ["started_talking", "pause_detected"]);
        assert_eq!(alive.load(Ordering::SeqCst), 1);
    }
    call.drive.cancel();
    assert_eq!(call.drive.ended().await, Ended::Cancelled);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

/// Speaks for ever, a piece of 20 ms every 20 ms: in the first turn of loudness 1, in the second of 2.
fn endless(options: ReplyOptions) -> ReplyOnPause {
    let turn = AtomicUsize::new(0);
    handler(options, move |_, speaker| {
        let loud = turn.fetch_add(1, Ordering::SeqCst) as i16 + 1;
        async move {
            loop {
                speaker.say(beep(loud, 20)).await?;
                sleep(Duration::from_millis(20)).await;
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_reply_says_nothing_more() {
    async fn check(options: ReplyOptions, while_speaking: &[&str], after: &[&str]) {
        let mut call = Call::start(endless(options)).await;
        call.speak(400).await;
        call.pause().await;
        assert_eq!(call.heard(), [&BEFORE[..], &["audio 1"]].concat());
        call.speak(400).await;
        assert_eq!(call.heard(), while_speaking);
        call.pause().await;
        assert_eq!(call.heard(), after);
    }
    let base = ReplyOptions::default();
    let next = ["pause_detected", "response_starting", "audio 2"];
    let goes_on = ["audio 1", "started_talking", "audio 1"];
    check(base.clone(), &goes_on, &[&["audio 1"], &next[..]].concat()).await;
    let on_speech = ReplyOptions { interrupt_on: InterruptOn::Speech, ..base.clone() };
    check(on_speech, &["audio 1", "started_talking"], &next).await;
    let never = ReplyOptions { can_interrupt: false, interrupt_on: InterruptOn::Speech, ..base };
    check(never, &["audio 1"], &["audio 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_said_to_a_reply_that_may_not_be_interrupted_is_not_heard() {
    let given = Arc::new(Mutex::new(Vec::new()));
    let keep = given.clone();
    let options = ReplyOptions { can_interrupt: false, ..ReplyOptions::default() };
    let mut call = Call::start(handler(options, move |request, speaker| {
        keep.lock().push(request.audio.samples.len() / 48);
        async move {
            speaker.say(beep(1, 20)).await?;
            sleep(Duration::from_secs(5)).await;
            Ok(())
        }
    }))
    .await;
    call.speak(400).await;
    call.pause().await;
    call.speak(4_800).await;
    assert_eq!(call.heard(), [&BEFORE[..], &["audio 1"]].concat());
    // The reply is over meanwhile; the words before that are nobody's.
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), [&BEFORE[..], &["audio 1"]].concat());
    let given = given.lock();
    assert_eq!(given.len(), 2);
    assert!(given[1] < 1_200, "{} ms", given[1]);
}

#[tokio::test(start_paused = true)]
async fn a_long_frame_is_handed_out_in_pieces_and_its_rest_is_forgotten_with_the_reply() {
    let turn = AtomicUsize::new(0);
    let call = Call::start(handler(ReplyOptions::default(), move |_, speaker| {
        let first = turn.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let samples = if first { (0..24 * 60_000).map(|at| (at / 480) as i16).collect() } else { beep(-1, 30) };
            speaker.say(samples).await?;
            Ok(())
        }
    }))
    .await;
    // Nobody takes anything.
    let quiet = || sine(PcmFormat::mono(48_000), 440.0, -90.0);
    let loud = || sine(PcmFormat::mono(48_000), 440.0, -10.0);
    for frame in loud().take(20).chain(quiet().take(30)) {
        call.drive.push(Input::Audio(frame));
        call.drive.settle().await;
    }
    let queued = call.drive.link().queued_audio();
    assert_eq!(queued, Duration::from_millis(420), "of a minute");
    for frame in loud().take(20).chain(quiet().take(30)) {
        call.drive.push(Input::Audio(frame));
        call.drive.settle().await;
    }
    let mut pieces = Vec::new();
    while let Some(emit) = call.drive.link().pop() {
        if let Emit::Audio(frame) = emit {
            assert!(frame.samples.iter().all(|sample| *sample == frame.samples[0]));
            pieces.push((frame.samples[0], frame.samples.len(), frame.timestamp));
        }
        call.drive.settle().await;
    }
    let tail = &pieces[pieces.len() - 2..];
    assert_eq!(tail, [(-1, 480, Duration::ZERO), (-1, 240, Duration::from_millis(20))]);
    let of_the_first = &pieces[..pieces.len() - 2];
    assert!(of_the_first.len() <= 21, "{} pieces of an interrupted reply", of_the_first.len());
    for (number, piece) in of_the_first.iter().enumerate() {
        assert_eq!(*piece, (number as i16, 480, PIECE * number as u32));
    }
}

const PIECE: Duration = Duration::from_millis(20);
const SENT: &str = "send_input";

/// Tells the arguments it is given.
fn asker(options: ReplyOptions) -> ReplyOnPause {
    handler(options, |request, speaker| async move {
        speaker.output(json!(request.args)).await?;
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn arguments_are_asked_for_and_waited_for() {
    let options = ReplyOptions { needs_args: true, ..ReplyOptions::default() };
    let mut call = Call::start(asker(options.clone())).await;
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), ["started_talking", "pause_detected", SENT]);
    call.handler.set_args(vec![json!("x"), json!(2)]);
    call.take().await;
    assert_eq!(call.heard(), [r#"output ["x",2]"#, "response_starting"]);
    // Early, then with a trigger.
    call.handler.set_args(vec![json!("early")]);
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), ["started_talking", "pause_detected", SENT, r#"output ["early"]"#, "response_starting"]);
    call.handler.trigger_response(Some(vec![json!("now")]));
    call.take().await;
    assert_eq!(call.heard(), ["pause_detected", SENT, r#"output ["now"]"#, "response_starting"]);

    // A telephone cannot send any.
    let mut call = Call::start_on(asker(options), Transport::Telephone).await;
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), ["started_talking", "pause_detected", "output []", "response_starting"]);
}

#[tokio::test(start_paused = true)]
async fn an_utterance_that_a_reply_cut_off_is_not_taken_up_again_after_it() {
    let options = ReplyOptions { needs_args: true, can_interrupt: false, ..ReplyOptions::default() };
    let mut call = Call::start(handler(options, |_, _| async {
        sleep(Duration::from_secs(1)).await;
        Ok(())
    }))
    .await;
    call.speak(400).await;
    call.pause().await;
    call.speak(400).await;
    assert_eq!(call.heard(), ["started_talking", "pause_detected", SENT, "started_talking"]);
    // From here on nothing is heard, in the middle of a sentence.
    call.handler.set_args(vec![json!(1)]);
    call.speak(900).await;
    // Not heard to its end, so there is nothing to reply to.
    call.handler.set_args(vec![json!(2)]);
    call.send(3_000, -90.0).await;
    assert_eq!(call.heard(), ["response_starting"]);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_replies_to_what_has_been_said_so_far() {
    let mut call = Call::start(handler(ReplyOptions::default(), |request, speaker| async move {
        speaker.output(json!(request.audio.duration().as_millis() as u64 / 100)).await?;
        Ok(())
    }))
    .await;
    call.handler.trigger_response(None);
    call.take().await;
    assert_eq!(call.heard(), ["pause_detected", "output 0", "response_starting"]);
    call.send(1_000, -90.0).await;
    call.speak(1_000).await;
    call.handler.trigger_response(None);
    call.take().await;
    assert_eq!(call.heard(), ["started_talking", "pause_detected", "output 13", "response_starting"]);
}

#[tokio::test(start_paused = true)]
async fn the_startup_function_speaks_first() {
    let greeter = endless(ReplyOptions::default()).with_startup(|request, speaker| async move {
        assert!(request.audio.samples.is_empty());
        speaker.say(beep(9, 20)).await?;
        Ok(())
    });
    let mut call = Call::start(greeter).await;
    call.send(1_000, -90.0).await;
    assert_eq!(call.heard(), ["response_starting", "audio 9"]);
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), [&BEFORE[..], &["audio 1"]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_reply_can_end_the_session_behind_its_last_words() {
    let mut call = Call::start(handler(ReplyOptions::default(), |_, speaker| async move {
        speaker.say(beep(1, 100)).await?;
        speaker.end_stream(Some("bye".into())).await?;
        Ok(())
    }))
    .await;
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), [&BEFORE[..], &["audio 1", "end Some(\"bye\")"]].concat());
    assert_eq!(call.drive.ended().await, Ended::EndStream(Some("bye".into())));
}

#[tokio::test(start_paused = true)]
async fn the_sessions_own_interruption_stops_the_reply() {
    let mut call = Call::start(endless(ReplyOptions::default())).await;
    call.speak(400).await;
    call.pause().await;
    call.drive.link().clear_audio();
    call.send(200, -90.0).await;
    call.heard();
    call.send(200, -90.0).await;
    assert_eq!(call.heard(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn audio_of_another_format_is_an_error() {
    let mut call = Call::start(endless(ReplyOptions::default())).await;
    call.drive.push(Input::Audio(sine(PcmFormat::mono(16_000), 440.0, -10.0).next().unwrap()));
    let expected = HandlerError::new("the audio is not of the format that was asked for");
    assert_eq!(call.drive.ended().await, Ended::Failed(expected));
}

/// A reply that blocks its thread cannot be stopped. It keeps that thread; the session goes on, and ends before it
/// takes many.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn replies_that_block_cost_their_own_session_only() {
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let blocked = Arc::new(blocked);
    let options = ReplyOptions::default();
    let handler = handler(options, move |_, _| {
        let (blocked, count) = (blocked.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            // Each waits for the one before, all of them for the end of the test.
            let _ = blocked.lock().recv();
            Ok(())
        }
    });
    let mut call = Call::start(handler).await;
    // On several threads nothing is settled by yielding.
    while call.handler.state.lock().live.is_none() {
        tokio::task::yield_now().await;
    }
    for expected in 1..=4 {
        call.handler.trigger_response(None);
        tokio::time::timeout(Duration::from_secs(20), async {
            while started.load(Ordering::SeqCst) < expected {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the reply starts beside those that block");
    }
    call.handler.trigger_response(None);
    // One more waits, but not for ever: the session shuts its handler down.
    tokio::time::timeout(Duration::from_secs(20), async {
        while call.handler.state.lock().live.is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a session whose replies block ends");
    assert_eq!(started.load(Ordering::SeqCst), 4, "no fifth thread was taken");
    let ended = call.drive.ended();
    tokio::pin!(ended);
    // The end waits for the replies, at most for the runner's limit; let them go.
    drop(release);
    assert_eq!(ended.await, Ended::Failed(HandlerError::new("interrupted replies do not stop")));
}

#[test]
fn options_are_checked() {
    let algo_options = AlgoOptions { speech_threshold: -1.0, ..AlgoOptions::default() };
    let options = ReplyOptions { algo_options, ..ReplyOptions::default() };
    let error = ReplyOnPause::new(options, |_, _| async { Ok(()) }).unwrap_err();
    assert_eq!(error, OptionsError::Speech(-1.0));
}

#[tokio::test(start_paused = true)]
async fn the_transport_is_told_to_forget_only_what_may_not_have_been_heard() {
    let mut call = Call::start(handler(ReplyOptions::default(), |_, speaker| async move {
        speaker.say(beep(1, 100)).await?;
        Ok(())
    }))
    .await;
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.cleared, 0, "nothing had been said");
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.cleared, 1, "a second ago");
    call.send(1_500, -90.0).await;
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.cleared, 1, "more than two");
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_reply_that_is_not_told_yet_is_told_before_the_next_turn() {
    let mut call = Call::start(endless(ReplyOptions::default())).await;
    for _ in 0..2 {
        call.handler.trigger_response(None);
        // Both run before the transport takes anything.
        call.drive.settle().await;
    }
    call.take().await;
    let turn = ["pause_detected", "response_starting"];
    assert_eq!(call.heard(), [&turn[..], &turn[..], &["audio 2"]].concat());
    assert_eq!(call.cleared, 1);
}

/// All of them are handled before the runtime comes to any of the replies: none of these blocks.
#[tokio::test(start_paused = true)]
async fn triggers_that_come_at_once_end_nothing() {
    let mut call = Call::start(endless(ReplyOptions::default())).await;
    for _ in 0..30 {
        call.drive.push(Input::Trigger(None));
    }
    call.take().await;
    let heard = call.heard();
    assert!(heard.last().is_some_and(|last| last.starts_with("audio")), "{heard:?}");
    call.drive.cancel();
    assert_eq!(call.drive.ended().await, Ended::Cancelled);
}

/// What waits for room goes with what interrupts it.
#[tokio::test(start_paused = true)]
async fn a_reply_that_waits_for_room_is_interrupted_like_any_other() {
    let started = Arc::new(AtomicUsize::new(0));
    let count = started.clone();
    let mut call = Call::start(handler(ReplyOptions::default(), move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        pending()
    }))
    .await;
    for _ in 0..6 {
        call.drive.push(Input::Trigger(None));
    }
    call.take().await;
    assert_eq!(started.load(Ordering::SeqCst), 1, "the last of them");
    call.drive.cancel();
    assert_eq!(call.drive.ended().await, Ended::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn audio_that_is_said_with_something_else_is_audio() {
    let mut call = Call::start(handler(ReplyOptions::default(), |_, speaker| async move {
        let audio = |loud| {
            let format = speaker.format();
            Emit::Audio(AudioFrame { samples: beep(loud, 300), format, timestamp: Duration::ZERO })
        };
        let inner = Emit::All(vec![Emit::Output(json!(2)), audio(2)]);
        speaker
            .emit(Emit::All(vec![Emit::Nothing, audio(1), Emit::Output(json!(1)), inner, Emit::All(vec![])]))
            .await?;
        Ok(())
    }))
    .await;
    call.speak(400).await;
    call.pause().await;
    assert_eq!(call.heard(), [&BEFORE[..], &["audio 1", "output 1", "output 2", "audio 2"]].concat());
    // Its last words are a moment ago.
    call.handler.trigger_response(None);
    call.drive.settle().await;
    assert_eq!(call.drive.link().queued_audio(), Duration::from_millis(420), "in pieces");
    call.take().await;
    assert_eq!(call.cleared, 1);
}

/// What a stalled network held back comes at once: time has not passed for what waits to be sent.
#[tokio::test(start_paused = true)]
async fn a_reply_that_waits_has_not_been_heard_however_much_has_been() {
    let mut call = Call::start(handler(ReplyOptions::default(), |_, speaker| async move {
        speaker.say(beep(1, 300)).await?;
        Ok(())
    }))
    .await;
    call.handler.trigger_response(None);
    call.drive.settle().await;
    assert_eq!(call.drive.link().queued_audio(), Duration::from_millis(300));
    for (ms, dbfs) in [(3_000, -90.0), (400, -10.0), (600, -90.0)] {
        for frame in sine(PcmFormat::mono(48_000), 440.0, dbfs).take(ms / 20) {
            call.drive.push(Input::Audio(frame));
            call.drive.settle().await;
        }
    }
    call.take().await;
    assert_eq!(call.cleared, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_keeps_the_plan_and_the_original_can_be_given_another() {
    let plain = handler(ReplyOptions::default(), |_, _| async { Ok(()) });
    let copy = plain.copy();
    let greets = plain.with_startup(|_, speaker| async move {
        speaker.say(beep(9, 20)).await?;
        Ok(())
    });
    let mut drive = Drive::start(copy);
    drive.settle().await;
    assert_eq!(drive.link().pop(), None);
    drive.cancel();
    assert_eq!(drive.ended().await, Ended::Cancelled);
    let mut call = Call::start(greets).await;
    call.take().await;
    assert_eq!(call.heard(), ["response_starting", "audio 9"]);
}

#[tokio::test(start_paused = true)]
async fn an_utterance_that_a_reply_cut_off_is_not_taken_up_again_when_that_is_thrown_away() {
    let options = ReplyOptions { needs_args: true, can_interrupt: false, ..ReplyOptions::default() };
    let mut call = Call::start(handler(options, |_, _| pending())).await;
    call.speak(400).await;
    call.pause().await;
    call.speak(400).await;
    assert_eq!(call.heard(), ["started_talking", "pause_detected", SENT, "started_talking"]);
    // In the middle of a sentence, of which the rest is not heard.
    call.handler.set_args(vec![json!(1)]);
    call.speak(900).await;
    call.drive.link().clear_audio();
    call.send(3_000, -90.0).await;
    assert_eq!(call.heard(), [""; 0]);
}
