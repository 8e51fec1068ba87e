//! What a worker does next to be known to its fleet: register, write again what it has, renew. A machine without a store
//! and without a clock.
//!
//! Whoever drives it does one step at a time and tells it what came of that. A step that fails for want of a store is done
//! again; one that is refused because the lease has run out, or because the store has forgotten, leads back to the
//! beginning. Only one thing ends it: that another process has taken the worker's name since.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use streamfleet_store::{Entry, Epoch, FleetError, MAX_BATCH, StoreError, Terms, Ticket};

/// Between two attempts to reach a store that is away. It refuses in microseconds then, so asking is cheap; and a worker
/// that is back half a second later is back before its clients try again.
const RETRY: Duration = Duration::from_millis(500);

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Register, and say what there is to be written again.
    Register(Entry),
    /// Write these sessions again.
    Restore(Epoch, Vec<Ticket>),
    /// Renew the lease, and take the orders.
    Renew(Epoch),
    /// Nothing before this time.
    Wait(Instant),
    /// Nothing any more: the name is another process's.
    Stop,
}

#[derive(Debug)]
enum Standing {
    /// Nobody knows it.
    Outside,
    /// It has an epoch, and sessions that the store does not know yet.
    Restoring(Epoch, VecDeque<Ticket>),
    /// It is a member, and may be given sessions.
    Member(Epoch),
    /// Another process has its name.
    Fenced,
}

/// Whether a registration may have been made that nobody has heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unheard {
    None,
    Perhaps,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Registrar {
    heartbeat: Duration,
    standing: Standing,
    /// As which it registers next.
    entry: Entry,
    unheard: Unheard,
    /// When the next step is due.
    due: Instant,
    /// When the store may be told of sessions again, and asked before its time.
    speak: Instant,
}

impl Registrar {
    pub(crate) fn new(terms: Terms, now: Instant) -> Self {
        let heartbeat = terms.heartbeat();
        Self { heartbeat, standing: Standing::Outside, entry: Entry::New, unheard: Unheard::None, due: now, speak: now }
    }

    /// What is to be done now.
    pub(crate) fn poll(&mut self, now: Instant) -> Step {
        if matches!(self.standing, Standing::Fenced) {
            return Step::Stop;
        }
        if now < self.due {
            return Step::Wait(self.due);
        }
        match &self.standing {
            Standing::Outside => Step::Register(self.entry),
            Standing::Restoring(epoch, left) => Step::Restore(*epoch, left.iter().take(MAX_BATCH).copied().collect()),
            Standing::Member(epoch) => Step::Renew(*epoch),
            Standing::Fenced => Step::Stop,
        }
    }

    /// The registration under which sessions may be placed here.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match &self.standing {
            Standing::Member(epoch) => Some(*epoch),
            Standing::Outside | Standing::Restoring(..) | Standing::Fenced => None,
        }
    }

    /// Whether it has an epoch and is still writing its sessions again.
    pub(crate) fn is_restoring(&self) -> bool {
        matches!(self.standing, Standing::Restoring(..))
    }

    /// Under which registration the store can be told of sessions now; otherwise when to look again.
    pub(crate) fn may_speak(&self, now: Instant) -> Result<Epoch, Instant> {
        match &self.standing {
            Standing::Member(epoch) if now >= self.speak => Ok(*epoch),
            _ => Err(self.speak.max(now + RETRY)),
        }
    }

    /// It has been asked to look, or has something to show: renew at once. A store that did not take the last word is left alone for
    /// its while: it refuses in microseconds, and what is to be shown would ask again and again.
    pub(crate) fn woken(&mut self, now: Instant) {
        if let Standing::Member(_) = self.standing {
            self.due = self.due.min(now.max(self.speak));
        }
    }

    /// What came of registering, while these sessions lived.
    pub(crate) fn registered(&mut self, answer: Result<Epoch, StoreError>, held: Vec<Ticket>, now: Instant) {
        // A store that was away may have lost everybody, and so may one that has lost this worker.
        self.entry = Entry::Again;
        match answer {
            Ok(epoch) => {
                self.standing = Standing::Restoring(epoch, held.into());
                self.settled();
                self.due = now;
            }
            Err(_) => {
                // Its answer may be lost, and it may come to be made later than the one that is heard of.
                self.unheard = Unheard::Perhaps;
                self.due = now + RETRY;
            }
        }
    }

    /// What came of writing so many sessions again.
    pub(crate) fn restored(&mut self, answer: Result<usize, FleetError>, now: Instant) {
        match answer {
            Ok(written) => {
                if let Standing::Restoring(_, left) = &mut self.standing {
                    left.drain(..written.min(left.len()));
                }
                self.settled();
                self.due = now;
            }
            Err(error) => self.failed(&error, now),
        }
    }

    /// What came of renewing.
    pub(crate) fn renewed(&mut self, answer: Result<(), FleetError>, now: Instant) {
        match answer {
            Ok(()) => {
                self.unheard = Unheard::None;
                self.due = now + self.heartbeat;
                self.speak = now;
            }
            Err(error) => self.failed(&error, now),
        }
    }

    /// What keeps it a member was not taken.
    fn failed(&mut self, error: &FleetError, now: Instant) {
        self.refused(error, now);
        if let FleetError::Store(_) = error {
            self.due = now + RETRY;
        }
    }

    /// What was said of a session was not taken. That moves no renewal: a word that is refused for ever must not cost the lease.
    pub(crate) fn refused(&mut self, error: &FleetError, now: Instant) {
        match error {
            FleetError::Unregistered => self.begin_again(now),
            FleetError::Fenced { current } => self.fenced(*current, now),
            FleetError::Store(_) => self.speak = now + RETRY,
        }
    }

    /// Another registration of the name is in force.
    fn fenced(&mut self, current: Epoch, now: Instant) {
        let own = match self.standing {
            Standing::Member(own) | Standing::Restoring(own, _) => own,
            // An answer to what was said in a registration that is given up already: words go many at a time.
            Standing::Outside | Standing::Fenced => return,
        };
        // A store that has lost its last writes is where it was before this worker registered: whoever takes a name from it is given a
        // later epoch. Should somebody have taken it in such a store all the same, it is he who finds a later one than his own now.
        if current < own {
            return self.begin_again(now);
        }
        match std::mem::replace(&mut self.unheard, Unheard::None) {
            // A registration of our own that was believed lost.
            Unheard::Perhaps => self.begin_again(now),
            Unheard::None => self.standing = Standing::Fenced,
        }
    }

    /// The store is to forget what it knows of this worker and be told everything again.
    pub(crate) fn begin_again(&mut self, now: Instant) {
        self.standing = Standing::Outside;
        self.due = now;
    }

    fn settled(&mut self) {
        if let Standing::Restoring(epoch, left) = &self.standing
            && left.is_empty()
        {
            self.standing = Standing::Member(*epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tickets(n: u64) -> Vec<Ticket> {
        (0..n).map(Ticket::from_random).collect()
    }

    fn away<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable("it is away".to_owned()))
    }

    fn member(now: Instant) -> Registrar {
        let mut registrar = Registrar::new(Terms::default(), now);
        registrar.registered(Ok(Epoch(1)), Vec::new(), now);
        registrar.renewed(Ok(()), now);
        registrar
    }

    #[test]
    fn a_worker_registers_restores_and_renews() {
        let now = Instant::now();
        let mut registrar = Registrar::new(Terms::default(), now);
        assert_eq!(registrar.poll(now), Step::Register(Entry::New));
        registrar.registered(Ok(Epoch(7)), tickets(65), now);
        assert_eq!(registrar.epoch(), None, "it may be given none before the store knows what it has");
        assert_eq!(registrar.poll(now), Step::Restore(Epoch(7), tickets(64)));
        registrar.restored(Ok(64), now);
        assert_eq!(registrar.poll(now), Step::Restore(Epoch(7), vec![Ticket::from_random(64)]));
        registrar.restored(Ok(1), now);
        assert_eq!(registrar.poll(now), Step::Renew(Epoch(7)));
        registrar.renewed(Ok(()), now);
        assert_eq!(registrar.poll(now), Step::Wait(now + Duration::from_secs(2)));
        assert_eq!(registrar.epoch(), Some(Epoch(7)));
        registrar.woken(now);
        assert_eq!(registrar.poll(now), Step::Renew(Epoch(7)));
    }

    #[test]
    fn a_store_that_is_away_is_asked_again_and_a_lost_lease_begins_anew() {
        let now = Instant::now();
        let mut registrar = Registrar::new(Terms::default(), now);
        registrar.registered(away(), Vec::new(), now);
        assert_eq!(registrar.poll(now), Step::Wait(now + RETRY));
        assert_eq!(registrar.poll(now + RETRY), Step::Register(Entry::Again));
        let mut registrar = member(now);
        let later = now + Duration::from_secs(2);
        registrar.renewed(away().map_err(FleetError::Store), later);
        assert_eq!(registrar.epoch(), Some(Epoch(1)), "what was placed here is still its own");
        assert_eq!(registrar.may_speak(later), Err(later + RETRY));
        registrar.woken(later);
        assert_eq!(registrar.poll(later), Step::Wait(later + RETRY), "whatever there is to show");
        assert_eq!(registrar.poll(later + RETRY), Step::Renew(Epoch(1)));
        registrar.renewed(Err(FleetError::Unregistered), later);
        assert_eq!((registrar.epoch(), registrar.poll(later)), (None, Step::Register(Entry::Again)));
    }

    /// A word that the store refuses again and again, as one for which it has no room.
    #[test]
    fn words_that_are_refused_cost_no_renewal() {
        let began = Instant::now();
        let mut registrar = member(began);
        let (mut now, mut renewals) = (began, 0);
        while now < began + Duration::from_secs(20) {
            if registrar.may_speak(now).is_ok() {
                registrar.refused(&FleetError::Store(StoreError::Full), now);
            }
            if let Step::Renew(_) = registrar.poll(now) {
                renewals += 1;
                registrar.renewed(Ok(()), now);
            }
            now += Duration::from_millis(50);
        }
        assert_eq!(renewals, 9, "one every two seconds");
    }

    #[test]
    fn a_name_that_is_anothers_is_given_up_but_not_to_an_echo_of_oneself() {
        let now = Instant::now();
        let fenced = || Err(FleetError::Fenced { current: Epoch(9) });
        let mut registrar = member(now);
        registrar.renewed(fenced(), now);
        assert_eq!((registrar.epoch(), registrar.poll(now)), (None, Step::Stop));
        registrar.woken(now);
        assert_eq!(registrar.poll(now + Duration::from_secs(60)), Step::Stop, "for good");

        let mut registrar = Registrar::new(Terms::default(), now);
        registrar.registered(away(), Vec::new(), now);
        registrar.registered(Ok(Epoch(1)), Vec::new(), now);
        // Two words at a time, both of which are refused.
        registrar.refused(&fenced().unwrap_err(), now);
        registrar.refused(&fenced().unwrap_err(), now);
        assert_eq!(registrar.poll(now), Step::Register(Entry::Again), "the first attempt came through late");
        registrar.registered(Ok(Epoch(8)), Vec::new(), now);
        registrar.renewed(fenced(), now);
        assert_eq!(registrar.poll(now), Step::Stop);
    }

    /// A server that is restarted from what it had on its disk, or a replica that had not heard of the last registrations.
    #[test]
    fn a_store_that_has_gone_back_in_time_is_told_everything_again() {
        // In which epoch it is, which one the store says is in force, and whether one goes on.
        let check = |own: u64, current: u64, expected: Step| {
            let now = Instant::now();
            let fenced = FleetError::Fenced { current: Epoch(current) };
            for held in [Vec::new(), tickets(1)] {
                let mut registrar = Registrar::new(Terms::default(), now);
                registrar.registered(Ok(Epoch(own)), held.clone(), now);
                match held.as_slice() {
                    [] => registrar.renewed(Err(fenced.clone()), now),
                    [..] => registrar.restored(Err(fenced.clone()), now),
                }
                assert_eq!(registrar.poll(now), expected, "{own} {current} {held:?}");
            }
        };
        check(7, 6, Step::Register(Entry::Again));
        check(7, 0, Step::Register(Entry::Again));
        check(7, 8, Step::Stop);
        check(7, u64::MAX, Step::Stop);
    }

    #[test]
    fn what_is_said_of_sessions_waits_for_a_store_that_is_away() {
        let now = Instant::now();
        let mut registrar = member(now);
        assert_eq!(registrar.may_speak(now), Ok(Epoch(1)));
        registrar.refused(&away::<()>().map_err(FleetError::Store).unwrap_err(), now);
        assert!(registrar.may_speak(now).is_err());
        assert_eq!(registrar.may_speak(now + RETRY), Ok(Epoch(1)));
        registrar.refused(&FleetError::Unregistered, now);
        assert!(registrar.may_speak(now + RETRY).is_err(), "nobody would know whose word it is");
    }

    proptest! {
        /// Whatever comes, and however often it is woken: it never waits longer than a heartbeat, never renews what it has not restored,
        /// and leaves a store alone that does not answer.
        #[test]
        fn it_goes_on(answers in proptest::collection::vec((0..5_u8, 0..3_000_u64), 1..60)) {
            let mut now = Instant::now();
            let mut registrar = Registrar::new(Terms::default(), now);
            let (mut epoch, mut unwritten, mut quiet, mut has_tried) = (0, 0, now, false);
            for (answer, later) in answers {
                now += Duration::from_millis(later);
                let refusal = || match answer {
                    1 => FleetError::Unregistered,
                    2 => FleetError::Fenced { current: Epoch(epoch - 1) },
                    _ => FleetError::Store(StoreError::Full),
                };
                registrar.woken(now);
                let step = registrar.poll(now);
                prop_assert!(now >= quiet || matches!(step, Step::Wait(_)), "{:?}", step);
                if answer > 2 && !matches!(step, Step::Wait(_)) {
                    quiet = now + RETRY;
                }
                match step {
                    Step::Register(entry) => {
                        prop_assert_eq!(entry, if has_tried { Entry::Again } else { Entry::New });
                        has_tried = true;
                        if answer < 3 {
                            epoch += 1;
                            unwritten = 70;
                            registrar.registered(Ok(Epoch(epoch)), tickets(70), now);
                        } else {
                            registrar.registered(away(), tickets(70), now);
                        }
                    }
                    Step::Restore(of, batch) => {
                        prop_assert_eq!(of, Epoch(epoch));
                        prop_assert!(!batch.is_empty() && batch.len() <= MAX_BATCH);
                        if answer == 0 { unwritten -= batch.len(); }
                        registrar.restored(if answer == 0 { Ok(batch.len()) } else { Err(refusal()) }, now);
                    }
                    Step::Renew(of) => {
                        prop_assert_eq!((of, unwritten), (Epoch(epoch), 0));
                        registrar.renewed(if answer == 0 { Ok(()) } else { Err(refusal()) }, now);
                    }
                    Step::Wait(until) => prop_assert!(until > now && until <= now + Duration::from_secs(2)),
                    Step::Stop => prop_assert!(false, "nobody has taken its name"),
                }
            }
        }
    }
}
