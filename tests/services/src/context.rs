//! Handlers that tell who is calling, and what is remembered of them, by additional outputs.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use streamfleet_handler::{
    AudioFrame, Context, Emit, Handler, HandlerError, Input, Queue, Registry, Session, async_trait,
};
use streamfleet_session::Verification;

use crate::add;

/// How often a handler looks whether the backend has written.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn register(registry: &mut Registry) {
    add(registry, "context", "Tells its context from receive, emit and a task.", Tells::default);
    let summary =
        "Counts its visits in the session's data, tells of what the backend writes, and says back what it hears.";
    add(registry, "memory", summary, Memory::new);
}

/// What a call knows of its session by itself.
fn seen(place: &str) -> Value {
    let Some(context) = Context::current() else { return json!({ "in": place, "context": null }) };
    json!({
        "in": place,
        "session": context.session_id.as_str(),
        "transport": context.transport.as_str(),
        "service": context.service.as_str(),
        "verified": context.verified == Verification::Verified,
        "user": context.user_id.as_ref().map(|user| user.as_str()),
        "metadata": context.metadata.get("colour"),
        "claims": context.claims,
        "variant": context.variant,
        "resumed": context.resumed,
        "trace": context.trace_id,
    })
}

#[derive(Default)]
struct Tells {
    heard: AtomicBool,
    told: AtomicBool,
}

#[async_trait]
impl Handler for Tells {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::default())
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        let task = async {
            if let Some(session) = Session::current() {
                // The session may be over by now.
                let _ = session.output(seen("task"));
            }
        };
        session.spawn(task).map_err(HandlerError::new)
    }

    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if matches!(input, Input::Audio(_))
            && !self.heard.swap(true, SeqCst)
            && let Some(session) = Session::current()
        {
            session.output(seen("receive")).map_err(HandlerError::new)?;
        }
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        if self.told.swap(true, SeqCst) {
            return std::future::pending().await;
        }
        Ok(Emit::Output(seen("emit")))
    }
}

struct Memory {
    frames: Queue<AudioFrame>,
}

impl Memory {
    /// A second of 20 ms frames.
    const WAITING: NonZeroUsize = NonZeroUsize::new(50).expect("fifty is not zero");

    fn new() -> Self {
        Self { frames: Queue::new(Self::WAITING) }
    }
}

#[async_trait]
impl Handler for Memory {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new())
    }

    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        let visit = |data: &mut serde_json::Map<String, Value>| {
            let visits = data.get("visits").and_then(Value::as_u64).unwrap_or(0) + 1;
            data.insert("visits".to_owned(), visits.into());
        };
        let document = session.data().update(visit).await.map_err(HandlerError::new)?;
        let resumed = session.context().resumed;
        session.output(json!({ "resumed": resumed, "data": document.data })).map_err(HandlerError::new)?;
        session.spawn(watch()).map_err(HandlerError::new)
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

/// Tells what the backend has written under `note`, once.
async fn watch() {
    let Some(session) = Session::current() else { return };
    while let Ok(document) = session.data().read().await {
        if let Some(note) = document.data.get("note") {
            // The session may be over by now.
            let _ = session.output(json!({ "note": note, "visits": document.data.get("visits") }));
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
