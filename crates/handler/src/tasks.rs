//! The tasks of one session: they end with it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::HandlerError;
use crate::error::Step;

/// Tasks that one session may have at a time: a conversation has a handful of tool calls under way, not hundreds.
pub const MAX_TASKS: usize = 128;

/// Cancelled tasks are gone at their next await; one that never gets there is left behind after this.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Why a task was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The session is over.
    #[error("the session is over")]
    Closed,
    /// The session was made outside of a tokio runtime, and this is not called in one either.
    #[error("there is no runtime")]
    NoRuntime,
    /// It has [`MAX_TASKS`] tasks already.
    #[error("the session has {MAX_TASKS} tasks already")]
    TooMany,
}

pub(crate) struct Tasks {
    tracker: TaskTracker,
    over: CancellationToken,
    /// A handler may start tasks from a thread of its own.
    runtime: Option<Handle>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self { tracker: TaskTracker::new(), over: CancellationToken::new(), runtime: Handle::try_current().ok() }
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Result<(), Refused> {
        if self.over.is_cancelled() {
            return Err(Refused::Closed);
        }
        if self.tracker.len() >= MAX_TASKS {
            return Err(Refused::TooMany);
        }
        let runtime = self.runtime.clone().or_else(|| Handle::try_current().ok()).ok_or(Refused::NoRuntime)?;
        let over = self.over.clone();
        let task = async move {
            let run = AssertUnwindSafe(over.run_until_cancelled_owned(future)).catch_unwind();
            if let Err(panic) = run.await {
                let error = HandlerError::panicked(Step::Task, panic.as_ref());
                tracing::warn!(%error, "a session's task is over");
            }
        };
        self.tracker.spawn_on(task, &runtime);
        Ok(())
    }

    /// Cancels all of them when it is dropped, whatever becomes of the run that they belong to.
    pub(crate) fn guard(&self) -> DropGuard {
        self.over.clone().drop_guard()
    }

    /// Ends all of them.
    pub(crate) async fn end(&self) {
        self.over.cancel();
        self.tracker.close();
        if timeout(END_LIMIT, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "tasks of a session went on after its end");
        }
    }
}
