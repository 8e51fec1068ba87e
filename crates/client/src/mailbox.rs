//! A bounded queue between the call's task and its user that forgets the oldest, never the newest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One writer, any readers. Media that nobody took in time is of no use any more, so the oldest goes first.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    queue: Mutex<VecDeque<T>>,
    limit: usize,
    dropped: AtomicU64,
    closed: AtomicBool,
    filled: Notify,
}

impl<T> Mailbox<T> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            limit,
            dropped: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            filled: Notify::new(),
        }
    }

    pub(crate) fn put(&self, item: T) {
        {
            let mut queue = self.queue.lock();
            if queue.len() >= self.limit {
                queue.pop_front();
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            queue.push_back(item);
        }
        self.filled.notify_one();
    }

    /// The next item; `None` once closed and empty. Safe to cancel.
    pub(crate) async fn take(&self) -> Option<T> {
        loop {
            let filled = self.filled.notified();
            let closed = self.closed.load(Ordering::Acquire);
            let (item, more) = {
                let mut queue = self.queue.lock();
                (queue.pop_front(), !queue.is_empty())
            };
            if more || closed {
                // `notify_one` stores one permit only: hand it on to another reader.
                self.filled.notify_one();
            }
            if item.is_some() || closed {
                return item;
            }
            filled.await;
        }
    }

    /// What is there now, without waiting.
    pub(crate) fn try_take(&self) -> Option<T> {
        self.queue.lock().pop_front()
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.filled.notify_one();
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_oldest_goes_first() {
        let mailbox = Mailbox::new(3);
        (0..5).for_each(|n| mailbox.put(n));
        assert_eq!(mailbox.dropped(), 2);
        mailbox.close();
        let mut found = Vec::new();
        while let Some(n) = mailbox.take().await {
            found.push(n);
        }
        assert_eq!(found, [2, 3, 4]);
        assert_eq!(mailbox.take().await, None, "stays closed");
    }

    #[tokio::test]
    async fn two_readers_share_and_both_end() {
        let mailbox = Arc::new(Mailbox::new(100));
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let mailbox = Arc::clone(&mailbox);
            readers.spawn(async move {
                let mut count = 0;
                while mailbox.take().await.is_some() {
                    count += 1;
                    tokio::task::yield_now().await;
                }
                count
            });
        }
        for n in 0..50 {
            mailbox.put(n);
            tokio::task::yield_now().await;
        }
        mailbox.close();
        let counts: Vec<i32> = readers.join_all().await;
        assert_eq!(counts.iter().sum::<i32>(), 50);
    }
}
