//! A bounded queue from `receive` to `emit`.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A bounded first-in first-out queue that never blocks its writer: when it is full the oldest item makes room, as
/// in real time the newest is worth most. Any number of writers; one reader.
///
/// ```
/// # tokio_test(async {
/// use std::num::NonZeroUsize;
/// use streamfleet_handler::Queue;
///
/// let queue = Queue::new(NonZeroUsize::MIN.saturating_add(1));
/// assert_eq!(queue.push("a"), None);
/// assert_eq!(queue.push("b"), None);
/// assert_eq!(queue.push("c"), Some("a"));
/// assert_eq!(queue.next().await, "b");
/// # });
/// # fn tokio_test(test: impl Future<Output = ()>) {
/// #     tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
/// # }
/// ```
#[derive(Debug)]
pub struct Queue<T> {
    items: Mutex<VecDeque<T>>,
    filled: Notify,
    bound: NonZeroUsize,
}

impl<T> Queue<T> {
    /// An empty queue that holds at most `bound` items; allocates as it fills.
    #[must_use]
    pub fn new(bound: NonZeroUsize) -> Self {
        Self { items: Mutex::new(VecDeque::new()), filled: Notify::new(), bound }
    }

    /// Appends, and returns the oldest item if it had to make room.
    pub fn push(&self, item: T) -> Option<T> {
        let (evicted, was_empty) = {
            let mut items = self.items.lock();
            let evicted = if items.len() == self.bound.get() { items.pop_front() } else { None };
            let was_empty = items.is_empty();
            items.push_back(item);
            (evicted, was_empty)
        };
        if was_empty {
            self.filled.notify_one();
        }
        evicted
    }

    /// The oldest item, once there is one. Dropping the future loses nothing.
    pub async fn next(&self) -> T {
        loop {
            if let Some(item) = self.items.lock().pop_front() {
                return item;
            }
            self.filled.notified().await;
        }
    }

    /// Forgets what is queued.
    pub fn clear(&self) {
        self.items.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn queue(bound: usize) -> Queue<u32> {
        Queue::new(NonZeroUsize::new(bound).unwrap())
    }

    #[test]
    fn the_oldest_makes_room() {
        let queue = queue(2);
        let evicted: Vec<_> = (1..=4).map(|n| queue.push(n)).collect();
        assert_eq!(evicted, [None, None, Some(1), Some(2)]);
        assert_eq!(queue.next().now_or_never(), Some(3));
        queue.clear();
        assert_eq!(queue.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_and_a_dropped_wait_loses_nothing() {
        let queue = queue(4);
        assert_eq!(queue.next().now_or_never(), None);
        let (got, ()) = tokio::join!(queue.next(), async { assert_eq!(queue.push(7), None) });
        assert_eq!(got, 7);
        queue.push(8);
        queue.push(9);
        assert_eq!((queue.next().await, queue.next().await), (8, 9));
    }
}
