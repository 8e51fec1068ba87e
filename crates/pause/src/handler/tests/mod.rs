//! The handler with the runner around it, in virtual time.

mod interruptions;
mod turns;

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

const PIECE: Duration = Duration::from_millis(20);
const SENT: &str = "send_input";

/// Tells the arguments it is given.
fn asker(options: ReplyOptions) -> ReplyOnPause {
    handler(options, |request, speaker| async move {
        speaker.output(json!(request.args)).await?;
        Ok(())
    })
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
