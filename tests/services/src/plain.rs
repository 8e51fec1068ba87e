//! Handlers that do one thing from their start to their end.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use parking_lot::Mutex;
use serde_json::json;
use streamfleet_handler::{
    AudioFrame, Context, Description, Emit, Handler, HandlerError, Input, Keys, Media, Message, PcmFormat, Queue,
    Registered, Registry, Session, async_trait,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::add;
use crate::sound::{FORMAT, audio, sine};

pub(crate) fn register(registry: &mut Registry) {
    let about = Description::audio("Echo", "What comes in goes out.");
    registry.register("plain-echo", about, |config| {
        let mut keys = Keys::new(config);
        let input = keys.integer("input_sample_rate", 48_000, 8_000..=48_000);
        let output = keys.integer("output_sample_rate", 24_000, 8_000..=48_000);
        keys.finish()?;
        Ok(Registered::Handler(Box::new(Echo::new(input, output))))
    });
    add(registry, "plain-tone", "660 Hz in real time, from the start on.", || Tone::new(Some(660.0)));
    add(registry, "arguments", "Waits for an argument, which is the tone to play.", || Tone::new(None));
    add(registry, "error-receive", "Fails when it hears something.", || Broken(Fault::Receive));
    add(registry, "error-emit", "Fails when it is to speak.", || Broken(Fault::Emit));
    add(registry, "error-panic", "Panics when it hears something.", || Broken(Fault::Panic));
    add(registry, "warning", "Warns once, at the first audio.", Warns::default);
    add(registry, "idle", "Hears and says nothing.", || Idle);
    add(registry, "witness", "Tells its context, and how many of its kind were shut down.", Witness::default);
}

/// What comes in goes out.
struct Echo {
    input: u32,
    output: u32,
    frames: Queue<AudioFrame>,
}

impl Echo {
    /// A second of 20 ms frames: an echo that has fallen behind further is of no use.
    const WAITING: NonZeroUsize = NonZeroUsize::new(50).expect("fifty is not zero");

    fn new(input: u32, output: u32) -> Self {
        Self { input, output, frames: Queue::new(Self::WAITING) }
    }
}

#[async_trait]
impl Handler for Echo {
    fn media(&self) -> Media {
        Media::Frames { input: PcmFormat::mono(self.input), output: PcmFormat::mono(self.output) }
    }

    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new(self.input, self.output))
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let Input::Audio(frame) = input {
            self.frames.push(frame);
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        Ok(Emit::Audio(self.frames.next().await))
    }
}

/// A tone in real time, in frames of 20 ms; without a pitch it asks for one.
struct Tone {
    hz: Option<f64>,
    told: Mutex<Option<f64>>,
    changed: Notify,
    played: Mutex<Option<(Instant, usize)>>,
}

impl Tone {
    fn new(hz: Option<f64>) -> Self {
        Self { hz, told: Mutex::new(hz), changed: Notify::new(), played: Mutex::new(None) }
    }

    async fn hz(&self) -> f64 {
        loop {
            let told = *self.told.lock();
            if let Some(hz) = told {
                return hz;
            }
            self.changed.notified().await;
        }
    }
}

#[async_trait]
impl Handler for Tone {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new(self.hz))
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        if self.hz.is_none() {
            session.send(Message::SendInput).map_err(HandlerError::new)?;
        }
        Ok(())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let Input::Args(args) = input
            && let Some(hz) = args.first().and_then(serde_json::Value::as_f64)
        {
            *self.told.lock() = Some(hz);
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        const FRAME: usize = FORMAT.rate as usize / 50;
        let hz = self.hz().await;
        let (began, sample) = *self.played.lock().get_or_insert_with(|| (Instant::now(), 0));
        sleep_until(began + FORMAT.duration(sample)).await;
        *self.played.lock() = Some((began, sample + FRAME));
        Ok(audio(sine(hz, sample, FRAME)))
    }
}

/// Where a handler fails.
#[derive(Clone, Copy)]
enum Fault {
    Receive,
    Emit,
    Panic,
}

struct Broken(Fault);

#[async_trait]
impl Handler for Broken {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self(self.0))
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        match (self.0, input) {
            (Fault::Receive, Input::Audio(_)) => Err(HandlerError::new("broken on purpose")),
            (Fault::Panic, Input::Audio(_)) => panic!("broken on purpose"),
            _ => Ok(()),
        }
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        match self.0 {
            Fault::Emit => Err(HandlerError::new("broken on purpose")),
            Fault::Receive | Fault::Panic => std::future::pending().await,
        }
    }
}

#[derive(Default)]
struct Warns {
    warned: AtomicBool,
}

#[async_trait]
impl Handler for Warns {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::default())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if matches!(input, Input::Audio(_))
            && !self.warned.swap(true, SeqCst)
            && let Some(session) = Session::current()
        {
            session.send(Message::Warning("careful".to_owned())).map_err(HandlerError::new)?;
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        std::future::pending().await
    }
}

/// Without anything to say `emit` has nothing, as a synchronous one of FastRTC's returns `None`.
struct Idle;

#[async_trait]
impl Handler for Idle {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self)
    }

    async fn receive(&self, _input: Input) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        Ok(Emit::Nothing)
    }
}

#[derive(Default)]
struct Witness {
    told: AtomicBool,
    /// All of the service's sessions.
    shutdowns: Arc<AtomicU64>,
}

#[async_trait]
impl Handler for Witness {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self { told: AtomicBool::new(false), shutdowns: self.shutdowns.clone() })
    }

    async fn receive(&self, _input: Input) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        if self.told.swap(true, SeqCst) {
            std::future::pending::<()>().await;
        }
        let id = Context::current().map(|context| context.session_id.to_string());
        Ok(Emit::Output(json!({ "id": id, "shutdowns": self.shutdowns.load(SeqCst) })))
    }

    async fn shutdown(&self) {
        self.shutdowns.fetch_add(1, SeqCst);
    }
}
