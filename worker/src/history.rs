//! A session's additional outputs: written by whoever runs the session, followed by any number of readers.
//!
//! What is kept, and what a reader gets of it, is `streamfleet_socket`'s; here is who waits for it.

use std::sync::Arc;
use std::time::Instant;
use std::{fmt, slice};

use parking_lot::Mutex;
use serde_json::Value;
use streamfleet_socket::outputs::{
    Chunk, Cursor, Earlier, EventId, KEEP_ALIVE, KEEP_ALIVE_COMMENT, OutputTooLarge, Outputs,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep_until;

/// Readers of one session at a time: a page, the connection that it has left behind, a backend, somebody who looks on.
pub const MAX_READERS: usize = 8;

/// The outputs of one session, or of several that went on where the one before ended.
#[derive(Debug)]
pub struct History {
    kept: watch::Sender<Kept>,
    /// [`MAX_READERS`] of them.
    places: Arc<Semaphore>,
    /// Who wants to hear of each output.
    notice: Mutex<Option<Notice>>,
}

impl Default for History {
    fn default() -> Self {
        Self::new(Numbering::Known)
    }
}

/// Called after each output: it must not wait.
#[derive(Clone)]
pub(crate) struct Notice(Arc<dyn Fn() + Send + Sync>);

impl Notice {
    pub(crate) fn new(call: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notice")
    }
}

/// Whether it is known with which number the outputs begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    Known,
    /// They follow outputs of another worker, which are being fetched. Nobody is told a number yet.
    Awaited,
}

/// Some outputs, for whoever keeps them elsewhere too.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) mark: u32,
    pub(crate) earlier: Vec<EventId>,
    /// The number of the first.
    pub(crate) first: u64,
    /// The number of the oldest that is kept.
    pub(crate) oldest: u64,
    pub(crate) texts: Vec<Arc<str>>,
}

/// Outputs of one piece.
const MAX_PIECE: usize = streamfleet_store::MAX_READ;
/// Bytes of one piece, and one output more: a store that serves many takes no megabyte at once.
const MAX_PIECE_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Kept {
    outputs: Outputs,
    numbering: Numbering,
    /// Sessions that write: two while a client moves from one to the other.
    writers: usize,
}

/// What a reader finds.
#[derive(Debug)]
pub enum Following {
    /// Something to read, now or later.
    Open(Reader),
    /// The session is over and the reader has seen everything.
    Over,
    /// There are [`MAX_READERS`] already.
    Crowded,
}

impl History {
    fn new(numbering: Numbering) -> Self {
        let kept = watch::Sender::new(Kept { outputs: Outputs::new(rand::random()), numbering, writers: 0 });
        Self { kept, places: Arc::new(Semaphore::new(MAX_READERS)), notice: Mutex::default() }
    }

    /// One that goes on with outputs of another worker, once it is told [which](Self::adopt).
    pub(crate) fn awaiting() -> Self {
        Self::new(Numbering::Awaited)
    }

    pub(crate) fn is_awaiting(&self) -> bool {
        self.kept.borrow().numbering == Numbering::Awaited
    }

    /// What it goes on with; `None` if nobody knows. Only the first word counts.
    pub(crate) fn adopt(&self, earlier: Option<Earlier>) {
        let adopted = self.kept.send_if_modified(|kept| {
            let awaited = kept.numbering == Numbering::Awaited;
            if awaited {
                kept.numbering = Numbering::Known;
                if let Some(earlier) = earlier {
                    kept.outputs.adopt(earlier);
                }
            }
            awaited
        });
        if adopted {
            self.say();
        }
    }

    /// Tells this of each output from now on, instead of whoever was told before.
    pub(crate) fn notify(&self, notice: Notice) {
        *self.notice.lock() = Some(notice);
    }

    fn say(&self) {
        let notice = self.notice.lock().clone();
        if let Some(Notice(call)) = notice {
            call();
        }
    }

    /// The number of the newest output.
    pub(crate) fn last(&self) -> u64 {
        self.kept.borrow().outputs.last()
    }

    /// The next outputs behind number `after`; none if there are none, but an empty piece for whoever `asks` whether that is
    /// so.
    pub(crate) fn piece(&self, after: u64, asks: bool) -> Option<Piece> {
        let kept = self.kept.borrow();
        let outputs = &kept.outputs;
        if kept.numbering == Numbering::Awaited || outputs.last() == 0 || after >= outputs.last() && !asks {
            return None;
        }
        let (mut texts, mut bytes) = (Vec::new(), 0);
        for (_, text) in outputs.after(after).take(MAX_PIECE) {
            bytes += text.len();
            texts.push(text.clone());
            if bytes >= MAX_PIECE_BYTES {
                break;
            }
        }
        // Of nothing it says where that would be.
        let first = outputs.oldest().max(after.min(outputs.last()) + 1);
        let (mark, earlier) = (outputs.mark(), outputs.earlier().to_vec());
        Some(Piece { mark, earlier, first, oldest: outputs.oldest(), texts })
    }

    /// Adds an output. From any thread; readers never make it wait for longer than it takes to copy a piece of text.
    pub(crate) fn push(&self, output: &Value) -> Result<(), OutputTooLarge> {
        let mut pushed = Ok(0);
        self.kept.send_modify(|kept| pushed = kept.outputs.push(slice::from_ref(output)));
        pushed.map(|_| self.say())
    }

    /// The newest outputs, the oldest first.
    #[must_use]
    pub fn recent(&self, count: usize) -> Vec<Value> {
        let kept = self.kept.borrow();
        // What was written as JSON is JSON.
        kept.outputs.recent(count).filter_map(|json| serde_json::from_str(json).ok()).collect()
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.kept.borrow().outputs.bytes()
    }

    /// A session that writes, until what this returns is dropped. When the last one has gone, the outputs have ended.
    pub(crate) fn write(self: &Arc<Self>) -> Writing {
        self.kept.send_modify(|kept| {
            kept.writers += 1;
            kept.outputs.resume();
        });
        Writing(self.clone())
    }

    /// Follows the outputs, from behind the one that `last_event_id` names.
    #[must_use]
    pub fn follow(&self, last_event_id: Option<&str>) -> Following {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Following::Crowded };
        let kept = self.kept.subscribe();
        let at = match At::open(&kept.borrow(), last_event_id) {
            Some(at) => at,
            None => return Following::Over,
        };
        Following::Open(Reader { kept, at, _place: place })
    }

    /// Gives up what is kept, unless a session writes.
    pub(crate) fn forget(&self) {
        self.kept.send_if_modified(|kept| {
            let unused = kept.writers == 0;
            if unused {
                kept.outputs.forget(now());
            }
            unused
        });
    }
}

/// A session's hold on its history.
#[derive(Debug)]
pub(crate) struct Writing(Arc<History>);

impl Writing {
    pub(crate) fn history(&self) -> &Arc<History> {
        &self.0
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.kept.send_if_modified(|kept| {
            kept.writers -= 1;
            let ends = kept.writers == 0;
            if ends {
                kept.outputs.end(now());
                // Nobody fetches what came before any more.
                kept.numbering = Numbering::Known;
            }
            ends
        });
    }
}

/// Where a reader is.
#[derive(Debug)]
enum At {
    Here(Cursor),
    /// It has seen so much, and nobody knows yet where that is.
    Waiting {
        seen: Option<String>,
        since: Instant,
    },
}

impl At {
    fn open(kept: &Kept, seen: Option<&str>) -> Option<Self> {
        match kept.numbering {
            Numbering::Known => kept.outputs.open(now(), seen).map(Self::Here),
            Numbering::Awaited => Some(Self::Waiting { seen: seen.map(str::to_owned), since: now() }),
        }
    }
}

/// One reader. It holds a place in the history and no text: a reader that is slow has nothing pile up for it.
#[derive(Debug)]
pub struct Reader {
    kept: watch::Receiver<Kept>,
    at: At,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The next piece of the event stream, once there is one: outputs, or a comment that keeps the connection alive.
    /// `None` when there is no more to come.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            let until = match self.poll() {
                Chunk::Text(text) => return Some(text),
                Chunk::End => return None,
                Chunk::Wait(until) => until,
            };
            tokio::select! {
                changed = self.kept.changed() => if changed.is_err() { return None },
                () = sleep_until(until.into()) => {}
            }
        }
    }
}

impl Reader {
    fn poll(&mut self) -> Chunk {
        let kept = self.kept.borrow_and_update();
        if let (At::Waiting { seen, .. }, Numbering::Known) = (&self.at, kept.numbering) {
            match At::open(&kept, seen.as_deref()) {
                Some(at) => self.at = at,
                None => return Chunk::End,
            }
        }
        match &mut self.at {
            At::Here(cursor) => cursor.poll(&kept.outputs, now()),
            At::Waiting { since, .. } if now() < *since + KEEP_ALIVE => Chunk::Wait(*since + KEEP_ALIVE),
            At::Waiting { since, .. } => {
                *since = now();
                Chunk::Text(KEEP_ALIVE_COMMENT.to_owned())
            }
        }
    }
}

/// The clock that tests can hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use streamfleet_socket::outputs::{KEEP_ALIVE, MAX_BYTES, MAX_OUTPUT};

    use super::*;

    fn follow(history: &History, last: Option<&str>) -> Reader {
        match history.follow(last) {
            Following::Open(reader) => reader,
            other => panic!("{other:?}"),
        }
    }

    /// The id of an event of this history, as nobody but the history can know it.
    fn id(history: &History, number: u64) -> String {
        let mut outputs = history.follow(None);
        let Following::Open(reader) = &mut outputs else { panic!("{outputs:?}") };
        let Chunk::Text(text) = reader.poll() else { panic!("no output") };
        let (mark, _) = text.split("id: ").nth(1).and_then(|id| id.split_once('-')).unwrap();
        format!("{mark}-{number}")
    }

    fn event(id: &str, data: &str) -> Option<String> {
        Some(format!("id: {id}\nevent: output\ndata: {data}\n\n"))
    }

    #[tokio::test(start_paused = true)]
    async fn readers_follow_what_is_written() {
        let history = Arc::new(History::default());
        let writing = history.write();
        history.push(&json!("early")).unwrap();
        let [one, two] = [1, 2].map(|number| id(&history, number));
        let (mut first, mut second) = (follow(&history, None), follow(&history, Some(&one)));
        assert_eq!(first.next().await, event(&one, "\"early\""));
        let begun = tokio::time::Instant::now();
        for reader in [&mut second, &mut first] {
            assert_eq!(reader.next().await.as_deref(), Some(": keep-alive\n\n"));
        }
        assert_eq!(begun.elapsed(), KEEP_ALIVE);
        let late = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            history.push(&json!([2, "two"])).unwrap();
        };
        let (_, of_first, of_second) = tokio::join!(late, first.next(), second.next());
        assert_eq!((of_first, of_second), (event(&two, "[2,\"two\"]"), event(&two, "[2,\"two\"]")));
        assert_eq!(begun.elapsed(), KEEP_ALIVE + Duration::from_secs(1), "nobody waited for longer");
        let end = async { drop(writing) };
        let (of_first, (), of_second) = tokio::join!(first.next(), end, second.next());
        assert_eq!((of_first, of_second), (None, None));
        assert!(matches!(history.follow(Some(&two)), Following::Over));
        assert_eq!(follow(&history, Some(&one)).next().await, event(&two, "[2,\"two\"]"));
        assert_eq!(history.recent(1), [json!([2, "two"])]);
    }

    #[tokio::test]
    async fn the_outputs_end_with_the_last_who_writes() {
        let history = Arc::new(History::default());
        let (old, new) = (history.write(), history.write());
        drop(old);
        history.push(&json!(1)).unwrap();
        let [one, two] = [1, 2].map(|number| id(&history, number));
        let mut reader = follow(&history, None);
        assert_eq!(reader.next().await, event(&one, "1"));
        drop(new);
        assert_eq!(reader.next().await, None);
        let _resumed = history.write();
        history.push(&json!(2)).unwrap();
        assert_eq!(follow(&history, Some(&one)).next().await, event(&two, "2"), "numbered on");
    }

    #[tokio::test]
    async fn who_has_seen_another_history_gets_all_of_this() {
        let [before, after] = [(), ()].map(|()| Arc::new(History::default()));
        let _writing = [before.write(), after.write()];
        for n in 1..=3 {
            before.push(&json!(n)).unwrap();
            after.push(&json!(n)).unwrap();
        }
        let mut reader = follow(&after, Some(&id(&before, 2)));
        let text = reader.next().await.unwrap();
        assert!(text.starts_with(&event(&id(&after, 1), "1").unwrap()), "{text}");
    }

    #[tokio::test]
    async fn the_readers_of_one_session_are_bounded() {
        let history = Arc::new(History::default());
        let _writing = history.write();
        let mut readers: Vec<Reader> = (0..MAX_READERS).map(|_| follow(&history, None)).collect();
        assert!(matches!(history.follow(None), Following::Crowded));
        assert!(matches!(history.follow(None), Following::Crowded), "nothing is held by one that was refused");
        readers.pop();
        follow(&history, None);
    }

    #[tokio::test]
    async fn who_merely_looks_takes_nobodys_place() {
        let history = Arc::new(History::default());
        let _writing = history.write();
        let _readers: Vec<Reader> = (1..MAX_READERS).map(|_| follow(&history, None)).collect();
        // As one that comes at the same moment and is about to be refused.
        let _looks = history.kept.subscribe();
        follow(&history, None);
    }

    #[tokio::test]
    async fn what_a_session_has_said_is_forgotten_when_nobody_says_more() {
        let history = Arc::new(History::default());
        let writing = history.write();
        history.push(&json!("x".repeat(1000))).unwrap();
        let mut reader = follow(&history, Some(&id(&history, 1)));
        history.forget();
        assert!(history.bytes() > 1000, "it is being written");
        drop(writing);
        history.forget();
        assert_eq!((history.bytes(), reader.next().await), (0, None));
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_costs_nothing() {
        let history = Arc::new(History::default());
        let writing = history.write();
        let mut reader = follow(&history, None);
        let text = "x".repeat(MAX_OUTPUT - 2);
        for _ in 0..100 {
            history.push(&json!(text)).unwrap();
        }
        assert!(history.push(&json!(text + "x")).is_err());
        assert!(history.bytes() <= MAX_BYTES);
        drop(writing);
        let mut read = String::new();
        while let Some(piece) = reader.next().await {
            read += &piece;
        }
        assert!(read.starts_with(": 96 outputs are no longer kept\n\nid: "), "{}", &read[..100]);
        assert!(read.lines().any(|line| line.starts_with("id: ") && line.ends_with("-97")), "{}", &read[..100]);
        assert!(read.len() < MAX_BYTES + 1000);
    }
}
