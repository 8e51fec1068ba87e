//! `recorder`: what the client says, as a WAV file.

mod folder;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::rate;
use crate::{
    ConfigError, Emit, Handler, HandlerError, Input, Keys, Media, PcmFormat, Queue, Registered, Session, async_trait,
};
use folder::{Folder, Recording};

/// Enough for speech and for every recogniser; a third of the space of 48 kHz.
const DEFAULT_RATE: u32 = 16_000;

/// The longest recording that can be configured, in seconds.
const LONGEST: u32 = 4 * 3_600;

/// Audio is written once a second: a call to the disk per frame would be fifty.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The text with which a client ends its recording.
const STOP: &str = "stop";

/// The output and the end.
const EMITS: std::num::NonZeroUsize = std::num::NonZeroUsize::new(2).expect("two is not zero");

/// Writes mono audio to a file named after the session, in one folder, up to a bounded length. When the recording is
/// full, or the client sends `stop` on the data channel, the file is closed, `{"path", "seconds"}` goes out as an
/// additional output (`path` within the folder) and the stream ends; when the session ends otherwise, the output
/// still goes to whoever listens.
#[derive(Debug)]
pub struct Recorder {
    plan: Arc<Plan>,
    session: OnceLock<Session>,
    state: Mutex<State>,
    emits: Queue<Emit>,
}

/// What all sessions of one configuration share.
#[derive(Debug)]
struct Plan {
    format: PcmFormat,
    longest: Duration,
    folder: Folder,
}

#[derive(Debug, Default)]
struct State {
    /// Samples not yet written.
    waiting: Vec<i16>,
    /// Samples taken so far, those waiting included.
    taken: usize,
    recording: Option<Arc<Mutex<Recording>>>,
    finished: bool,
}

/// What to do after a frame was taken.
enum Next {
    Wait,
    Write,
    Finish,
}

impl Recorder {
    /// Records up to `longest` at `rate` Hz into `folder`, which is made if need be, as long as the files in it take
    /// up less than `max_bytes` together.
    ///
    /// # Errors
    /// A [`ConfigError`] for the key `folder` when it cannot be made or read.
    pub fn new(folder: &Path, max_bytes: u64, rate: u32, longest: Duration) -> Result<Self, ConfigError> {
        let folder = Folder::open(folder, max_bytes).map_err(|cause| ConfigError::mistake("folder", cause))?;
        Ok(Self::of(Arc::new(Plan { format: PcmFormat::mono(rate), longest, folder })))
    }

    fn of(plan: Arc<Plan>) -> Self {
        Self { plan, session: OnceLock::new(), state: Mutex::default(), emits: Queue::new(EMITS) }
    }

    pub(super) fn configure(config: Value) -> Result<Registered, ConfigError> {
        let mut keys = Keys::new(config);
        let folder = keys.text("folder");
        let mebibytes = keys.integer("folder_mib", 1_024, 1..=1_048_576);
        let rate = rate(&mut keys, DEFAULT_RATE);
        let seconds = keys.integer("seconds", 60, 1..=LONGEST);
        keys.finish()?;
        // Without a folder there was a mistake, and `finish` has returned it.
        let folder = folder.ok_or_else(|| ConfigError::mistake("folder", "is required"))?;
        let max_bytes = u64::from(mebibytes) * 1024 * 1024;
        let longest = Duration::from_secs(seconds.into());
        Ok(Registered::Handler(Box::new(Self::new(Path::new(&folder), max_bytes, rate, longest)?)))
    }

    /// Keeps what fits of the samples.
    fn take(&self, samples: &[i16]) -> Next {
        let state = &mut *self.state.lock();
        if state.finished {
            return Next::Wait;
        }
        let format = self.plan.format;
        let fits = samples.len().min(format.samples_in(self.plan.longest) - state.taken);
        state.waiting.extend_from_slice(&samples[..fits]);
        state.taken += fits;
        if fits < samples.len() || state.taken == format.samples_in(self.plan.longest) {
            Next::Finish
        } else if state.waiting.len() >= format.samples_in(WRITE_EVERY) {
            Next::Write
        } else {
            Next::Wait
        }
    }

    /// Writes what waits. The disk's work is done on a thread that may block, and goes on there if this call is
    /// dropped; meanwhile further frames wait in the link.
    async fn write(&self) -> Result<(), HandlerError> {
        let (samples, recording) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.waiting), state.recording.clone())
        };
        let Some(recording) = recording else { return Ok(()) };
        let mut samples = blocking(move || recording.lock().write(&samples).map(|()| samples)).await?;
        samples.clear();
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            state.waiting = samples;
        }
        Ok(())
    }

    /// Writes the rest, closes the file, and returns the output; nothing the second time.
    async fn finish(&self) -> Result<Option<Value>, HandlerError> {
        self.state.lock().finished = true;
        self.write().await?;
        let (recording, taken) = {
            let mut state = self.state.lock();
            (state.recording.take(), state.taken)
        };
        let Some(recording) = recording else { return Ok(None) };
        let path = blocking(move || recording.lock().close()).await?;
        let seconds = self.plan.format.duration(taken).as_secs_f64();
        Ok(path.map(|path| json!({ "path": path, "seconds": seconds })))
    }

    async fn finish_and_end(&self) -> Result<(), HandlerError> {
        if self.state.lock().finished {
            return Ok(());
        }
        if let Some(output) = self.finish().await? {
            self.emits.push(Emit::Output(output));
        }
        self.emits.push(Emit::EndStream(Some("Recording finished".to_owned())));
        Ok(())
    }
}

/// Runs work that blocks on a thread for such work. What the disk says is for the log of the process, not for the
/// client, who would learn its paths.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, HandlerError> {
    match spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::error!(%error, "a recording could not be written");
            Err(HandlerError::new("the recording could not be written"))
        }
        Err(_) => Err(HandlerError::new("the recording was interrupted")),
    }
}

#[async_trait]
impl Handler for Recorder {
    fn media(&self) -> Media {
        Media::Frames { input: self.plan.format, output: self.plan.format }
    }

    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::of(self.plan.clone()))
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        self.session.get_or_init(|| session.clone());
        let plan = self.plan.clone();
        let name = session.context().session_id.to_string();
        let recording = blocking(move || plan.folder.begin(&name, plan.format, plan.longest)).await?;
        let recording = recording.ok_or_else(|| HandlerError::new("there is no room for another recording"))?;
        self.state.lock().recording = Some(Arc::new(Mutex::new(recording)));
        Ok(())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        match input {
            Input::Audio(frame) => {
                if frame.format != self.plan.format {
                    return Err(HandlerError::new("the recorder was given another format than it asked for"));
                }
                let next = self.take(&frame.samples);
                if let Some(session) = self.session.get() {
                    session.recycle(frame.samples);
                }
                match next {
                    Next::Wait => Ok(()),
                    Next::Write => self.write().await,
                    Next::Finish => self.finish_and_end().await,
                }
            }
            Input::Message(text) if text == STOP => self.finish_and_end().await,
            _ => Ok(()),
        }
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        Ok(self.emits.next().await)
    }

    async fn shutdown(&self) {
        // An error was logged where it came up; there is no session left to end with it.
        if let (Ok(Some(output)), Some(session)) = (self.finish().await, self.session.get()) {
            // The client may have gone, and the loop with it: then nobody is interested.
            let _ = session.output(output);
        }
    }
}

#[cfg(test)]
mod tests;
