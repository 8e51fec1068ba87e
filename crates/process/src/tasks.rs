//! Owners of what runs: a process is as alive as its parts.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Any error of a subsystem: the shell only reports it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a subsystem came to its end.
#[derive(Debug)]
pub enum Ending {
    /// It returned `Ok`. Before [`Subsystems::stop`] even that is unexpected: a listener has no reason to return.
    Finished,
    /// It returned an error.
    Failed(BoxError),
    /// It panicked, with this message.
    Panicked(String),
    /// It was still running at the deadline of [`Subsystems::stop`], and was dropped (a thread: left behind).
    Overdue,
}

/// The end of one subsystem.
#[derive(Debug)]
pub struct Exit {
    /// The name it was started under.
    pub name: &'static str,
    /// What happened.
    pub ending: Ending,
}

impl Exit {
    /// Whether it ended the way a subsystem should when it is told to stop.
    pub fn is_clean(&self) -> bool {
        matches!(self.ending, Ending::Finished)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.ending {
            Ending::Finished => write!(f, "{} finished", self.name),
            Ending::Failed(error) => write!(f, "{} failed: {error}", self.name),
            Ending::Panicked(message) => write!(f, "{} panicked: {message}", self.name),
            Ending::Overdue => write!(f, "{} did not stop in time", self.name),
        }
    }
}

/// The parts that a process cannot live without: tasks and threads. Dropping it ends the tasks.
#[derive(Debug, Default)]
pub struct Subsystems {
    set: JoinSet<Ending>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
}

impl Subsystems {
    /// No part yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the parts are to stop; every part should watch it.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task on the current tokio runtime.
    pub fn spawn<E: Into<BoxError>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let id = self.set.spawn(async move { ending(task.await) }).id();
        self.names.insert(id, name);
    }

    /// Runs a thread of the operating system, for work that must not share a runtime. It cannot be killed: it has to
    /// watch [`Subsystems::stopping`].
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn spawn_thread<E: Into<BoxError>>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> std::io::Result<()> {
        let (done, outcome) = oneshot::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let ending = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(result) => ending(result),
                Err(panic) => Ending::Panicked(panic_message(panic.as_ref())),
            };
            // Nobody listens any more once the set is gone; then nobody wants to know.
            let _ = done.send(ending);
        })?;
        let id = self.set.spawn(async move { outcome.await.unwrap_or(Ending::Overdue) }).id();
        self.names.insert(id, name);
        Ok(())
    }

    /// The next part that ends; `None` when there is none left. Before [`stop`](Self::stop), any answer is a reason to
    /// end the process. Cancel-safe.
    pub async fn next_exit(&mut self) -> Option<Exit> {
        let joined = self.set.join_next_with_id().await?;
        let (id, ending) = match joined {
            Ok((id, ending)) => (id, ending),
            Err(error) => (error.id(), join_error(error)),
        };
        let name = self.names.remove(&id).expect("invariant: every task of the set has a name");
        Some(Exit { name, ending })
    }

    /// Tells all parts to stop and waits for them, until `grace` is over; what is left then is dropped.
    pub async fn stop(mut self, grace: Duration) -> Vec<Exit> {
        self.stop.cancel();
        let deadline = Instant::now() + grace;
        let mut exits = Vec::new();
        loop {
            match timeout_at(deadline, self.next_exit()).await {
                Ok(Some(exit)) => exits.push(exit),
                Ok(None) => return exits,
                Err(_) => break,
            }
        }
        let mut overdue: Vec<_> = self.names.into_values().collect();
        overdue.sort_unstable();
        exits.extend(overdue.into_iter().map(|name| Exit { name, ending: Ending::Overdue }));
        exits
    }
}

fn ending<E: Into<BoxError>>(result: Result<(), E>) -> Ending {
    match result {
        Ok(()) => Ending::Finished,
        Err(error) => Ending::Failed(error.into()),
    }
}

fn join_error(error: JoinError) -> Ending {
    match error.try_into_panic() {
        Ok(panic) => Ending::Panicked(panic_message(panic.as_ref())),
        Err(_) => Ending::Overdue,
    }
}

/// The text of a caught panic; panics with other payloads have none.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), BoxError>;

    async fn first(start: impl FnOnce(&mut Subsystems)) -> String {
        let mut subsystems = Subsystems::new();
        subsystems.spawn("idle", std::future::pending::<Outcome>());
        start(&mut subsystems);
        subsystems.next_exit().await.unwrap().to_string()
    }

    #[tokio::test]
    async fn every_way_to_end_is_told_with_the_name() {
        assert_eq!(first(|s| s.spawn("a", async { Outcome::Ok(()) })).await, "a finished");
        assert_eq!(first(|s| s.spawn("b", async { Err("no port") })).await, "b failed: no port");
        assert_eq!(first(|s| s.spawn("c", async { panic!("at {}", 1) as Outcome })).await, "c panicked: at 1");
        assert_eq!(first(|s| s.spawn_thread("d", || Outcome::Ok(())).unwrap()).await, "d finished");
        assert_eq!(first(|s| s.spawn_thread("e", || Err("no core")).unwrap()).await, "e failed: no core");
        assert_eq!(first(|s| s.spawn_thread("f", || panic!("x") as Outcome).unwrap()).await, "f panicked: x");
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_those_who_listen_and_names_those_who_do_not() {
        let mut subsystems = Subsystems::new();
        let stopping = subsystems.stopping();
        subsystems.spawn("polite", async move {
            stopping.cancelled().await;
            Outcome::Ok(())
        });
        subsystems.spawn("deaf", std::future::pending::<Outcome>());
        subsystems.spawn("mute", std::future::pending::<Outcome>());
        let begun = Instant::now();
        let exits: Vec<String> =
            subsystems.stop(Duration::from_secs(5)).await.iter().map(ToString::to_string).collect();
        assert_eq!(exits, ["polite finished", "deaf did not stop in time", "mute did not stop in time"]);
        assert_eq!(begun.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn an_empty_set_has_no_exit() {
        assert!(Subsystems::new().next_exit().await.is_none());
        assert!(Subsystems::new().stop(Duration::ZERO).await.is_empty());
    }
}
