//! Replies that are cut off, held back or never end.

use super::*;

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
