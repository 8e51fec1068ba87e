//! A session's additional outputs as server-sent events (HTML Living Standard, 9.2): a bounded history that any number
//! of readers follow, each at its own place.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

/// Outputs kept: what a page has missed while it reconnected, and for one that comes late the conversation so far.
pub const MAX_EVENTS: usize = 256;

/// Bytes kept over all outputs. The newest is always kept, so one that is larger stands alone.
pub const MAX_BYTES: usize = 1 << 20;

/// The largest output, in bytes of JSON: four of them still fit. An output is a message, not a file.
pub const MAX_OUTPUT: usize = 256 * 1024;

/// A reader that gets nothing for so long gets a comment, or a proxy takes the connection for dead.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long outputs should be kept after their session's end: EventSource comes back within seconds.
pub const AFTERLIFE: Duration = Duration::from_secs(30);

/// At most about so many bytes are given at once, plus one output: a reader that comes late does not get a megabyte in
/// one piece.
const CHUNK: usize = 16 * 1024;

/// An output was too large. It is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an output must be at most {MAX_OUTPUT} bytes of JSON")]
pub struct OutputTooLarge;

/// Earlier histories whose marks are known: a client that has gone from worker to worker more often gets all outputs again.
const MAX_EARLIER: usize = 8;

/// An output's name on the wire: which history has numbered it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// The history's mark.
    pub mark: u32,
    /// From 1.
    pub number: u64,
}

/// A text that names no output of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an output")]
pub struct InvalidEventId;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.mark, self.number)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let (mark, number) = text.trim().split_once('-').ok_or(InvalidEventId)?;
        let is_mark = mark.len() == 8 && mark.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mark = is_mark.then(|| u32::from_str_radix(mark, 16).ok()).flatten().ok_or(InvalidEventId)?;
        Ok(Self { mark, number: number.parse().map_err(|_| InvalidEventId)? })
    }
}

/// One output as an event. Compact JSON has no line breaks, so one data line holds it.
#[must_use]
pub fn event(id: EventId, json: &str) -> String {
    format!("id: {id}\nevent: output\ndata: {json}\n\n")
}

/// What a reader is told instead of outputs that are no longer kept.
#[must_use]
pub fn missing(count: u64) -> String {
    format!(": {count} outputs are no longer kept\n\n")
}

/// What keeps a stream alive in which nothing happens.
pub const KEEP_ALIVE_COMMENT: &str = ": keep-alive\n\n";

/// The outputs of sessions on other workers, which a history [goes on](Outputs::adopt) from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The last output of each history that these are from, the latest at the end. One number is one output in all of them.
    pub marks: Vec<EventId>,
    /// Those that are kept; the last has the number of the last mark.
    pub texts: Vec<String>,
}

/// The outputs of one session, numbered from 1. As each id also has the history's mark, a reader that has seen another
/// history, perhaps under the same session id, is not taken for one that has seen this.
#[derive(Debug)]
pub struct Outputs {
    mark: u32,
    /// The last output of each history that this one follows.
    earlier: Vec<EventId>,
    kept: VecDeque<Arc<str>>,
    bytes: usize,
    /// The number of the newest; that of the oldest kept follows.
    last: u64,
    ended_at: Option<Instant>,
}

impl Outputs {
    /// A history without outputs. `mark` is to be another for each, at random.
    #[must_use]
    pub fn new(mark: u32) -> Self {
        Self { mark, earlier: Vec::new(), kept: VecDeque::new(), bytes: 0, last: 0, ended_at: None }
    }

    /// Adds one additional output: its single argument, or the array of several.
    ///
    /// # Errors
    /// [`OutputTooLarge`].
    pub fn push(&mut self, arguments: &[Value]) -> Result<u64, OutputTooLarge> {
        let json = match arguments {
            [argument] => bounded(argument)?,
            arguments => bounded(arguments)?,
        };
        self.bytes += json.len();
        self.kept.push_back(json.into());
        self.last += 1;
        self.trim();
        Ok(self.last)
    }

    fn trim(&mut self) {
        while self.kept.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.kept.len() > 1) {
            self.bytes -= self.kept.pop_front().map_or(0, |json| json.len());
        }
    }

    /// Goes on where others ended: these come before what is here, whose numbers follow theirs. Before anybody has been told
    /// a number.
    pub fn adopt(&mut self, earlier: Earlier) {
        let Earlier { mut marks, texts } = earlier;
        self.last += marks.last().map_or(0, |last| last.number);
        self.bytes += texts.iter().map(String::len).sum::<usize>();
        let own = std::mem::take(&mut self.kept);
        self.kept = texts.into_iter().map(Arc::from).chain(own).collect();
        marks.drain(..marks.len().saturating_sub(MAX_EARLIER));
        self.earlier = marks;
        self.trim();
    }

    /// What tells its numbers from those of others.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// The last output of each history that this one follows.
    #[must_use]
    pub fn earlier(&self) -> &[EventId] {
        &self.earlier
    }

    /// The number of the newest output; 0 if there has been none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What is kept behind number `after`, with its numbers, the oldest first.
    pub fn after(&self, after: u64) -> impl Iterator<Item = (u64, &Arc<str>)> {
        let oldest = self.oldest();
        let skipped = usize::try_from((after + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        (oldest..).zip(&self.kept).skip(skipped)
    }

    /// The session is over: no more comes.
    pub fn end(&mut self, now: Instant) {
        self.ended_at.get_or_insert(now);
    }

    /// Another session goes on where the one before ended: its outputs follow, under the numbers that follow.
    pub fn resume(&mut self) {
        self.ended_at = None;
    }

    /// Gives up what is kept. Whoever still reads has nothing more to come.
    pub fn forget(&mut self, now: Instant) {
        self.kept = VecDeque::new();
        self.bytes = 0;
        self.end(now);
    }

    /// The newest outputs that are kept, at most `count`, the oldest first, as JSON.
    pub fn recent(&self, count: usize) -> impl Iterator<Item = &str> {
        self.kept.iter().skip(self.kept.len().saturating_sub(count)).map(AsRef::as_ref)
    }

    /// Bytes of all outputs that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When these outputs may be forgotten.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        self.ended_at?.checked_add(AFTERLIFE)
    }

    /// A reader that has seen `last_event_id`, as its header says. `None` is to be answered by 204: the session is over
    /// and everything was seen, and an EventSource gives up on nothing else.
    ///
    /// Without the header, or with one that is none of ours, it gets everything that is kept.
    #[must_use]
    pub fn open(&self, now: Instant, last_event_id: Option<&str>) -> Option<Cursor> {
        let seen = last_event_id.and_then(|id| self.number(id)).unwrap_or(0);
        let has_seen_all = self.ended_at.is_some() && seen == self.last;
        (!has_seen_all).then_some(Cursor { seen, written_at: now })
    }

    /// Which output an event id names, if it is one of ours.
    fn number(&self, id: &str) -> Option<u64> {
        let EventId { mark, number } = id.parse().ok()?;
        if mark == self.mark {
            return Some(number).filter(|number| *number <= self.last);
        }
        // What only that history's readers have seen after this one has begun is passed over.
        let before = self.earlier.iter().find(|before| before.mark == mark)?;
        Some(number.min(before.number))
    }

    /// The number of the oldest that is kept; one more than the newest if none is.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }
}

/// Compact JSON of at most [`MAX_OUTPUT`] bytes. What is larger is not written to its end: whoever waits for this may be a
/// media loop.
fn bounded(value: &(impl Serialize + ?Sized)) -> Result<String, OutputTooLarge> {
    struct Bounded(Vec<u8>);
    impl io::Write for Bounded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() + bytes.len() > MAX_OUTPUT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut json = Bounded(Vec::new());
    serde_json::to_writer(&mut json, value).map_err(|_| OutputTooLarge)?;
    String::from_utf8(json.0).map_err(|_| OutputTooLarge)
}

/// One reader's place.
#[derive(Debug, Clone)]
pub struct Cursor {
    seen: u64,
    written_at: Instant,
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Text of the event stream.
    Text(String),
    /// Nothing, until an output comes, the session ends, or it is so late.
    Wait(Instant),
    /// The stream is over.
    End,
}

impl Cursor {
    /// The next piece.
    pub fn poll(&mut self, outputs: &Outputs, now: Instant) -> Chunk {
        if self.seen < outputs.last {
            self.written_at = now;
            return Chunk::Text(self.events(outputs));
        }
        if outputs.ended_at.is_some() {
            return Chunk::End;
        }
        let alive_until = self.written_at + KEEP_ALIVE;
        if now < alive_until {
            return Chunk::Wait(alive_until);
        }
        self.written_at = now;
        Chunk::Text(KEEP_ALIVE_COMMENT.to_owned())
    }

    fn events(&mut self, outputs: &Outputs) -> String {
        let mut text = String::new();
        let oldest = outputs.oldest();
        if self.seen + 1 < oldest {
            text += &missing(oldest - self.seen - 1);
            self.seen = oldest - 1;
        }
        // At most `MAX_EVENTS`, so the difference fits.
        let skipped = (self.seen + 1 - oldest) as usize;
        for json in outputs.kept.iter().skip(skipped) {
            self.seen += 1;
            text += &event(EventId { mark: outputs.mark, number: self.seen }, json);
            if text.len() >= CHUNK {
                break;
            }
        }
        text
    }
}

#[cfg(test)]
#[path = "outputs_tests.rs"]
mod tests;
