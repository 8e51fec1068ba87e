//! The handler's side of a link in a test's hands.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use futures_util::FutureExt;
use streamfleet_handler::{Emit, Input, TaskEnd};

/// The handler's end of a link, without a runtime: what would wait is asked again the next time.
pub(super) struct Hand {
    end: Rc<TaskEnd>,
    sending: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Hand {
    pub(super) fn new(end: TaskEnd) -> Self {
        Hand { end: Rc::new(end), sending: None }
    }

    pub(super) fn receive(&self) -> Option<Input> {
        self.end.recv().now_or_never().flatten()
    }

    /// False while the emit before it waits for room.
    pub(super) fn ready(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if self.sending.as_mut().is_some_and(|s| s.as_mut().poll(&mut context).is_ready()) {
            self.sending = None;
        }
        self.sending.is_none()
    }

    /// Gives up waiting for room; what was emitted keeps its place.
    pub(super) fn withdraw(&mut self) {
        self.sending = None;
    }

    pub(super) fn send(&mut self, emit: Emit) {
        assert!(self.ready());
        let end = self.end.clone();
        self.sending = Some(Box::pin(async move { end.send(emit).await.unwrap() }));
        self.ready();
    }
}
