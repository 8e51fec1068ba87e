//! What a turn is told, and what its reply is given and gives.

use super::*;

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
async fn audio_of_another_format_is_an_error() {
    let mut call = Call::start(endless(ReplyOptions::default())).await;
    call.drive.push(Input::Audio(sine(PcmFormat::mono(16_000), 440.0, -10.0).next().unwrap()));
    let expected = HandlerError::new("the audio is not of the format that was asked for");
    assert_eq!(call.drive.ended().await, Ended::Failed(expected));
}

#[test]
fn options_are_checked() {
    let algo_options = AlgoOptions { speech_threshold: -1.0, ..AlgoOptions::default() };
    let options = ReplyOptions { algo_options, ..ReplyOptions::default() };
    let error = ReplyOnPause::new(options, |_, _| async { Ok(()) }).unwrap_err();
    assert_eq!(error, OptionsError::Speech(-1.0));
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
