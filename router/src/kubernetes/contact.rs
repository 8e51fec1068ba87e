//! Whether the API server answers, and whether it has told all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamfleet_process::readiness::{Note, Readiness};
use tokio::time::sleep;

use super::watching::LONGEST;
use super::{CONNECTS, SILENCE};

/// How long a failure counts: longer than the longest pause between two attempts and the time that one takes, of which an API server that
/// is connected to and never answers takes all. A watch that has been made again says nothing while nothing changes, so it is known by
/// failing no more.
const COUNTS: Duration = LONGEST.saturating_add(CONNECTS).saturating_add(SILENCE).saturating_add(SPARE);
/// For a machine that is busy.
const SPARE: Duration = Duration::from_secs(5);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);

/// How the router stands to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has not told all yet.
    Starting,
    /// What is known is how things are.
    Synced,
    /// Some of it must not be read, or not any more.
    Refused,
    /// It goes by what was known.
    Away,
}

/// What all watches have met.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contact(Arc<Mutex<Vec<Watched>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Watched {
    /// It has told all once.
    is_whole: bool,
    /// What it watches must not be read.
    is_refused: bool,
    /// When it failed last.
    failed: Option<Instant>,
}

/// One watch's side of it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    contact: Contact,
    index: usize,
}

impl Contact {
    /// One more watch.
    pub(crate) fn line(&self) -> Line {
        let mut watches = self.0.lock();
        watches.push(Watched::default());
        Line { contact: self.clone(), index: watches.len() - 1 }
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let watches = self.0.lock();
        let is_recent = |failed: &Instant| now.saturating_duration_since(*failed) < COUNTS;
        if !watches.iter().all(|watch| watch.is_whole || watch.is_refused) {
            Standing::Starting
        } else if watches.iter().any(|watch| watch.failed.as_ref().is_some_and(is_recent)) {
            Standing::Away
        } else if watches.iter().any(|watch| watch.is_refused) {
            Standing::Refused
        } else {
            Standing::Synced
        }
    }

    /// Says how it stands, in the log and to whoever asks whether the router is ready: it is, all the same.
    pub(crate) async fn tell(self, readiness: Readiness) {
        let mut said: Option<(Standing, Option<Note>)> = None;
        loop {
            let standing = self.standing(Instant::now());
            let before = said.as_ref().map(|(standing, _)| *standing);
            if before != Some(standing) {
                let note = match standing {
                    Standing::Starting | Standing::Synced => None,
                    Standing::Away => Some(readiness.note("the API server does not answer")),
                    Standing::Refused => Some(readiness.note("the API server refuses some of what is watched")),
                };
                match standing {
                    Standing::Starting => {}
                    Standing::Away => tracing::warn!("the API server does not answer: what was known of it goes on"),
                    Standing::Refused => {
                        tracing::warn!(
                            "the API server refuses some of what is watched: what was known of that goes on"
                        );
                    }
                    Standing::Synced => tracing::info!("what the API server has is known"),
                }
                said = Some((standing, note));
            }
            sleep(LOOK).await;
        }
    }
}

impl Line {
    /// All has been told, or something new.
    pub(crate) fn heard(&self) {
        self.change(|watch| *watch = Watched { is_whole: true, ..Watched::default() });
    }

    /// It answers, and lets nothing be read.
    pub(crate) fn refused(&self) {
        self.change(|watch| (watch.is_refused, watch.failed) = (true, None));
    }

    pub(crate) fn failed(&self, now: Instant) {
        self.change(|watch| watch.failed = Some(now));
    }

    fn change(&self, change: impl FnOnce(&mut Watched)) {
        if let Some(watch) = self.contact.0.lock().get_mut(self.index) {
            change(watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_as_the_worst_of_its_watches() {
        let (contact, start) = (Contact::default(), Instant::now());
        assert_eq!(contact.standing(start), Standing::Synced, "there is nothing to be known");
        let (a, b) = (contact.line(), contact.line());
        let check = |seconds, expected| assert_eq!(contact.standing(start + Duration::from_secs(seconds)), expected);
        check(0, Standing::Starting);
        a.heard();
        a.failed(start);
        check(0, Standing::Starting);
        b.heard();
        check(0, Standing::Away);
        check(49, Standing::Away);
        check(50, Standing::Synced);
        b.failed(start + Duration::from_secs(60));
        check(61, Standing::Away);
        b.heard();
        check(61, Standing::Synced);
        b.refused();
        check(61, Standing::Refused);
        a.failed(start + Duration::from_secs(70));
        check(71, Standing::Away);
        check(120, Standing::Refused);
        b.heard();
        check(120, Standing::Synced);
        // One that never told anything, and is refused.
        let c = contact.line();
        check(120, Standing::Starting);
        c.refused();
        check(120, Standing::Refused);
    }

    /// The gauge was 1 again after each attempt, and the alert on it began to wait anew.
    #[test]
    fn who_takes_requests_and_never_answers_is_away_all_the_time() {
        let (contact, start) = (Contact::default(), Instant::now());
        let line = contact.line();
        line.heard();
        for attempt in 0..10 {
            let failed = start + (LONGEST + CONNECTS + SILENCE) * attempt;
            assert!(attempt == 0 || contact.standing(failed) == Standing::Away, "before failure {attempt}");
            line.failed(failed);
        }
    }
}
