//! Whether clients are to come to this router, by what it sees of the store and is told of other relays.
//!
//! A router that has read the store once goes on serving without it. One that never has is blind: it cannot place calls, and another one
//! may. But media of calls that live comes by its relay, and needs no store: where all routers have died since the store went, there is
//! no other one. Whoever has begun so to serve goes on: the media of a router that says it is not ready any more is lost until load
//! balancers have noticed, and whether another one that serves can do more, nobody tells.

use std::time::{Duration, Instant};

use streamfleet_process::readiness::{Hold, Note, Readiness};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::place::Freshness;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);
/// A blind router is alone when no relay has served for so long: one that began when it did, and reads the store, is known to serve by
/// then. That is a second until it says that it is ready, one until that is looked at, and what is left for its endpoint to be told of.
/// It is no longer, as callers count ten seconds of silence from the death of the routers before, and have lost half of them by now.
const NOBODY: Duration = Duration::from_secs(3);
/// Where nobody tells of others at all, it takes itself for alone after that: whoever would tell has begun to by then, also where the API
/// server is slow. Many callers have given up.
const ALONE: Duration = Duration::from_secs(8);

/// How media comes to workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    /// By itself.
    Workers,
    /// By relays, of which this router is one; whether any of them serves clients, if somebody tells.
    Relayed { serve: Option<bool> },
}

/// What is said of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Nothing: it sees how things are.
    Clear,
    /// It serves without the store.
    Away,
    /// It is kept from clients.
    Kept,
}

/// What has been seen of the store, and what came of it.
#[derive(Debug, Default)]
struct Sight {
    /// The workers of one service were read once, even if that is gone by now.
    have_seen: bool,
    /// While it has not, and there are services.
    blind: Option<Blind>,
}

/// A router that has never seen any worker of any service.
#[derive(Debug)]
struct Blind {
    since: Instant,
    /// Since when no relay serves, by what is told.
    nobody: Option<Instant>,
    /// It has begun to serve.
    is_let: bool,
}

impl Sight {
    /// One service that was never read (it has just been made, or its part of the store is away) is no reason to give up all others, and the
    /// media that comes by this router.
    fn look(&mut self, snapshots: impl IntoIterator<Item = Freshness>, media: Media, now: Instant) -> Word {
        let mut is_clear = true;
        for freshness in snapshots {
            self.have_seen |= freshness != Freshness::Stale(Duration::MAX);
            is_clear &= freshness == Freshness::Fresh;
        }
        if is_clear || self.have_seen {
            self.blind = None;
            return if is_clear { Word::Clear } else { Word::Away };
        }
        let blind = self.blind.get_or_insert(Blind { since: now, nobody: None, is_let: false });
        if blind.is_let(media, now) { Word::Away } else { Word::Kept }
    }
}

impl Blind {
    fn is_let(&mut self, media: Media, now: Instant) -> bool {
        let lasts = |since: Instant, time| now.saturating_duration_since(since) >= time;
        self.nobody = match media {
            Media::Relayed { serve: Some(false) } => Some(self.nobody.unwrap_or(now)),
            Media::Relayed { .. } | Media::Workers => None,
        };
        self.is_let |= match media {
            Media::Workers => false,
            Media::Relayed { serve: None } => lasts(self.since, ALONE),
            Media::Relayed { serve: Some(_) } => self.nobody.is_some_and(|since| lasts(since, NOBODY)),
        };
        self.is_let
    }
}

/// Says whether the store can be read, and keeps clients away where that is better. `see` shows what is known of each service's workers;
/// `serve` is whether any relay serves clients, where somebody tells; `None` where this router is none.
pub(crate) async fn tell(
    see: impl Fn(Instant) -> Vec<Freshness>,
    readiness: Readiness,
    serve: Option<watch::Receiver<Option<bool>>>,
) {
    let (mut sight, mut before) = (Sight::default(), Word::Clear);
    let mut _said: (Option<Note>, Option<Hold>);
    loop {
        let now = tokio::time::Instant::now().into_std();
        let media = serve.as_ref().map_or(Media::Workers, |serve| Media::Relayed { serve: *serve.borrow() });
        let word = sight.look(see(now), media, now);
        if std::mem::replace(&mut before, word) != word {
            let note = (word == Word::Away).then(|| readiness.note("the store does not answer"));
            _said = (note, (word == Word::Kept).then(|| readiness.hold("store")));
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
#[path = "sight_tests.rs"]
mod tests;
