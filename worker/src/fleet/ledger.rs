//! What the store is to be told of each session, and what it has been told.
//!
//! Sessions say where they are at once and from any thread; one task tells the store when it can. Only the last word
//! counts, so what is kept while the store is away is one entry for each session.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};
use streamfleet_session::CloseReason;
use streamfleet_store::{Held, Phase, Ticket};
use tokio::sync::oneshot;

/// Sessions that are over and of which the store has not heard: those of a minute of a busy worker. With more, the
/// worker registers again, and the store forgets all that it does not write again.
pub(super) const MAX_OWED: usize = 4096;
/// Words under way at a time: enough to hide a round trip.
pub(super) const MAX_WORDS: usize = 32;

/// What the store is to be told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    /// That it is, and all that is to be known of it: nobody has claimed its place.
    Restore,
    /// Where the session is.
    Report(Phase, Map<String, Value>),
    /// It is over.
    End(CloseReason),
    /// It has never been.
    Release,
}

/// How a session leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It has ended.
    Over(CloseReason),
    /// It has not begun.
    Unbegun,
}

/// Whether the store has heard of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has: by its claim, or because it was told.
    #[default]
    Yes,
    /// It may have: it was told, and its answer is not there.
    Perhaps,
    /// It has not.
    No,
}

/// What a session is to the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    /// A claim that nobody has confirmed, at most.
    #[default]
    Claimed,
    /// A session, perhaps: it was told so.
    Begun,
}

#[derive(Debug, Default)]
struct Entry {
    heard: Heard,
    standing: Standing,
    phase: Option<Phase>,
    told: Option<Phase>,
    detail: Map<String, Value>,
    parting: Option<Parting>,
    /// Who waits for the store's word on its arrival.
    arrival: Option<oneshot::Sender<Held>>,
    under_way: bool,
}

impl Entry {
    fn word(&self) -> Option<Word> {
        match self.parting {
            Some(Parting::Over(reason)) => Some(Word::End(reason)),
            Some(Parting::Unbegun) if self.standing == Standing::Claimed => Some(Word::Release),
            // Of one that was told of as begun there is no claim to give back: it ends, or the store would keep it.
            Some(Parting::Unbegun) => Some(Word::End(CloseReason::Invalid)),
            None => {
                let phase = self.phase.filter(|phase| self.told != Some(*phase))?;
                Some(if self.heard == Heard::Yes { Word::Report(phase, self.detail.clone()) } else { Word::Restore })
            }
        }
    }

    fn arrived(&mut self, held: Held) {
        if let Some(waiting) = self.arrival.take() {
            // Who waited may be gone with its session.
            let _ = waiting.send(held);
        }
    }
}

/// The sessions of one service.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: HashMap<Ticket, Entry>,
    /// Those of which there is something to tell.
    due: BTreeSet<Ticket>,
    /// Those that are over.
    owed: usize,
    overdrawn: Overdrawn,
}

/// Whether more sessions are over than are remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Overdrawn {
    #[default]
    No,
    Yes,
}

impl Ledger {
    /// A session is placed here. False if it is already.
    pub(super) fn enter(&mut self, ticket: Ticket, heard: Heard) -> bool {
        match self.entries.entry(ticket) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry { heard, ..Entry::default() });
                true
            }
        }
    }

    /// A session describes itself.
    pub(super) fn describe(&mut self, ticket: Ticket, detail: Map<String, Value>) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.detail = detail;
        }
    }

    /// A session has got so far.
    pub(super) fn moved_on(&mut self, ticket: Ticket, phase: Phase) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.phase = Some(phase);
            self.due.insert(ticket);
        }
    }

    /// Somebody waits for what the store says when it hears that the session is active.
    pub(super) fn await_arrival(&mut self, ticket: Ticket) -> oneshot::Receiver<Held> {
        let (sender, receiver) = oneshot::channel();
        if let Some(entry) = self.entries.get_mut(&ticket) {
            entry.arrival = Some(sender);
        }
        receiver
    }

    /// A session leaves.
    pub(super) fn leave(&mut self, ticket: Ticket, parting: Parting) {
        if let Some(entry) = self.entries.get_mut(&ticket)
            && entry.parting.is_none()
        {
            if entry.heard == Heard::No {
                // There is nothing to take back.
                self.entries.remove(&ticket);
                self.due.remove(&ticket);
                return;
            }
            if self.owed >= MAX_OWED {
                self.entries.remove(&ticket);
                self.due.remove(&ticket);
                self.overdrawn = Overdrawn::Yes;
                return;
            }
            entry.parting = Some(parting);
            entry.arrival = None;
            self.owed += 1;
            self.due.insert(ticket);
        }
    }

    /// What is to be told now. Each of these must be [settled](Self::settle).
    pub(super) fn take(&mut self) -> Vec<(Ticket, Word)> {
        let mut words = Vec::new();
        for ticket in &self.due {
            let Some(entry) = self.entries.get_mut(ticket).filter(|entry| !entry.under_way) else { continue };
            let Some(word) = entry.word() else { continue };
            entry.under_way = true;
            if word == Word::Restore {
                entry.heard = Heard::Perhaps;
            }
            if let Word::Restore | Word::Report(..) = word {
                entry.standing = Standing::Begun;
            }
            words.push((*ticket, word));
            if words.len() == MAX_WORDS {
                break;
            }
        }
        words
    }

    /// What became of a word: whether the store has heard it, and, of a report, what it says of the session.
    pub(super) fn settle(&mut self, ticket: Ticket, word: &Word, heard: Option<Held>) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        entry.under_way = false;
        match (word, heard) {
            // Where it is by now is the next word.
            (Word::Restore, Some(_)) => entry.heard = Heard::Yes,
            (Word::Restore, None) => {}
            (Word::Report(phase, _), heard) => {
                if *phase == Phase::Active {
                    // It is there, whatever can be written down of that.
                    entry.arrived(heard.unwrap_or(Held::Yes));
                }
                if heard.is_some() {
                    entry.told = Some(*phase);
                }
            }
            (Word::End(_) | Word::Release, Some(_)) => {
                self.entries.remove(&ticket);
                self.owed -= 1;
            }
            (Word::End(_) | Word::Release, None) => {}
        }
        if self.entries.get(&ticket).and_then(Entry::word).is_none() {
            self.due.remove(&ticket);
        }
    }

    /// The store has been told everything of these again, and of no others.
    pub(super) fn restored(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            if let Some(entry) = self.entries.get_mut(ticket) {
                entry.told = entry.phase;
                entry.heard = Heard::Yes;
                entry.standing = Standing::Begun;
            }
        }
    }

    /// The store has forgotten all of this worker's: what is over is over there too.
    pub(super) fn forgotten(&mut self) {
        let Self { entries, due, owed, overdrawn } = self;
        *overdrawn = Overdrawn::No;
        entries.retain(|ticket, entry| {
            entry.told = None;
            let stays = entry.parting.is_none() || entry.under_way;
            if !stays {
                due.remove(ticket);
                *owed -= 1;
            } else if entry.word().is_some() {
                due.insert(*ticket);
            }
            stays
        });
    }

    /// Whether a session is here and has not ended.
    pub(super) fn lives(&self, ticket: Ticket) -> bool {
        self.entries.get(&ticket).is_some_and(|entry| entry.parting.is_none())
    }

    pub(super) fn knows(&self, ticket: Ticket) -> bool {
        self.entries.contains_key(&ticket)
    }

    /// Whether the store has to forget all of this worker's, because nobody remembers what is over.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.overdrawn == Overdrawn::Yes
    }

    /// Sessions that have begun, and places whose sessions have not.
    pub(super) fn counts(&self) -> (u32, u32) {
        let living = self.entries.values().filter(|entry| entry.parting.is_none());
        let (mut active, mut reserved) = (0, 0);
        for entry in living {
            *if entry.phase.is_some() { &mut active } else { &mut reserved } += 1;
        }
        (active, reserved)
    }

    /// Whether no session is here, nor any place for one.
    pub(super) fn is_empty(&self) -> bool {
        self.counts() == (0, 0)
    }

    pub(super) fn is_settled(&self) -> bool {
        self.due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ticket = Ticket::from_random(1);

    fn report(phase: Phase) -> Word {
        Word::Report(phase, Map::new())
    }

    #[test]
    fn only_the_last_word_is_told() {
        let mut ledger = Ledger::default();
        assert!(ledger.enter(A, Heard::Yes) && !ledger.enter(A, Heard::Yes), "a place is used once");
        assert_eq!(ledger.counts(), (0, 1));
        ledger.moved_on(A, Phase::Connecting);
        ledger.moved_on(A, Phase::Active);
        assert_eq!(ledger.counts(), (1, 0));
        assert_eq!(ledger.take(), [(A, report(Phase::Active))]);
        assert_eq!(ledger.take(), [], "it is under way");
        ledger.moved_on(A, Phase::Ending);
        ledger.settle(A, &report(Phase::Active), Some(Held::Yes));
        assert_eq!(ledger.take(), [(A, report(Phase::Ending))]);
        ledger.leave(A, Parting::Over(CloseReason::EndStream));
        ledger.settle(A, &report(Phase::Ending), Some(Held::Yes));
        let end = Word::End(CloseReason::EndStream);
        assert_eq!(ledger.take(), [(A, end.clone())]);
        ledger.settle(A, &end, None);
        assert_eq!(ledger.take(), [(A, end.clone())], "until it is heard");
        ledger.settle(A, &end, Some(Held::Yes));
        assert!(ledger.is_settled() && !ledger.knows(A) && ledger.owed == 0);
    }

    #[tokio::test]
    async fn who_arrives_hears_what_the_store_says() {
        for (heard, expected) in [(Some(Held::No), Held::No), (Some(Held::Yes), Held::Yes), (None, Held::Yes)] {
            let mut ledger = Ledger::default();
            ledger.enter(A, Heard::Yes);
            let arrival = ledger.await_arrival(A);
            ledger.moved_on(A, Phase::Active);
            ledger.take();
            ledger.settle(A, &report(Phase::Active), heard);
            assert_eq!(arrival.await, Ok(expected), "{heard:?}");
        }
        let mut ledger = Ledger::default();
        ledger.enter(A, Heard::Yes);
        let arrival = ledger.await_arrival(A);
        ledger.leave(A, Parting::Unbegun);
        assert!(arrival.await.is_err(), "nobody comes");
    }

    #[test]
    fn what_a_store_has_forgotten_is_told_again_and_what_is_over_is_not() {
        let b = Ticket::from_random(2);
        let mut ledger = Ledger::default();
        for ticket in [A, b] {
            ledger.enter(ticket, Heard::Yes);
            ledger.moved_on(ticket, Phase::Active);
        }
        for (ticket, word) in ledger.take() {
            ledger.settle(ticket, &word, Some(Held::Yes));
        }
        ledger.leave(b, Parting::Over(CloseReason::ClientClosed));
        ledger.forgotten();
        assert_eq!(ledger.take(), [(A, report(Phase::Active))]);
        assert!(!ledger.knows(b));
        ledger.settle(A, &report(Phase::Active), None);
        ledger.restored(&[A]);
        assert_eq!(ledger.take(), [], "restoring has said so");
    }

    #[test]
    fn what_nobody_has_claimed_is_made_known_first() {
        let mut ledger = Ledger::default();
        ledger.enter(A, Heard::No);
        ledger.moved_on(A, Phase::Connecting);
        assert_eq!(ledger.take(), [(A, Word::Restore)]);
        ledger.settle(A, &Word::Restore, None);
        assert_eq!(ledger.take(), [(A, Word::Restore)], "until it is heard");
        ledger.settle(A, &Word::Restore, Some(Held::Yes));
        assert_eq!(ledger.take(), [(A, report(Phase::Connecting))]);
        // One that is over before anybody was told has never been; of one that may have been told, the end is.
        for (told, expected) in [(false, vec![]), (true, vec![(A, Word::End(CloseReason::EndStream))])] {
            let mut ledger = Ledger::default();
            ledger.enter(A, Heard::No);
            ledger.moved_on(A, Phase::Active);
            if told {
                ledger.take();
                ledger.settle(A, &Word::Restore, None);
            }
            ledger.leave(A, Parting::Over(CloseReason::EndStream));
            assert_eq!((ledger.take(), ledger.knows(A)), (expected, told));
        }
        // A store that has forgotten everything is told of it with all the others.
        let mut ledger = Ledger::default();
        ledger.enter(A, Heard::No);
        ledger.forgotten();
        ledger.moved_on(A, Phase::Active);
        ledger.restored(&[A]);
        assert_eq!(ledger.take(), []);
    }

    #[test]
    fn what_was_refused_late_is_over() {
        let left = |tell: &dyn Fn(&mut Ledger)| {
            let mut ledger = Ledger::default();
            ledger.enter(A, Heard::Yes);
            tell(&mut ledger);
            ledger.leave(A, Parting::Unbegun);
            ledger.take()
        };
        let (release, end) = ([(A, Word::Release)], [(A, Word::End(CloseReason::Invalid))]);
        assert_eq!(left(&|_| {}), release);
        assert_eq!(left(&|ledger| ledger.moved_on(A, Phase::Connecting)), release, "nobody was told");
        let told = |heard: Option<Held>| {
            move |ledger: &mut Ledger| {
                ledger.moved_on(A, Phase::Connecting);
                let words = ledger.take();
                words.iter().for_each(|(ticket, word)| ledger.settle(*ticket, word, heard));
            }
        };
        assert_eq!(left(&told(Some(Held::Yes))), end);
        assert_eq!(left(&told(None)), end, "it may have been heard");
        assert_eq!(left(&|ledger| ledger.restored(&[A])), end);
    }

    #[test]
    fn debts_are_counted() {
        let mut ledger = Ledger::default();
        for n in 0..=MAX_OWED as u64 {
            assert!(!ledger.is_overdrawn(), "{n}");
            ledger.enter(Ticket::from_random(n), Heard::Yes);
            ledger.leave(Ticket::from_random(n), Parting::Over(CloseReason::ClientClosed));
        }
        assert!(ledger.is_overdrawn() && ledger.entries.len() == MAX_OWED);
        assert_eq!(ledger.take().len(), MAX_WORDS);
        ledger.forgotten();
        assert!(!ledger.is_overdrawn());
    }
}
