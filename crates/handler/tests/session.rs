//! What a handler and its tasks can do with their session's handle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use streamfleet_handler::testing::{Drive, context, sine};
use streamfleet_handler::{
    Closed, Context, Data, Emit, Ended, Handler, HandlerError, Input, LinkConfig, MAX_TASKS, Message, Neighbours,
    PcmFormat, Refused, Session, async_trait, link,
};
use tokio::sync::oneshot;

type Seen = Arc<Mutex<Vec<(&'static str, Option<String>)>>>;

/// Writes down which session each call finds.
struct Witness {
    seen: Seen,
}

impl Witness {
    fn note(&self, call: &'static str) {
        self.seen.lock().push((call, Context::current().map(|context| context.session_id.to_string())));
    }
}

#[async_trait]
impl Handler for Witness {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self { seen: self.seen.clone() })
    }
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        self.note("start_up");
        let seen = self.seen.clone();
        let task = async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let of = Context::current().map(|context| context.session_id.to_string());
            seen.lock().push(("task", of));
            // A tool call that decides to hang up.
            Session::current().unwrap().end("bye").unwrap();
        };
        session.spawn(task).map_err(|error| HandlerError::new(error.to_string()))
    }
    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        self.note("receive");
        Ok(())
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        self.note("emit");
        std::future::pending().await
    }
    async fn reset(&self) {
        self.note("reset");
    }
    async fn shutdown(&self) {
        self.note("shutdown");
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_and_every_task_finds_its_own_session() {
    let seen = ["one", "two"].map(|_| Seen::default());
    let mut drives = Vec::new();
    for (id, seen) in ["one", "two"].into_iter().zip(&seen) {
        let handler = Box::new(Witness { seen: seen.clone() });
        let drive = Drive::start_with(handler, context(id), LinkConfig::default());
        drive.push(Input::Message("hello".into()));
        drive.link().clear_audio();
        drives.push(drive);
    }
    for drive in &mut drives {
        assert_eq!(drive.ended().await, Ended::EndStream(Some("bye".into())));
    }
    for (id, seen) in ["one", "two"].into_iter().zip(&seen) {
        let seen = seen.lock();
        for call in ["start_up", "receive", "emit", "reset", "task", "shutdown"] {
            assert!(seen.contains(&(call, Some(id.to_owned()))), "{call} of {id}: {seen:?}");
        }
        assert!(seen.iter().all(|(_, of)| of.as_deref() == Some(id)), "{id}: {seen:?}");
    }
    assert!(Context::current().is_none(), "outside of any session");
}

/// Tells when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

/// Starts the tasks it is given and otherwise waits.
struct Busy(Mutex<Vec<oneshot::Sender<()>>>);

#[async_trait]
impl Handler for Busy {
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self(Mutex::default()))
    }
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        for sender in self.0.lock().drain(..) {
            let held = Dropped(Some(sender));
            session
                .spawn(async move {
                    let _held = held;
                    std::future::pending().await
                })
                .map_err(|error| HandlerError::new(error.to_string()))?;
        }
        session.spawn(async { panic!("a tool call broke") }).map_err(|error| HandlerError::new(error.to_string()))
    }
    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        Ok(())
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_end_with_their_session_and_their_panics_with_themselves() {
    let (sender, dropped) = oneshot::channel();
    let mut drive = Drive::start(Box::new(Busy(Mutex::new(vec![sender]))));
    drive.settle().await;
    assert_eq!(drive.session().end("done"), Ok(()), "a task's panic is not the session's");
    assert_eq!(drive.ended().await, Ended::EndStream(Some("done".into())));
    assert_eq!(dropped.await, Ok(()));
    assert_eq!(drive.session().spawn(async {}), Err(Refused::Closed));
}

#[tokio::test]
async fn a_thread_of_the_applications_own_starts_tasks_too() {
    let (_loop_end, task_end) = link(LinkConfig::default(), Arc::new(|| {}));
    let session = Session::new(context("thread"), &task_end);
    let (sender, done) = oneshot::channel();
    let started = std::thread::spawn(move || {
        session.spawn(async move {
            let _ = sender.send(Context::current().is_some());
        })
    });
    assert_eq!(started.join().unwrap(), Ok(()));
    assert_eq!(done.await, Ok(true));
}

#[tokio::test]
async fn tasks_are_bounded() {
    let (_loop_end, task_end) = link(LinkConfig::default(), Arc::new(|| {}));
    let session = Session::new(context("many"), &task_end);
    for _ in 0..MAX_TASKS {
        assert_eq!(session.spawn(std::future::pending()), Ok(()));
    }
    assert_eq!(session.spawn(std::future::pending()), Err(Refused::TooMany));
}

#[tokio::test]
async fn what_is_cleared_is_forgotten_on_both_sides_of_the_link() {
    let (loop_end, task_end) = link(LinkConfig::default(), Arc::new(|| {}));
    let session = Session::new(context("clear"), &task_end);
    let frame = sine(PcmFormat::mono(24_000), 440.0, -20.0).next().unwrap();
    task_end.send(Emit::Audio(frame.clone())).await.unwrap();
    session.output(serde_json::json!(1)).unwrap();
    session.send_now(Message::Log("started_talking".into())).unwrap();
    session.clear().unwrap();
    session.clear().unwrap();
    task_end.send(Emit::Audio(frame.clone())).await.unwrap();
    let urgent: Vec<_> = std::iter::from_fn(|| loop_end.pop_urgent()).collect();
    assert_eq!(urgent, [Emit::Message(Message::Log("started_talking".into())), Emit::Clear], "in order, and once");
    assert_eq!(loop_end.pop(), Some(Emit::Output(serde_json::json!(1))));
    assert_eq!(loop_end.pop(), Some(Emit::Audio(frame.clone())), "what comes after the clearing is new");
    assert_eq!(loop_end.pop(), None);
    task_end.send(Emit::Audio(frame.clone())).await.unwrap();
    task_end.send(Emit::Clear).await.unwrap();
    assert_eq!(loop_end.pop(), Some(Emit::Clear), "emitted, it does the same");
    assert_eq!(loop_end.pop(), None);
    drop(loop_end);
    assert_eq!(session.clear(), Err(Closed));
}

struct Others(Mutex<Vec<(String, String)>>);

impl Neighbours for Others {
    fn end(&self, id: &streamfleet_session::SessionId, message: &str) -> Result<(), Closed> {
        if id.as_str() == "gone" {
            return Err(Closed);
        }
        self.0.lock().push((id.to_string(), message.to_owned()));
        Ok(())
    }
}

#[tokio::test]
async fn a_session_ends_another_by_its_id() {
    let (_loop_end, task_end) = link(LinkConfig::default(), Arc::new(|| {}));
    let others = Arc::new(Others(Mutex::default()));
    let session = Session::with(context("one"), &task_end, Data::detached(), Some(others.clone()));
    assert_eq!(session.end_other(&"two".parse().unwrap(), "your turn"), Ok(()));
    assert_eq!(session.end_other(&"gone".parse().unwrap(), "x"), Err(Closed));
    assert_eq!(*others.0.lock(), [("two".to_owned(), "your turn".to_owned())]);
    let alone = Session::new(context("alone"), &task_end);
    assert_eq!(alone.end_other(&"two".parse().unwrap(), "x"), Err(Closed));
}
