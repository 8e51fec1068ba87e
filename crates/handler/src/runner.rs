//! Runs one session's handler on one task.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::task::coop;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::Step;
use crate::link::{Event, TaskEnd};
use crate::{Emit, Handler, HandlerError, Session};

/// `start_up` may load a model or call a service; beyond this the client has long given up.
pub const START_UP_LIMIT: Duration = Duration::from_secs(30);

/// `shutdown` may write a file or a record; a drain must not wait for more.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// How soon `emit` is asked again after [`Emit::Nothing`] when no input comes: at first one frame's time, doubling
/// while it has nothing, so that a quiet session soon costs two calls a second.
const FIRST_PARK: Duration = Duration::from_millis(20);
const LONGEST_PARK: Duration = Duration::from_millis(500);

/// How a handler's run was over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// The handler ended the session; the end stands in the link behind what was emitted before it.
    EndStream(Option<String>),
    /// A call failed, panicked or took too long.
    Failed(HandlerError),
    /// Cancelled from outside, or the media loop's end of the link has gone.
    Cancelled,
}

/// Runs `handler` until it ends its session, fails, or is cancelled: `start_up` once, then `receive` and `emit`
/// concurrently, at last `shutdown`. Everything happens in the calling task; a call that is under way at the end is
/// dropped at its await. The link stays open for outputs until `shutdown` has returned.
///
/// If this future itself is dropped, so is the call under way, and the link closes; only `shutdown`, which is async,
/// cannot run then. Cancel instead.
pub async fn run(handler: Box<dyn Handler>, session: Session, end: TaskEnd, cancel: CancellationToken) -> Ended {
    let run = async {
        let ended = tokio::select! {
            // An end that was asked for outranks whatever the handler does at the same moment.
            biased;
            () = cancel.cancelled() => Ended::Cancelled,
            ended = end.ended() => ended.map_or(Ended::Cancelled, Ended::EndStream),
            failed = serve(handler.as_ref(), &session, &end) => failed,
        };
        shut_down(handler.as_ref(), &session).await;
        ended
    };
    let _tasks = session.tasks().guard();
    let ended = session.scope(run).await;
    session.tasks().end().await;
    ended
}

/// `start_up`, then both loops until one fails. The end of the stream is noticed by the caller.
async fn serve(handler: &dyn Handler, session: &Session, end: &TaskEnd) -> Ended {
    let start_up = guarded(Step::StartUp, handler.start_up(session));
    let started = match timeout(START_UP_LIMIT, start_up).await {
        Ok(outcome) => outcome.and_then(|outcome| outcome),
        Err(_) => Err(HandlerError::Deadline { step: Step::StartUp, limit: START_UP_LIMIT }),
    };
    if let Err(error) = started {
        return Ended::Failed(error);
    }
    let received = Notify::new();
    tokio::select! {
        ended = receive_loop(handler, end, &received) => ended,
        ended = emit_loop(handler, end, &received) => ended,
    }
}

/// Feeds the handler; returns only when a call fails.
async fn receive_loop(handler: &dyn Handler, end: &TaskEnd, received: &Notify) -> Ended {
    let mut step = Step::Receive;
    let calls = async {
        while let Some(event) = end.event().await {
            match event {
                Event::Input(input) => {
                    step = Step::Receive;
                    handler.receive(input).await?;
                }
                Event::Reset => {
                    step = Step::Reset;
                    handler.reset().await;
                }
            }
            received.notify_one();
            // With input always waiting and `receive` always ready, this loop would never let the other one run.
            coop::consume_budget().await;
        }
        closed().await
    };
    let outcome = AssertUnwindSafe(calls).catch_unwind().await;
    failed(step, outcome)
}

/// Asks the handler; returns only when a call fails.
async fn emit_loop(handler: &dyn Handler, end: &TaskEnd, received: &Notify) -> Ended {
    let calls = async {
        let mut park = FIRST_PARK;
        loop {
            match checked(handler.emit().await?)? {
                Emit::Nothing => {
                    park = match timeout(park, received.notified()).await {
                        Ok(()) => FIRST_PARK,
                        Err(_) => (park * 2).min(LONGEST_PARK),
                    };
                }
                emit => {
                    park = FIRST_PARK;
                    let is_end = ends(&emit);
                    if end.send(emit).await.is_err() || is_end {
                        break closed().await;
                    }
                }
            }
            coop::consume_budget().await;
        }
    };
    let outcome = AssertUnwindSafe(calls).catch_unwind().await;
    failed(Step::Emit, outcome)
}

/// Whether the stream is over after it.
fn ends(emit: &Emit) -> bool {
    match emit {
        Emit::EndStream(_) => true,
        Emit::All(parts) => parts.iter().any(ends),
        _ => false,
    }
}

/// Audio without samples is nothing: it would be asked for again at once and for ever. Audio without a rate or without
/// channels cannot be played, and no bound on time would hold it back.
fn checked(emit: Emit) -> Result<Emit, HandlerError> {
    match &emit {
        Emit::Audio(frame) if frame.format.rate == 0 || frame.format.channels == 0 => {
            Err(HandlerError::new("the handler emitted audio without a rate or without channels"))
        }
        Emit::Audio(frame) if frame.samples.is_empty() => Ok(Emit::Nothing),
        _ => match emit {
            Emit::All(parts) => {
                let parts: Vec<Emit> = parts.into_iter().map(checked).collect::<Result<_, _>>()?;
                let is_nothing = parts.iter().all(|part| *part == Emit::Nothing);
                Ok(if is_nothing { Emit::Nothing } else { Emit::All(parts) })
            }
            emit => Ok(emit),
        },
    }
}

/// The link has closed or the stream has ended. `run` watches for both and knows which it was, so a loop that has no
/// more to do waits to be dropped.
async fn closed() -> Result<Infallible, HandlerError> {
    std::future::pending().await
}

fn failed(step: Step, outcome: Result<Result<Infallible, HandlerError>, Box<dyn Any + Send>>) -> Ended {
    Ended::Failed(match outcome {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error,
        Err(panic) => HandlerError::panicked(step, panic.as_ref()),
    })
}

/// Runs one call and turns its panic into an error. The handler may be left in any state: it is only shut down and
/// dropped after a panic.
async fn guarded<T>(step: Step, call: impl Future<Output = T>) -> Result<T, HandlerError> {
    AssertUnwindSafe(call).catch_unwind().await.map_err(|panic| HandlerError::panicked(step, panic.as_ref()))
}

async fn shut_down(handler: &dyn Handler, session: &Session) {
    let shut_down = match timeout(SHUTDOWN_LIMIT, guarded(Step::Shutdown, handler.shutdown())).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HandlerError::Deadline { step: Step::Shutdown, limit: SHUTDOWN_LIMIT }),
    };
    if let Err(error) = shut_down {
        tracing::warn!(session = %session.context().session_id, %error, "the handler did not shut down");
    }
}

#[cfg(test)]
mod tests;
