//! What is done while the store is away from this router, or full: workers are asked themselves who has a session, and a new one is
//! placed by its hash alone. The worker arbitrates: it gives no id twice, and no more than its share of the limits.
//!
//! Two routers that have seen the same workers choose the same one, so that an id that comes to both meets itself there. What
//! becomes double nevertheless (their snapshots differ, or a worker was silent) is found when the store is back: the younger
//! ends with `superseded`, if neither is known to be its client's last.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Deserialize;
use streamfleet_session::fleet::{HERE_HEADER, PlacedContext, Share, Standing, VOUCHED, VOUCHED_HEADER};
use streamfleet_session::wire::Failure;
use streamfleet_session::{ResumeToken, SessionId, UserId};
use streamfleet_store::{Reach, StoreError, Ticket};
use tokio::time::timeout;

use super::claim::{Grant, Wanted};
use super::{Api, Call};
use crate::attempt::{Attempts, FULL_RETRY};
use crate::directory::LOOK_AGAIN;
use crate::forward::{Target, onward};
use crate::place::{Loads, NoPlan, Plan};
use crate::roster::Desk;

/// For workers to say whether they have a session: a look into a table of theirs, and a round trip.
const SEARCH_TIME: Duration = Duration::from_millis(200);
/// Workers that one search asks at a time.
pub(super) const ASKED_AT_ONCE: usize = 64;
/// Searches of a router at a time: each asks every worker of a service, and anybody may name an id that nobody has.
pub(super) const MAX_SEARCHES: usize = 32;

/// Who waits for workers to tell the store what they have. Those of one kind take no place of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returning {
    Socket,
    Offer,
    /// Whoever asks for a session over HTTP.
    Asker,
}

impl Returning {
    pub(super) const KINDS: usize = 3;
}

/// What came of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Search {
    /// This worker has it.
    Found(Box<Found>),
    /// Every worker that is known has said that it has not.
    Nobody,
    /// Not all could be asked.
    Unsure,
}

/// A session as its worker shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: Reach,
    /// Who it counts for.
    pub(super) user: Option<UserId>,
    /// Whether that is proved: then it is his alone.
    pub(super) verified: bool,
    /// The transport that it goes over.
    pub(super) transport: String,
}

/// What one worker says.
enum Said {
    Here(Found),
    NotHere,
    Nothing,
}

impl Api {
    /// Asks the workers of the last directory who has a session: the one that had it last first, then all others.
    pub(super) async fn search(&self, desk: &Desk, id: &SessionId) -> Search {
        let key = (desk.service.name.clone(), id.clone());
        let last = self.known.lock().last(&key, Instant::now());
        let snapshot = desk.directory.now();
        let others = snapshot.workers.iter().filter_map(|view| {
            let http = view.said.as_ref()?.http.clone();
            Some(Reach { worker: view.owner.worker.clone(), http })
        });
        let others: Vec<Reach> = others.filter(|at| last.as_ref() != Some(at)).collect();
        if last.is_none() && others.is_empty() {
            return Search::Unsure;
        }
        let (name, rest) = (&desk.service.name, format!("/sessions/{id}"));
        let target = Target::new(name, &self.parts.secret.of_service(name), &rest, &Uri::from_static("/"));
        let searched = async {
            // Never closed: what is not given in time is not given.
            let Ok(_turn) = self.searches.acquire().await else { return Search::Unsure };
            let mut is_sure = true;
            for batch in [last.into_iter().collect(), others] {
                let mut asked = stream::iter(batch).map(|at| self.has(&target, at)).buffer_unordered(ASKED_AT_ONCE);
                while let Some(said) = asked.next().await {
                    match said {
                        Said::Here(found) => return Search::Found(Box::new(found)),
                        Said::NotHere => {}
                        Said::Nothing => is_sure = false,
                    }
                }
            }
            if is_sure { Search::Nobody } else { Search::Unsure }
        };
        let search = timeout(SEARCH_TIME, searched).await.unwrap_or(Search::Unsure);
        if let Search::Found(found) = &search {
            self.known.lock().remember(&key, found.at.clone(), Instant::now());
        }
        self.record.search(match &search {
            Search::Found(_) => "found",
            Search::Nobody => "nobody",
            Search::Unsure => "unsure",
        });
        search
    }

    async fn has(&self, target: &Target, at: Reach) -> Said {
        /// The part of a session's view that says whose it is.
        #[derive(Deserialize)]
        struct View {
            user_id: Option<UserId>,
            verified: bool,
            transport: String,
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let nobody = ([0, 0, 0, 0], 0).into();
        let mut request = onward(Method::GET, target, &headers, nobody, Body::empty());
        request.headers_mut().insert(HeaderName::from_static(VOUCHED_HEADER), HeaderValue::from_static(VOUCHED));
        request.headers_mut().insert(HeaderName::from_static(HERE_HEADER), HeaderValue::from_static("1"));
        let Ok(answer) = self.parts.upstream.ask_whole(&at.http, request, SEARCH_TIME).await else {
            return Said::Nothing;
        };
        match answer.status() {
            StatusCode::NOT_FOUND => Said::NotHere,
            StatusCode::OK => serde_json::from_slice(answer.body()).map_or(Said::Nothing, |view: View| {
                Said::Here(Found { at, user: view.user_id, verified: view.verified, transport: view.transport })
            }),
            _ => Said::Nothing,
        }
    }
}

impl Call {
    /// Waits a while for workers to tell the store what they have: no longer than until it is to be asked again.
    ///
    /// # Errors
    /// [`Failure::UpstreamUnavailable`] where too many do. They want no more workers: they have theirs.
    pub(super) async fn settles(&self, kind: Returning, left: Duration) -> Result<(), Failure> {
        let turn = self.api.settling[kind as usize].try_acquire();
        let _turn = turn.map_err(|_| Failure::UpstreamUnavailable)?;
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        Ok(())
    }

    /// For how long nobody may know of a session that lives; see [`Snapshot::unsure`](crate::directory::Snapshot::unsure).
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn unsure(&self) -> Result<Option<Duration>, StoreError> {
        let said = self.api.parts.store.settling(&self.desk.service.name).await?;
        Ok(self.desk.directory.now().unsure(said, Instant::now()))
    }

    /// A place that no claim stands behind.
    ///
    /// The context is a new one: an earlier one is in the store, and comes back to its client with a later offer.
    pub(super) async fn provision(&self, wanted: &Wanted<'_>, attempts: &Attempts) -> Result<(Plan, Grant), Failure> {
        // A worker that was asked already may be the one that has it.
        if attempts.failed().is_none()
            && let Search::Found(_) = self.api.search(&self.desk, wanted.session).await
        {
            return Err(Failure::ConnectionAlreadyExists);
        }
        let service = &self.desk.service;
        let wish = self.wish(wanted, attempts);
        let snapshot = self.desk.directory.now();
        let full = || Failure::NoCapacity { retry_after: FULL_RETRY };
        let plan = wish.plan(&snapshot.workers, Loads::Unknown).map_err(|none| match none {
            NoPlan::Value(detail) => Failure::InvalidMetadata { detail },
            NoPlan::NotReady | NoPlan::Full => full(),
        })?;
        let first = plan.ranked.first();
        let view = snapshot.workers.iter().find(|view| Some(&view.owner.worker) == first).ok_or_else(full)?;
        let http = view.said.as_ref().ok_or_else(full)?.http.clone();
        let workers = snapshot.workers.iter().filter(|view| view.said.is_some()).count();
        let grant = Grant {
            ticket: Ticket::from_random(rand::random()),
            at: Reach { worker: view.owner.worker.clone(), http },
            epoch: view.owner.epoch,
            standing: Standing::Provisional(Share::of(service.limits.concurrency, service.limits.per_user, workers)),
            context: PlacedContext {
                id: rand::random(),
                version: 0,
                data: serde_json::Map::new(),
                resumed: false,
                token: ResumeToken::from_random(rand::random()),
                generation: 0,
                user: self.context_user(&wanted.caller),
            },
            takes_over: None,
        };
        Ok((plan, grant))
    }
}
