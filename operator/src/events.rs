//! What people are told as Events (`events.k8s.io`): decisions, and what stands in their way.
//!
//! What is said again within a while is counted in the first Event's series. A service that has too much to say is cut short:
//! Events are stored beside everything else that a cluster stores.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use crate::reasons::{Place, Reason};

/// How long the same words are the same Event: as long as Kubernetes' own recorders have it.
const SERIES: Duration = Duration::from_secs(6 * 60);
/// The same words are written no more often than this.
const SPACING: Duration = Duration::from_secs(30);
/// Events of one service at once, and how long it takes until there may be one more.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(10);
/// The longest text, in bytes: as much as the API server takes.
const MAX_NOTE: usize = 1024;
/// Texts that are remembered of one service: more than its burst within a series.
const MAX_SAID: usize = 64;

/// Whether it is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tone {
    /// It is.
    Normal,
    /// It is not.
    Warning,
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// How it is meant.
    pub tone: Tone,
    /// One word.
    pub reason: Reason,
    /// What was done, or tried.
    pub action: &'static str,
    /// A sentence.
    pub text: String,
}

impl Note {
    fn new(tone: Tone, reason: Reason, action: &'static str, text: String) -> Self {
        debug_assert!(reason.may_be(Place::Event), "{reason:?}");
        Self { tone, reason, action, text }
    }

    /// Something that was done.
    pub fn normal(reason: impl Into<Reason>, action: &'static str, text: impl Into<String>) -> Self {
        Self::new(Tone::Normal, reason.into(), action, text.into())
    }

    /// Something that stands in the way.
    pub fn warning(reason: impl Into<Reason>, action: &'static str, text: impl Into<String>) -> Self {
        Self::new(Tone::Warning, reason.into(), action, text.into())
    }
}

/// What to do with a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Telling {
    /// Write a new Event of this name.
    New(String),
    /// It was said before: write that it has been said so often, in the Event of this name.
    Again(String, i32),
    /// Say nothing now.
    Nothing,
}

#[derive(Debug, Clone)]
struct Said {
    name: String,
    times: i32,
    first: Instant,
    written: Instant,
}

/// What was said of one service.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    said: HashMap<Note, Said>,
    spent: u32,
    refilled: Option<Instant>,
}

impl Ledger {
    /// Forgets what was said long ago: a service that has nothing to say for days keeps nothing.
    pub fn prune(&mut self, now: Instant) {
        let before = self.said.len();
        self.said.retain(|_, said| now.saturating_duration_since(said.first) < SERIES);
        if self.said.len() < before {
            self.said.shrink_to_fit();
        }
    }

    /// What to do with a note. `unique` makes names of Events different.
    pub fn tell(&mut self, service: &str, note: &Note, unique: u64, now: Instant) -> Telling {
        self.prune(now);
        if let Some(said) = self.said.get_mut(note) {
            said.times = said.times.saturating_add(1);
            if now.saturating_duration_since(said.written) < SPACING {
                return Telling::Nothing;
            }
            said.written = now;
            return Telling::Again(said.name.clone(), said.times);
        }
        let refilled = *self.refilled.get_or_insert(now);
        let more = now.saturating_duration_since(refilled).as_millis() / REFILL.as_millis();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more > 0 {
            self.spent = self.spent.saturating_sub(more);
            self.refilled = Some(now);
        }
        if self.spent >= BURST || self.said.len() >= MAX_SAID {
            return Telling::Nothing;
        }
        self.spent += 1;
        let name = format!("{service}.{unique:x}");
        self.said.insert(note.clone(), Said { name: name.clone(), times: 1, first: now, written: now });
        Telling::New(name)
    }
}

/// Who tells.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// The controller: `streamfleet.dev/operator`.
    pub controller: String,
    /// Which process of it.
    pub instance: String,
}

/// An Event, as it is written.
#[must_use]
pub fn event(name: String, note: &Note, regarding: &ObjectReference, reporter: &Reporter, now: Timestamp) -> Event {
    let cut = |text: &str| text[..text.floor_char_boundary(MAX_NOTE)].to_owned();
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: regarding.namespace.clone(), ..ObjectMeta::default() },
        action: Some(note.action.to_owned()),
        reason: Some(note.reason.as_str().to_owned()),
        note: Some(cut(&note.text)),
        type_: Some(match note.tone {
            Tone::Normal => "Normal".to_owned(),
            Tone::Warning => "Warning".to_owned(),
        }),
        event_time: Some(MicroTime(now)),
        regarding: Some(regarding.clone()),
        reporting_controller: Some(reporter.controller.clone()),
        reporting_instance: Some(reporter.instance.clone()),
        ..Event::default()
    }
}

/// That it was said so often.
#[must_use]
pub fn series(times: i32, now: Timestamp) -> EventSeries {
    EventSeries { count: times, last_observed_time: MicroTime(now) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons::Word;

    #[test]
    fn the_same_words_are_one_event() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut ledger = Ledger::default();
        let note = |text: &str| Note::normal(Word::WorkersCreated, "Scale", text);
        let mut tell = |text: &str, unique, seconds| ledger.tell("a", &note(text), unique, at(seconds));
        assert_eq!(tell("one", 1, 0), Telling::New("a.1".to_owned()));
        assert_eq!(tell("two", 2, 0), Telling::New("a.2".to_owned()));
        assert_eq!(tell("one", 3, 10), Telling::Nothing, "not yet");
        assert_eq!(tell("one", 4, 40), Telling::Again("a.1".to_owned(), 3));
        assert_eq!(tell("one", 5, 361), Telling::New("a.5".to_owned()), "another series");
        ledger.prune(at(361 + 360));
        assert_eq!((ledger.said.len(), ledger.said.capacity()), (0, 0));
    }

    #[test]
    fn who_says_too_much_is_cut_short() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        let mut told = |n: u64, at: Instant| {
            let note = Note::warning(Word::DrainExpired, "Apply", n.to_string());
            ledger.tell("a", &note, n, at) != Telling::Nothing
        };
        assert_eq!((0..100).filter(|n| told(*n, now)).count(), 20);
        assert_eq!((100..200).filter(|n| told(*n, now + Duration::from_secs(25))).count(), 2);
    }
}
