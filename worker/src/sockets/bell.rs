//! What a session's task waits for, each source with a bell: a turn looks only at those that rang.
//!
//! A task that waits for six things has to ask all of them whenever one happens, and most of what it asks takes a lock to say
//! that there is nothing new. With a bell a source is asked once, and then when it has called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Release};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// The bell of one source. It has rung at first: nobody has looked yet.
#[derive(Debug)]
pub(crate) struct Bell {
    rung: AtomicBool,
    listener: AtomicWaker,
}

impl Bell {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { rung: AtomicBool::new(true), listener: AtomicWaker::new() })
    }

    /// Says that there is something; from any thread.
    pub(crate) fn ring(&self) {
        // Whoever has rung before has woken the listener, who has not looked since.
        if !self.rung.swap(true, AcqRel) {
            self.listener.wake();
        }
    }

    /// Whether it has rung since the last time; if it has not, the task is woken when it does.
    pub(crate) fn heard(&self, cx: &Context<'_>) -> bool {
        // Listening before looking: what rings in between is not missed.
        self.listener.register(cx.waker());
        self.rung.swap(false, AcqRel)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Polls one source, when it has rung. The source must be polled through this and in no other way, or it calls somebody else.
#[derive(Debug)]
pub(crate) struct Ear {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let bell = Bell::new();
        Self { waker: Waker::from(bell.clone()), bell }
    }

    /// Has the source polled at the next time even if it does not call.
    pub(crate) fn look(&self) {
        self.bell.rung.store(true, Release);
    }

    /// For a source that is asked whether it has called or not.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// Polls the source if it has called, or has been ready at the last time. Whoever gets something has to come again before
    /// it sleeps.
    pub(crate) fn poll<T>(&self, cx: &Context<'_>, source: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if !self.bell.heard(cx) {
            return Poll::Pending;
        }
        let polled = source(&mut self.context());
        if polled.is_ready() {
            // It calls only after it has said that there is nothing more. Nobody need be woken for that: who has got
            // something comes again.
            self.look();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::sync::mpsc;

    use super::*;

    /// A task that counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_source_is_asked_until_it_has_nothing_and_then_when_it_calls() {
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let cx = Context::from_waker(&waker);
        let (ear, (sender, mut words), mut asked) = (Ear::new(), mpsc::channel(4), 0);
        let mut check = |expected: Poll<Option<u8>>, asks: usize, wakes: usize| {
            let polled = ear.poll(&cx, |cx| {
                asked += 1;
                words.poll_recv(cx)
            });
            assert_eq!((polled, asked, woken.0.load(Relaxed)), (expected, asks, wakes));
        };
        check(Poll::Pending, 1, 0);
        check(Poll::Pending, 1, 0);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        check(Poll::Ready(Some(1)), 2, 1);
        check(Poll::Ready(Some(2)), 3, 1);
        check(Poll::Pending, 4, 1);
        check(Poll::Pending, 4, 1);
        sender.try_send(3).unwrap();
        check(Poll::Ready(Some(3)), 5, 2);
    }

    #[test]
    fn who_looks_from_another_task_is_woken_there() {
        let [first, second] = [(); 2].map(|()| Arc::<Woken>::default());
        let bell = Bell::new();
        let looks = |woken: &Arc<Woken>| bell.heard(&Context::from_waker(&Waker::from(woken.clone())));
        assert!(looks(&first), "nobody has looked");
        assert!(!looks(&first) && !looks(&second));
        bell.ring();
        bell.ring();
        assert_eq!([&first, &second].map(|woken| woken.0.load(Relaxed)), [0, 1]);
        assert!(looks(&first) && !looks(&first));
    }
}
