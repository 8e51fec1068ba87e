use std::fs;

use hound::WavReader;
use serde_json::json;

use super::*;
use crate::scratch::Scratch;
use crate::testing::{Drive, context, sine, tone_level};
use crate::{Ended, LinkConfig};

const RATE: u32 = 16_000;

fn prototype(scratch: &Scratch, seconds: u32) -> Box<dyn Handler> {
    let folder = scratch.path().to_str().unwrap();
    match Recorder::configure(json!({ "folder": folder, "seconds": seconds })).unwrap() {
        Registered::Handler(handler) => handler,
        Registered::Packets(_) => panic!("the recorder works on frames"),
    }
}

fn start(prototype: &dyn Handler, id: &str) -> Drive {
    Drive::start_with(prototype.copy(), context(id), LinkConfig::default())
}

/// Says `frames` frames of a tone, as fast as the recorder takes them.
async fn say(drive: &Drive, frames: usize) {
    let dropped = drive.link().counters().media_dropped;
    for frame in sine(PcmFormat::mono(RATE), 440.0, -12.0).take(frames) {
        drive.push(Input::Audio(frame));
        // The disk works on a thread of its own, in real time.
        while drive.link().queued_input() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(drive.link().counters().media_dropped, dropped, "a test of the recorder, not of the link");
}

fn recorded(scratch: &Scratch, name: &str) -> Vec<i16> {
    let mut reader = WavReader::open(scratch.path().join(name)).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (RATE, 1));
    reader.samples::<i16>().collect::<Result<_, _>>().unwrap()
}

fn check_tone(samples: &[i16], seconds: f64) {
    assert_eq!(samples.len(), (seconds * f64::from(RATE)) as usize);
    assert!((tone_level(samples, RATE, 440.0) - -12.0).abs() < 0.1);
}

#[tokio::test]
async fn a_recording_that_is_full_is_announced_and_ends_the_stream() {
    let scratch = Scratch::new();
    let mut drive = start(prototype(&scratch, 2).as_ref(), "full");
    say(&drive, 99).await;
    // The hundredth frame fills it, the rest finds it closed.
    for frame in sine(PcmFormat::mono(RATE), 440.0, -12.0).skip(99).take(3) {
        drive.push(Input::Audio(frame));
    }
    let output = json!({ "path": "session-full.wav", "seconds": 2.0 });
    let end = Some("Recording finished".to_owned());
    assert_eq!(drive.rest().await, [Emit::Output(output), Emit::EndStream(end.clone())]);
    assert_eq!(drive.ended().await, Ended::EndStream(end));
    check_tone(&recorded(&scratch, "session-full.wav"), 2.0);
}

#[tokio::test]
async fn a_frame_that_does_not_fit_is_cut() {
    let scratch = Scratch::new();
    let mut drive = start(prototype(&scratch, 1).as_ref(), "cut");
    let samples = vec![100; RATE as usize + 5];
    drive.push(Input::Audio(crate::AudioFrame { samples, format: PcmFormat::mono(RATE), timestamp: Duration::ZERO }));
    assert_eq!(drive.rest().await[0], Emit::Output(json!({ "path": "session-cut.wav", "seconds": 1.0 })));
    assert_eq!(recorded(&scratch, "session-cut.wav"), vec![100; RATE as usize]);
}

#[tokio::test]
async fn the_client_can_stop() {
    let scratch = Scratch::new();
    let mut drive = start(prototype(&scratch, 60).as_ref(), "stop");
    say(&drive, 75).await;
    drive.push(Input::Message("go on".into()));
    drive.push(Input::Message("stop".into()));
    drive.push(Input::Message("stop".into()));
    let rest = drive.rest().await;
    assert_eq!(rest[0], Emit::Output(json!({ "path": "session-stop.wav", "seconds": 1.5 })));
    assert!(matches!(rest[1..], [Emit::EndStream(_)]));
    check_tone(&recorded(&scratch, "session-stop.wav"), 1.5);
}

#[tokio::test]
async fn a_client_that_goes_leaves_its_recording_and_the_output() {
    let scratch = Scratch::new();
    let mut drive = start(prototype(&scratch, 60).as_ref(), "gone");
    say(&drive, 110).await;
    drive.cancel();
    assert_eq!(drive.rest().await, [Emit::Output(json!({ "path": "session-gone.wav", "seconds": 2.2 }))]);
    assert_eq!(drive.ended().await, Ended::Cancelled);
    check_tone(&recorded(&scratch, "session-gone.wav"), 2.2);
}

#[tokio::test]
async fn who_says_nothing_leaves_nothing() {
    let scratch = Scratch::new();
    let mut drive = start(prototype(&scratch, 60).as_ref(), "silent");
    drive.settle().await;
    drive.cancel();
    assert_eq!(drive.rest().await, []);
    assert_eq!(scratch.names(), [""; 0]);
}

#[tokio::test]
async fn recordings_stay_in_their_folder_and_replace_nothing() {
    let scratch = Scratch::new();
    let inside = scratch.path().join("recordings");
    let outside = scratch.file("victim.wav", b"untouched");
    fs::create_dir(&inside).unwrap();
    // A file of another, and a link that leads out, under the names that would come next.
    fs::write(inside.join("session-__.wav"), b"untouched").unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("session-__-2.wav")).unwrap();
    let recorder = Recorder::new(&inside, 1 << 30, RATE, Duration::from_secs(60)).unwrap();

    for (id, name) in [("::", "session-__-3.wav"), ("::", "session-__-4.wav"), ("~:", "session-__-5.wav")] {
        let mut drive = start(&recorder, id);
        say(&drive, 5).await;
        drive.push(Input::Message("stop".into()));
        assert_eq!(drive.rest().await[0], Emit::Output(json!({ "path": name, "seconds": 0.1 })));
        assert!(inside.join(name).is_file());
    }
    assert_eq!(fs::read(&outside).unwrap(), b"untouched");
    assert_eq!(fs::read(inside.join("session-__.wav")).unwrap(), b"untouched");
    assert_eq!(scratch.names(), ["recordings", "victim.wav"]);
}

#[tokio::test]
async fn the_folder_is_bounded_and_room_comes_back() {
    let scratch = Scratch::new();
    // A second of 16 kHz is 32 044 bytes: room for two that run, and a little.
    let recorder = Recorder::new(scratch.path(), 80_000, RATE, Duration::from_secs(1)).unwrap();
    let mut first = start(&recorder, "first");
    let mut second = start(&recorder, "second");
    say(&first, 10).await;
    say(&second, 10).await;
    let full = Ended::Failed(HandlerError::new("there is no room for another recording"));
    assert_eq!(start(&recorder, "third").ended().await, full);

    for drive in [&mut first, &mut second] {
        drive.cancel();
        assert_eq!(drive.rest().await.len(), 1);
    }
    // 0.2 s of each are on disk.
    let mut fourth = start(&recorder, "fourth");
    say(&fourth, 1).await;
    fourth.cancel();
    assert_eq!(fourth.rest().await.len(), 1);

    // Whatever else takes up the room counts too, and counts no more when it has gone.
    let other = scratch.file("other", &[0; 60_000]);
    assert_eq!(start(&recorder, "fifth").ended().await, full);
    fs::remove_file(other).unwrap();
    let mut sixth = start(&recorder, "sixth");
    say(&sixth, 1).await;
    sixth.cancel();
    assert_eq!(sixth.ended().await, Ended::Cancelled);
}

#[tokio::test]
async fn a_folder_that_has_gone_fails_the_session_without_telling_where_it_was() {
    let scratch = Scratch::new();
    let recorder = prototype(&scratch, 60);
    fs::remove_dir(scratch.path()).unwrap();
    let mut drive = start(recorder.as_ref(), "nowhere");
    let failed = Ended::Failed(HandlerError::new("the recording could not be written"));
    assert_eq!(drive.ended().await, failed);
}

#[tokio::test]
async fn another_format_is_refused() {
    let scratch = Scratch::new();
    let mut drive = start(prototype(&scratch, 60).as_ref(), "format");
    drive.push(Input::Audio(sine(PcmFormat::mono(48_000), 440.0, -12.0).next().unwrap()));
    assert!(matches!(drive.ended().await, Ended::Failed(HandlerError::Failed(_))));
}

#[test]
fn mistakes_name_their_keys() {
    fn check(config: Value, expected: &str) {
        let error = Recorder::configure(config).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let scratch = Scratch::new();
    let file = scratch.file("file", b"");
    check(json!({ "folder": file }), "`folder` ");
    check(json!({ "folder": format!("{file}/below") }), "`folder` ");
    check(
        json!({ "folder": 1, "seconds": 20_000, "folder_mib": 0, "file": "x" }),
        "`folder` must be a text, not 1; `folder_mib` must be a whole number from 1 to 1048576, not 0; \
         `seconds` must be a whole number from 1 to 14400, not 20000; `file` is not known here",
    );
}
