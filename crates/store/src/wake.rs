//! Wake-ups: that something may have changed, never what. Whoever is woken reads.
//!
//! A wake-up may come for nothing, and several may come as one; one may be lost while a store cannot be reached. So a
//! listener reads now and then without one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use streamfleet_session::{ServiceName, SessionId};
use tokio::sync::watch;

use crate::words::WorkerId;

/// What a listener wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Something is asked of this worker.
    Worker(WorkerId),
    /// A worker came, went, or takes sessions or no longer; calls begin to wait for one at some router, or none waits any more.
    Directory,
    /// A session of this id moved on in its life, gave an output, or was seen to.
    Session(SessionId),
}

pub(crate) type Channel = (ServiceName, Topic);

/// Where wake-ups come from.
pub trait Wakeups: Send + Sync + 'static {
    /// Listens from now on. A listener hears at least once after it really listens, so a reader who loops over "read, then
    /// wait" misses nothing.
    fn listen(&self, service: &ServiceName, topic: Topic) -> Listener;
}

/// A listener; drop it to stop.
#[derive(Debug)]
pub struct Listener {
    receiver: watch::Receiver<u64>,
    // Declared after the receiver, so that it counts only those that are left.
    _place: Place,
}

impl Listener {
    /// Waits until it is woken. May be cancelled without losing a wake-up.
    pub async fn woken(&mut self) {
        // The hub lives as long as the place in it.
        let _ = self.receiver.changed().await;
    }
}

#[derive(Debug)]
struct Place {
    hub: Arc<Hub>,
    channel: Channel,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.leave(&self.channel);
    }
}

/// The listeners of a process, by what they listen to. Bounded by those who hold a [`Listener`].
#[derive(Debug, Default)]
pub(crate) struct Hub {
    channels: Mutex<HashMap<Channel, watch::Sender<u64>>>,
    /// Told whenever the set of channels changes.
    changes: tokio::sync::Notify,
}

impl Hub {
    pub(crate) fn listen(self: &Arc<Self>, channel: Channel) -> Listener {
        let receiver = {
            let mut channels = self.channels.lock();
            channels.entry(channel.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
        };
        self.changes.notify_one();
        Listener { receiver, _place: Place { hub: self.clone(), channel } }
    }

    fn leave(&self, channel: &Channel) {
        let mut channels = self.channels.lock();
        if channels.get(channel).is_some_and(|sender| sender.receiver_count() == 0) {
            channels.remove(channel);
            drop(channels);
            self.changes.notify_one();
        }
    }

    pub(crate) fn wake(&self, channel: &Channel) {
        if let Some(sender) = self.channels.lock().get(channel) {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    pub(crate) fn wake_all(&self) {
        for sender in self.channels.lock().values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// What is listened to now.
    pub(crate) fn channels(&self) -> Vec<Channel> {
        self.channels.lock().keys().cloned().collect()
    }

    /// Waits until that may have changed.
    pub(crate) async fn changed(&self) {
        self.changes.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn channel(worker: &str) -> Channel {
        ("echo".parse().unwrap(), Topic::Worker(worker.parse().unwrap()))
    }

    #[test]
    fn listeners_hear_their_own_and_leave_nothing_behind() {
        let hub = Arc::new(Hub::default());
        let (mut a, mut b) = (hub.listen(channel("a")), hub.listen(channel("b")));
        let also_a = hub.listen(channel("a"));
        hub.wake(&channel("a"));
        hub.wake(&channel("a"));
        assert!(a.woken().now_or_never().is_some());
        assert!(a.woken().now_or_never().is_none(), "two wake-ups came as one");
        assert!(b.woken().now_or_never().is_none());
        drop(a);
        assert_eq!(hub.channels().len(), 2, "one listener of a is left");
        drop((also_a, b));
        assert!(hub.channels().is_empty());
    }
}
