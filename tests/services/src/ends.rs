//! A second of a tone and then the end, by each of the ways in which an application can end a session.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use serde_json::json;
use streamfleet_handler::{AudioFrame, Emit, Handler, HandlerError, Input, Queue, Registry, Session, async_trait};

use crate::add;
use crate::sound::{audio, tenth};

/// Parts of a tenth of a second before the end.
const PARTS: usize = 10;

pub(crate) fn register(registry: &mut Registry) {
    add(registry, "end-receive", "Ends from `receive`.", || Ends::new(Way::Receive));
    add(registry, "end-task", "Ends from a task of the session.", || Ends::new(Way::Task));
    add(registry, "end-handle", "Ends by a handle, from a thread that knows no session.", || Ends::new(Way::Handle));
    add(registry, "end-target", "A second of a tone, an output when all of it is in the queue, then nothing.", || {
        Ends::new(Way::Never)
    });
    add(registry, "end-other", "Ends the session that the metadata's `end` names.", || EndsOther);
    add(registry, "end-named", "Says back what it hears, and ends the session that an argument names.", EndsNamed::new);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Receive,
    Task,
    Handle,
    Never,
}

struct Ends {
    way: Way,
    said: AtomicUsize,
    session: Mutex<Option<Session>>,
}

impl Ends {
    fn new(way: Way) -> Self {
        Self { way, said: AtomicUsize::new(0), session: Mutex::new(None) }
    }
}

#[async_trait]
impl Handler for Ends {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new(self.way))
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        *self.session.lock() = Some(session.clone());
        Ok(())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if self.way == Way::Receive
            && matches!(input, Input::Audio(_))
            && self.said.load(SeqCst) > PARTS
            && let Some(session) = Session::current()
        {
            // A second end is refused: the first one counts.
            let _ = session.end("bye");
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        let n = self.said.fetch_add(1, SeqCst);
        if n < PARTS {
            return Ok(audio(tenth(660.0, n)));
        }
        // Everything is in the session's queue now: `emit` is asked again only when the last part is taken.
        let session = self.session.lock().clone();
        match (self.way, session) {
            (Way::Task, Some(session)) => {
                let end = async {
                    if let Some(session) = Session::current() {
                        let _ = session.end("bye");
                    }
                };
                session.spawn(end).map_err(HandlerError::new)?;
            }
            (Way::Handle, Some(session)) => {
                // As a tool call on a pool of threads would. It ends at once.
                drop(std::thread::spawn(move || session.end("bye")));
            }
            (Way::Never, Some(session)) => session.output(json!("said")).map_err(HandlerError::new)?,
            (Way::Receive, _) | (_, None) => {}
        }
        std::future::pending().await
    }
}

struct EndsOther;

#[async_trait]
impl Handler for EndsOther {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self)
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        let named = session.context().metadata.get("end").and_then(|end| end.as_str().map(str::to_owned));
        let id = named.ok_or_else(|| HandlerError::new("the metadata names no session"))?;
        let id = id.parse().map_err(HandlerError::new)?;
        session.end_other(&id, "bye").map_err(HandlerError::new)
    }

    async fn receive(&self, _input: Input) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        std::future::pending().await
    }
}

struct EndsNamed {
    frames: Queue<AudioFrame>,
}

impl EndsNamed {
    /// A second of 20 ms frames.
    const WAITING: NonZeroUsize = NonZeroUsize::new(50).expect("fifty is not zero");

    fn new() -> Self {
        Self { frames: Queue::new(Self::WAITING) }
    }
}

#[async_trait]
impl Handler for EndsNamed {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new())
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        match input {
            Input::Audio(frame) => drop(self.frames.push(frame)),
            Input::Args(args) => {
                let named = args.first().and_then(serde_json::Value::as_str);
                let id = named.ok_or_else(|| HandlerError::new("the argument names no session"))?;
                let session = Session::current().ok_or_else(|| HandlerError::new("nobody's session"))?;
                session.end_other(&id.parse().map_err(HandlerError::new)?, "bye").map_err(HandlerError::new)?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        Ok(Emit::Audio(self.frames.next().await))
    }
}
