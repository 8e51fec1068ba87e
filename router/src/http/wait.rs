//! How a call waits for its place. It has one patience from its first plan to its last claim, one place among those who wait, and one
//! word in the counts, however often what it found was taken by others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use streamfleet_session::wire::Failure;
use streamfleet_store::{Gate, SETTLING, WorkerView};

use super::Call;
use super::away::Returning;
use super::claim::Wanted;
use crate::attempt::{Attempts, FULL_RETRY};
use crate::directory::{Directory, Snapshot};
use crate::hold::Place;
use crate::place::{NoPlan, Plan, Wish};

/// For the directory to be read again when all workers look full: as long as the store may take for an answer.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Who waits looks as often at least: nobody is told of a place that is free again, or that the store is away.
const LOOK: Duration = Duration::from_secs(1);

/// A worker that has refused a session as it goes is not asked again while it looks open, for so long: it has not been heard yet.
const GOES_FOR: Duration = Duration::from_secs(1);

/// A call on its way to a place. Dropped, it is counted if it has waited: as one whose client has not, if nothing else was said.
pub(super) struct Wait<'a> {
    call: &'a Call,
    directory: Directory,
    /// Among those who wait, while it does.
    place: Option<Place>,
    /// When it began to wait, and how it ended.
    waited: Option<Waited>,
    /// Since when it has had to do with a store that does not know all who live.
    settles: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Waited {
    since: Instant,
    end: Option<(&'static str, Duration)>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(call: &'a Call) -> Self {
        Self { call, directory: call.desk.directory.clone(), place: None, waited: None, settles: None }
    }

    /// It has a place: it does not wait, unless that comes to nothing.
    pub(super) fn found(&mut self) {
        self.end("found");
    }

    /// Its client is told that there is none.
    pub(super) fn give_up(&mut self) {
        self.end("in_vain");
    }

    fn end(&mut self, outcome: &'static str) {
        self.place = None;
        if let Some(waited) = &mut self.waited {
            waited.end.get_or_insert_with(|| (outcome, waited.since.elapsed()));
        }
    }

    /// Where it may go; waits for a worker where none is ready, and where all are full and more are made.
    pub(super) async fn plan(&mut self, wanted: &Wanted<'_>, attempts: &Attempts) -> Result<Plan, Failure> {
        let mut wish = self.call.wish(wanted, attempts);
        let (mut looked_again, began) = (false, Instant::now());
        let mut snapshot = self.directory.look();
        loop {
            let may_come = match wish.plan(&snapshot.workers, snapshot.freshness(Instant::now()).into()) {
                Ok(plan) => return Ok(plan),
                Err(NoPlan::Value(detail)) => return Err(Failure::InvalidMetadata { detail }),
                // Who waits already has the directory as it is.
                Err(NoPlan::Full) if !looked_again && self.place.is_none() => {
                    looked_again = true;
                    snapshot = self.directory.next(SECOND_LOOK).await;
                    continue;
                }
                Err(NoPlan::Full) => wish.grows(&snapshot.workers),
                Err(NoPlan::NotReady) => true,
            };
            // The only worker has refused it: that is told, and nothing is waited for, unless that one goes.
            if !may_come || !attempts.may_wait() {
                return Err(Failure::NoCapacity { retry_after: FULL_RETRY });
            }
            let most = if wish.without.is_some() { GOES_FOR.saturating_sub(began.elapsed()) } else { LOOK };
            snapshot = self.later(most).await?;
            // The one that goes may come to stay.
            let is_open = |view: &WorkerView| Some(&view.owner.worker) == wish.without && view.gate == Gate::Open;
            if !snapshot.workers.iter().any(is_open) || began.elapsed() >= GOES_FOR {
                wish.without = None;
            }
        }
    }

    /// The store had no room at any of the workers that looked open: looks again, or waits for what comes.
    pub(super) async fn no_room(&mut self, wanted: &Wanted<'_>, attempts: &Attempts) -> Result<(), Failure> {
        let wish = self.call.wish(wanted, attempts);
        let may_wait = attempts.may_wait() && wish.grows(&self.directory.now().workers);
        // Who waits already is one of many: the store is not read for each.
        if attempts.may_look_again() && !(may_wait && self.place.is_some()) {
            self.directory.next(SECOND_LOOK).await;
            Ok(())
        } else if may_wait {
            self.later(LOOK).await.map(drop)
        } else {
            Err(Failure::NoCapacity { retry_after: FULL_RETRY })
        }
    }

    /// Waits a while for workers to tell the store what they have. That is none of the waiting that services bound and that more workers
    /// would end.
    pub(super) async fn settles(&mut self, kind: Returning, left: Duration) -> Result<(), Failure> {
        self.place = None;
        let since = *self.settles.get_or_insert_with(Instant::now);
        // Workers that come again and again must not hold anybody for ever.
        if since.elapsed() > 2 * SETTLING {
            return Err(Failure::UpstreamUnavailable);
        }
        self.call.settles(kind, left).await
    }

    /// Waits for a worker that can be asked, where none is known; whether that was so.
    pub(super) async fn for_anybody(&mut self) -> Result<bool, Failure> {
        let (mut snapshot, mut has_waited) = (self.directory.look(), false);
        while !snapshot.has_anybody() {
            snapshot = self.later(LOOK).await.inspect_err(|_| self.give_up())?;
            has_waited = true;
        }
        Ok(has_waited)
    }

    /// Waits, for `most` at most and no longer than the call may in all.
    async fn later(&mut self, most: Duration) -> Result<Arc<Snapshot>, Failure> {
        let now = Instant::now();
        let place = match self.place.take() {
            Some(place) => place,
            None => self.enter(now)?,
        };
        let left = place.left(now)?;
        self.place = Some(place);
        Ok(self.directory.later(left.min(most)).await)
    }

    /// A place among those who wait, if the service has any, for what is left of the call's patience.
    fn enter(&mut self, now: Instant) -> Result<Place, Failure> {
        let service = &self.call.desk.service;
        let waited_for = self.waited.map_or(Duration::ZERO, |waited| now.saturating_duration_since(waited.since));
        let left = service.offer_hold.saturating_sub(waited_for);
        let entered = self.call.api.parts.hold.enter(&service.name, left, now);
        let since = self.waited.map_or(now, |waited| waited.since);
        match &entered {
            Ok(_) => self.waited = Some(Waited { since, end: None }),
            Err(_) if left.is_zero() => {}
            Err(_) => self.waited = Some(Waited { since, end: Some(("crowded", waited_for)) }),
        }
        entered
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(Waited { since, end }) = self.waited else { return };
        let (outcome, after) = end.unwrap_or_else(|| ("left", since.elapsed()));
        self.call.api.record.held(outcome, after);
    }
}

impl Call {
    /// What a session wants of the workers.
    pub(super) fn wish<'w>(&'w self, wanted: &'w Wanted<'_>, attempts: &'w Attempts) -> Wish<'w> {
        Wish {
            service: &self.desk.service,
            params: &self.params,
            session: wanted.session,
            caller: &wanted.caller,
            without: attempts.failed(),
        }
    }
}
