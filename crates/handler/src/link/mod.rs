//! The bounded pair of queues between the media loop and a handler's task.
//!
//! The loop's side never blocks and never waits: input beyond the bound pushes the oldest media out, and what the
//! handler emits is taken when the loop has a use for it. The task's side waits: for input, and for room. One
//! uncontended lock per call, held for a few moves; nothing is allocated per item beyond the item itself, and sample
//! buffers come back through a small pool.

mod inbox;
mod outbox;
mod spare;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{Emit, Input};
use inbox::Inbox;
use outbox::Outbox;
use spare::Spare;

/// The bounds of one link. Each queue starts empty and grows only as it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Audio frames or packets that may wait for the handler: 50 frames of 20 ms are one second, more than that a
    /// conversation cannot use.
    pub max_queued_frames: usize,
    /// Video packets that may wait for the handler, on a count of their own so that pictures never push sound out:
    /// 512 are a second at 5 Mbit/s.
    pub max_queued_video: usize,
    /// Texts, arguments, keys and triggers that may wait for the handler, and as many texts and outputs for the loop.
    pub max_queued_messages: usize,
    /// Emitted audio that may wait before the handler is held back. 400 ms ride out a handler that stalls, and are
    /// the most that an interruption has to throw away.
    pub max_queued_audio: Duration,
    /// Emitted items of all kinds that may wait before the handler is held back; bounds what has no duration: 512
    /// packets are a large key frame.
    pub max_queued_emits: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            max_queued_frames: 50,
            max_queued_video: 512,
            max_queued_messages: 64,
            max_queued_audio: Duration::from_millis(400),
            max_queued_emits: 512,
        }
    }
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits for the handler.
    Queued,
    /// It waits for the handler; the oldest media of its kind was dropped for it, and counted.
    DroppedOldest,
    /// It was not taken, and counted: too many texts wait, or it is longer than [`MAX_TEXT`] bytes.
    Refused,
    /// The handler's task has gone, or the session has.
    Closed,
}

/// The longest text taken from a client, in bytes: what every data channel carries in one message
/// (`a=max-message-size` defaults to 64 KiB, RFC 8841 6.1).
pub const MAX_TEXT: usize = 64 * 1024;

/// What has passed through a link since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Audio frames and packets offered to the handler.
    pub media_in: u64,
    /// Of these, dropped because the handler was slow.
    pub media_dropped: u64,
    /// Texts offered to the handler.
    pub messages_in: u64,
    /// Of these, refused.
    pub messages_refused: u64,
    /// Items the handler emitted.
    pub emitted: u64,
    /// Emitted audio thrown away by interruptions.
    pub audio_cleared: Duration,
}

/// The other end has gone, or the stream has been ended; what was to be sent is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub struct Closed;

/// Why something could not be queued without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too much waits to be sent already.
    #[error("too many messages are waiting to be sent")]
    Full,
    /// Nothing more can be sent.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Makes a link. `wake` is called from the task's threads, outside any lock, when something can be popped after
/// nothing could, when the stream is ended, and once when the task's end goes; it must be cheap and must not block.
#[must_use]
pub fn link(config: LinkConfig, wake: Arc<dyn Fn() + Send + Sync>) -> (LoopEnd, TaskEnd) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::default()),
        config,
        input: Notify::new(),
        room: Notify::new(),
        ended: Notify::new(),
        wake,
    });
    (LoopEnd { shared: shared.clone() }, TaskEnd { shared })
}

#[derive(Default)]
struct State {
    inbox: Inbox,
    outbox: Outbox,
    spare: Spare,
    /// An interruption the handler has not heard of yet.
    reset: bool,
    loop_gone: bool,
    task_gone: bool,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    config: LinkConfig,
    /// Input or a reset waits; one task listens.
    input: Notify,
    /// The outbox has fallen to its bound.
    room: Notify,
    /// The stream has been ended or the loop has gone; one task listens.
    ended: Notify,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn push(&self, input: Input) -> Pushed {
        let (pushed, was_empty) = {
            let mut state = self.state.lock();
            if state.task_gone || state.loop_gone {
                return Pushed::Closed;
            }
            let was_empty = state.inbox.is_empty();
            let state = &mut *state;
            (state.inbox.push(input, &self.config, &mut state.spare), was_empty)
        };
        if was_empty && pushed != Pushed::Refused {
            self.input.notify_one();
        }
        pushed
    }

    /// Queues for the loop without waiting. `limit` bounds the items without media in the queue.
    fn put(&self, emit: Emit, limit: Limit) -> Result<Room, SendError> {
        if matches!(emit, Emit::Clear) {
            self.clear()?;
            return Ok(Room::Left);
        }
        let is_end = matches!(emit, Emit::EndStream(_));
        let (was_empty, room) = {
            let mut state = self.state.lock();
            if state.loop_gone || state.task_gone || state.outbox.end().is_some() {
                return Err(Closed.into());
            }
            if limit == Limit::Controls && state.outbox.controls() >= self.config.max_queued_messages {
                return Err(SendError::Full);
            }
            let was_empty = state.outbox.is_empty();
            state.outbox.push(emit);
            (was_empty, if state.outbox.is_over(&self.config) { Room::None } else { Room::Left })
        };
        if is_end {
            self.ended.notify_one();
        }
        // A loop that has no use for audio lets it lie; the end is news all the same.
        if was_empty || is_end {
            (self.wake)();
        }
        Ok(room)
    }

    /// For a [`Session`](crate::Session): refuses instead of waiting.
    pub(crate) fn try_put(&self, emit: Emit) -> Result<(), SendError> {
        self.put(emit, Limit::Controls).map(|_| ())
    }

    /// An interruption by the handler: drops the audio that is queued and has the loop drop what it has taken already.
    pub(crate) fn clear(&self) -> Result<(), Closed> {
        {
            let mut state = self.state.lock();
            if state.loop_gone {
                return Err(Closed);
            }
            let state = &mut *state;
            state.outbox.clear(&mut state.spare);
        }
        self.room.notify_waiters();
        (self.wake)();
        Ok(())
    }

    /// Queues ahead of all audio, without waiting.
    pub(crate) fn put_urgent(&self, emit: Emit) -> Result<(), SendError> {
        {
            let mut state = self.state.lock();
            if state.loop_gone || state.task_gone || state.outbox.end().is_some() {
                return Err(Closed.into());
            }
            if state.outbox.controls() >= self.config.max_queued_messages {
                return Err(SendError::Full);
            }
            state.outbox.push_urgent(emit);
        }
        (self.wake)();
        Ok(())
    }

    /// Ends the stream behind everything queued; always finds room, as a session ends once.
    pub(crate) fn put_end(&self, message: Option<String>) -> Result<(), Closed> {
        self.put(Emit::EndStream(message), Limit::Nothing).map(|_| ()).map_err(|_| Closed)
    }

    /// A loop that has gone holds nobody back.
    fn room_now(&self) -> Room {
        let state = self.state.lock();
        if state.outbox.is_over(&self.config) && !state.loop_gone { Room::None } else { Room::Left }
    }

    pub(crate) fn queued_audio(&self) -> Duration {
        self.state.lock().outbox.audio()
    }

    pub(crate) fn buffer(&self) -> Vec<i16> {
        self.state.lock().spare.take()
    }

    pub(crate) fn recycle(&self, buffer: Vec<i16>) {
        self.state.lock().spare.put(buffer);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// Refuse when too many items without media wait.
    Controls,
    /// The caller bounds itself.
    Nothing,
}

/// Whether more may follow at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Left,
    None,
}

/// The media loop's side; nothing here waits.
pub struct LoopEnd {
    shared: Arc<Shared>,
}

impl LoopEnd {
    /// Offers an input to the handler.
    pub fn push(&self, input: Input) -> Pushed {
        self.shared.push(input)
    }

    /// A handle that offers inputs from anywhere else.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        Inputs { shared: self.shared.clone() }
    }

    /// The next item in the handler's order: an output or the end comes after the audio emitted before it. Take audio
    /// only as fast as it plays: what is left here holds the handler back.
    pub fn pop(&self) -> Option<Emit> {
        let (emit, has_room) = {
            let mut state = self.shared.state.lock();
            let was_over = state.outbox.is_over(&self.shared.config);
            let emit = state.outbox.pop();
            (emit, was_over && !state.outbox.is_over(&self.shared.config))
        };
        if has_room {
            self.shared.room.notify_waiters();
        }
        emit
    }

    /// An interruption by whoever holds this end: drops the audio that is queued, keeps everything else in its order, and
    /// has the handler's `reset` called. The worker's transports do not interrupt: the handler does, by
    /// [`Session::clear`](crate::Session::clear).
    pub fn clear_audio(&self) {
        {
            let mut state = self.shared.state.lock();
            let state = &mut *state;
            state.outbox.clear_audio(&mut state.spare);
            state.reset = true;
        }
        self.shared.room.notify_waiters();
        self.shared.input.notify_one();
    }

    /// The next item that does not wait for the audio before it: [`Emit::Clear`], which means that what was popped before
    /// it and has not been heard is to be forgotten, and what was said urgently. Take these even while audio has no room.
    pub fn pop_urgent(&self) -> Option<Emit> {
        self.shared.state.lock().outbox.pop_urgent()
    }

    /// Whether the stream has been ended. What was emitted before, and the end itself, may wait yet.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.shared.state.lock().outbox.end().is_some()
    }

    /// How much emitted audio waits.
    #[must_use]
    pub fn queued_audio(&self) -> Duration {
        self.shared.queued_audio()
    }

    /// How many inputs of all kinds wait for the handler.
    #[must_use]
    pub fn queued_input(&self) -> usize {
        self.shared.state.lock().inbox.len()
    }

    /// What has passed so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        let state = self.shared.state.lock();
        let mut counters = LinkCounters::default();
        state.inbox.count(&mut counters);
        state.outbox.count(&mut counters);
        counters
    }

    /// Whether the handler's task has gone and everything it left has been popped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let state = self.shared.state.lock();
        state.task_gone && state.outbox.is_empty()
    }

    /// An empty sample buffer, from the pool when there is one.
    #[must_use]
    pub fn buffer(&self) -> Vec<i16> {
        self.shared.buffer()
    }

    /// Gives the samples of a frame that was popped back to the pool.
    pub fn recycle(&self, buffer: Vec<i16>) {
        self.shared.recycle(buffer);
    }
}

impl Drop for LoopEnd {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock();
            state.loop_gone = true;
            // Nobody will take these; a session handle kept by an application must not keep them alive.
            state.outbox.drain();
            state.spare = Spare::default();
        }
        self.shared.input.notify_one();
        self.shared.ended.notify_one();
        self.shared.room.notify_waiters();
    }
}

/// Offers inputs to a handler beside its media, from any thread: arguments, triggers.
#[derive(Clone)]
pub struct Inputs {
    shared: Arc<Shared>,
}

impl Inputs {
    /// As [`LoopEnd::push`].
    pub fn push(&self, input: Input) -> Pushed {
        self.shared.push(input)
    }
}

/// The handler task's side. One task receives; dropping any of the futures loses nothing.
pub struct TaskEnd {
    shared: Arc<Shared>,
}

/// What the handler's task is woken for.
pub(crate) enum Event {
    Input(Input),
    Reset,
}

impl TaskEnd {
    /// The oldest input once there is one; `None` when the loop's end has gone.
    pub async fn recv(&self) -> Option<Input> {
        loop {
            if let Event::Input(input) = self.event().await? {
                return Some(input);
            }
        }
    }

    /// As [`recv`](TaskEnd::recv), and interruptions, which come before any input.
    pub(crate) async fn event(&self) -> Option<Event> {
        loop {
            {
                let mut state = self.shared.state.lock();
                if state.loop_gone {
                    return None;
                }
                if std::mem::take(&mut state.reset) {
                    return Some(Event::Reset);
                }
                if let Some(input) = state.inbox.pop() {
                    return Some(Event::Input(input));
                }
            }
            self.shared.input.notified().await;
        }
    }

    /// Queues an item, then waits until no more than the bounds of [`LinkConfig`] is queued. The item is queued at
    /// once, so it keeps its place and survives a dropped future. [`Emit::Nothing`] is nothing.
    ///
    /// # Errors
    /// [`Closed`] when the loop's end has gone or the stream has been ended; the item is dropped.
    pub async fn send(&self, emit: Emit) -> Result<(), Closed> {
        let mut room = self.put_parts(emit)?;
        while room == Room::None {
            let popped = self.shared.room.notified();
            tokio::pin!(popped);
            // Listening before looking: what is popped in between is not missed.
            popped.as_mut().enable();
            room = self.shared.room_now();
            if room == Room::None {
                popped.await;
            }
        }
        Ok(())
    }

    /// Queues an item at once, with all of its parts. Those behind an end are dropped as anything later would be.
    fn put_parts(&self, emit: Emit) -> Result<Room, Closed> {
        match emit {
            Emit::Nothing => Ok(self.shared.room_now()),
            Emit::All(parts) => {
                let mut room = self.shared.room_now();
                for part in parts {
                    room = self.put_parts(part)?;
                }
                Ok(room)
            }
            emit => self.shared.put(emit, Limit::Nothing).map_err(|_| Closed),
        }
    }

    /// Waits until the stream has been ended, by either an item or a session handle; the text it was ended with.
    /// [`Closed`] when the loop's end has gone.
    pub(crate) async fn ended(&self) -> Result<Option<String>, Closed> {
        loop {
            {
                let state = self.shared.state.lock();
                if let Some(message) = state.outbox.end() {
                    return Ok(message.clone());
                }
                if state.loop_gone {
                    return Err(Closed);
                }
            }
            self.shared.ended.notified().await;
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl Drop for TaskEnd {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock();
            state.task_gone = true;
            state.inbox.drain();
        }
        (self.shared.wake)();
    }
}

#[cfg(test)]
mod tests;
