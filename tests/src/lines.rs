//! A child's output as lines with a deadline.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What is kept for the report of a failed test; older lines are forgotten.
const TAIL: usize = 200;

/// The last lines of one child, over all its pipes.
#[derive(Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The lines, oldest first, each ended by a newline.
    pub(crate) fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .fold(String::new(), |text, line| text + line + "\n")
    }
}

/// Lines of a pipe, read by a thread of their own so that the child never blocks on a full pipe.
pub(crate) struct Lines(Mutex<Receiver<String>>);

impl Lines {
    /// Reads `pipe` to its end; every line also goes to `tail`.
    pub(crate) fn read(pipe: impl Read + Send + 'static, tail: &Tail) -> Self {
        let (sender, receiver) = channel();
        let tail = tail.clone();
        thread::spawn(move || pump(pipe, &tail, &sender));
        Self(Mutex::new(receiver))
    }

    /// The next line, or `None` at the deadline and at the pipe's end.
    pub(crate) fn next_before(&self, deadline: Instant) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// Waits until the pipe has ended, at most `limit`.
    pub(crate) fn drain(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.next_before(deadline).is_some() {}
    }
}

fn pump(pipe: impl Read, tail: &Tail, sender: &Sender<String>) {
    for line in BufReader::new(pipe).lines() {
        // A line that is no UTF-8 ends the reading as the pipe's end does: the waiting test then fails with the tail.
        let Ok(line) = line else { return };
        tail.push(&line);
        // The reader may have stopped listening; the pipe is still emptied.
        let _ = sender.send(line);
    }
}
