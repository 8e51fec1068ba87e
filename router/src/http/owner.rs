//! What is asked of a session beside its offer, and goes to the worker that has it; and what any worker answers.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures_util::StreamExt as _;
use streamfleet_edge::headers::bearer;
use streamfleet_edge::{body, reply};
use streamfleet_session::fleet::{USER_HEADER, VOUCHED, VOUCHED_HEADER, encode_user};
use streamfleet_session::wire::{Failure, InputBody, OutputsQuery, TriggerBody};
use streamfleet_session::{Claims, CloseReason, SessionId, UserId};
use streamfleet_store::{Gate, LiveSession, Reach, SETTLING, SessionView};

use super::Call;
use super::away::{Found, Returning, Search};
use super::claim::unavailable;
use super::control::Authority;
use super::offer::access_token;
use crate::attempt::FULL_RETRY;
use crate::forward::{onward, passed_on};
use crate::identify::Shown;
use crate::limit::Kind;

/// For the head of an answer. A handler that is slow answers an input when it takes it.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// How long it is waited, and how often, until what is read of a session is asked of its worker again, which did not answer: one
/// that has handed its last session over is gone before the store has heard where that session is now.
const AGAIN_AFTER: [Duration; 3] = [Duration::ZERO, Duration::from_millis(250), Duration::from_secs(1)];

/// How many workers are asked for what any of them reads in the store: one that has died is among them until its lease is over.
const READERS: usize = 3;

/// Whether the router vouches for whoever asks: a worker knows neither the operator's token nor users'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Voucher {
    Given,
    /// This user asks. Whether he may, only the worker knows, which knows whose a session was that is over.
    User(UserId),
    /// The worker judges by what it is shown.
    None,
}

/// Where a session's worker is.
pub(super) enum Owner {
    /// It lives there.
    Live(Box<LiveSession>),
    /// The store does not say so, being away or not told yet, and this worker does.
    Said(Box<Found>),
    /// It is over, and this worker had it.
    Last(Reach),
    /// It is over, and nobody knows where it was.
    Over,
    /// The store is away, and every worker says that it has none.
    Nobody,
}

/// What is asked of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aspect {
    /// How it is: while it lives.
    View,
    /// What is remembered of it: that outlives it.
    Data,
}

impl Call {
    /// What the first of these answers.
    pub(super) async fn first_of(
        &self,
        parts: &Parts,
        body: Bytes,
        voucher: Voucher,
        workers: impl Iterator<Item = Reach> + Send,
    ) -> Response {
        let mut last = Failure::NoCapacity { retry_after: FULL_RETRY };
        for at in workers {
            match self.pass_on_for(parts, Body::from(body.clone()), (at, voucher.clone())).await {
                Ok(response) => return self.counted("passed", response),
                Err(failure) => last = failure,
            }
        }
        self.counted(last.as_str(), reply::failure(&last))
    }

    pub(super) async fn outputs(&self, request: Request) -> Response {
        let (parts, _) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let id = match OutputsQuery::parse(form_urlencoded::parse(query.as_bytes())) {
            Ok(query) => query.webrtc_id,
            Err(error) => return self.counted("invalid", reply::shape(&error)),
        };
        let outcome = async {
            self.rated(Kind::Session, Instant::now())?;
            let owner = self.owner(&id).await?;
            if let Owner::Over = owner {
                // Any worker reads it in the store.
                let voucher = self.introduced(&parts).await;
                return self.read_anywhere(&parts, voucher, None).await;
            }
            let at = self.way(&parts, owner).await.ok_or(Failure::NotFound)?;
            match self.pass_on_for(&parts, Body::empty(), at.clone()).await {
                // An EventSource that is answered by a failure comes back no more.
                Err(Failure::UpstreamUnavailable) => self.read_anywhere(&parts, at.1, Some(at.0)).await,
                answered => answered,
            }
        };
        self.answered(outcome.await.and_then(|answer| self.bounded(answer)))
    }

    /// Asks workers that do not have the session, and not the one that is gone, until one answers.
    async fn read_anywhere(&self, parts: &Parts, voucher: Voucher, gone: Option<Reach>) -> Result<Response, Failure> {
        let is_gone = |at: &Reach| gone.as_ref().is_some_and(|gone| gone.worker == at.worker);
        let others = self.some_workers().into_iter().filter(|at| !is_gone(at));
        let mut last = Failure::NoCapacity { retry_after: FULL_RETRY };
        for at in others.take(READERS) {
            match self.pass_on_for(parts, Body::empty(), (at, voucher.clone())).await {
                Ok(response) => return Ok(response),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// `input_hook` and `trigger_response`.
    pub(super) async fn told(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = match body::read(body).await {
            Ok(body) => body,
            Err(fault) => return self.counted(fault.as_str(), reply::body_fault(fault)),
        };
        let is_input = parts.uri.path().ends_with("/input_hook");
        let id = if is_input {
            InputBody::parse(&body).map(|body| body.webrtc_id)
        } else {
            TriggerBody::parse(&body).map(|body| body.webrtc_id)
        };
        let id = match id {
            Ok(id) => id,
            Err(error) => return self.counted("invalid", reply::shape(&error)),
        };
        let outcome = async {
            self.rated(Kind::Session, Instant::now())?;
            let owner = self.owner(&id).await?;
            let at = self.way(&parts, owner).await.ok_or(Failure::NotFound)?;
            self.pass_on_for(&parts, Body::from(body), at).await
        };
        self.answered(outcome.await)
    }

    /// `sessions/{id}` and its data: its owner says, or of one that is over any worker, from the store.
    pub(super) async fn of_owner(&self, request: Request, id: SessionId, what: Aspect) -> Response {
        let authority = match self.guard(request.headers(), request.uri(), request.version()) {
            Ok(authority) => authority,
            Err(strange) => return *strange,
        };
        if let Err(failure) = self.tried(&authority) {
            return self.not_controlled(&id, &failure);
        }
        let (parts, body) = request.into_parts();
        let body = match body::read(body).await {
            Ok(body) => body,
            Err(fault) => return reply::body_fault(fault),
        };
        let outcome = async {
            let mut waits = AGAIN_AFTER.into_iter();
            let mut gone = None;
            loop {
                let (at, voucher) = self.reader(&authority, &parts, (&id, what), gone.as_ref()).await?;
                let answer = if gone.as_ref() == Some(&at) {
                    Err(Failure::UpstreamUnavailable)
                } else {
                    self.pass_in(parts.clone(), Body::from(body.clone()), (at.clone(), voucher)).await
                };
                // What changes something may have done so.
                let may_ask_again =
                    parts.method.is_safe() && answer.as_ref().err() == Some(&Failure::UpstreamUnavailable);
                let Some(wait) = waits.next().filter(|_| may_ask_again) else { return answer };
                gone = Some(at);
                tokio::time::sleep(wait).await;
            }
        };
        let outcome = outcome.await;
        self.api.record.control(outcome.as_ref().map_or_else(Failure::as_str, |_| "passed"));
        if let Err(failure @ Failure::Unauthorized) = &outcome {
            self.audit(&id, None).denied(failure.as_str());
        }
        outcome.unwrap_or_else(|failure| reply::failure(&failure))
    }

    /// Who answers what is asked of a session, if whoever asks may know. `gone` has not answered.
    async fn reader(
        &self,
        authority: &Authority,
        parts: &Parts,
        (id, what): (&SessionId, Aspect),
        gone: Option<&Reach>,
    ) -> Result<(Reach, Voucher), Failure> {
        match self.owner(id).await {
            Ok(Owner::Live(live)) => self.allowed(authority, parts, &live).await,
            Ok(Owner::Said(found)) => self.allowed_there(authority, parts, &found).await,
            Ok(Owner::Last(at)) if Some(&at) != gone => Ok((at, authority.voucher())),
            Ok(Owner::Nobody) => Err(match what {
                Aspect::View => Failure::NotFound,
                // What is kept of it is where nobody can look now.
                Aspect::Data => Failure::UpstreamUnavailable,
            }),
            Ok(Owner::Last(_) | Owner::Over) | Err(Failure::NotFound) => {
                let any = self.some_workers().into_iter().find(|at| Some(at) != gone);
                Ok((any.ok_or(Failure::NoCapacity { retry_after: FULL_RETRY })?, authority.voucher()))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Passes on what is asked of the control routes.
    pub(super) async fn pass_in(
        &self,
        mut parts: Parts,
        body: Body,
        at: (Reach, Voucher),
    ) -> Result<Response, Failure> {
        // Origin and name have been judged here; a worker goes by a name that no page knows.
        parts.headers.remove(header::ORIGIN);
        parts.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        self.pass_on_for(&parts, body, at).await
    }

    /// Who has a session. A router that cannot ask the store asks the workers, and so where they are still telling it what they have.
    pub(super) async fn owner(&self, id: &SessionId) -> Result<Owner, Failure> {
        let (store, key) = (&self.api.parts.store, (self.desk.service.name.clone(), id.clone()));
        let last = || self.api.known.lock().last(&key, Instant::now());
        let over = || Ok(last().map_or(Owner::Over, Owner::Last));
        let until = Instant::now() + 2 * SETTLING;
        loop {
            let unless_it_lives = match store.session(&key.0, id).await {
                Ok(Some(SessionView::Live(live))) => {
                    self.api.known.lock().remember(&key, live.at.clone(), Instant::now());
                    return Ok(Owner::Live(live));
                }
                Ok(Some(SessionView::Over(CloseReason::WorkerLost))) => over(),
                Ok(Some(SessionView::Over(_))) => return over(),
                Ok(None) => Err(Failure::NotFound),
                Err(error) if error.is_away() => {
                    return match self.api.search(&self.desk, id).await {
                        Search::Found(found) => Ok(Owner::Said(found)),
                        // Its last outputs are still to be had there.
                        Search::Nobody => Ok(last().map_or(Owner::Nobody, Owner::Last)),
                        Search::Unsure => Err(Failure::UpstreamUnavailable),
                    };
                }
                Err(error) => return Err(unavailable(&error)),
            };
            let left = match self.unsure().await {
                Ok(None) => return unless_it_lives,
                Ok(Some(left)) => left,
                Err(error) if error.is_away() => continue,
                Err(error) => return Err(unavailable(&error)),
            };
            if let Search::Found(found) = self.api.search(&self.desk, id).await {
                return Ok(Owner::Said(found));
            }
            if Instant::now() >= until {
                return Err(Failure::UpstreamUnavailable);
            }
            self.settles(Returning::Asker, left).await?;
        }
    }

    /// A stream of outputs, among as many as there may be: they last, and must leave connections for everything else. When this router
    /// leaves they end: an `EventSource` comes again where its stream ends, to another one, and goes on behind what it has.
    fn bounded(&self, answer: Response) -> Result<Response, Failure> {
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        let place = self.api.streams.clone().try_acquire_owned();
        let place = place.map_err(|_| Failure::NoCapacity { retry_after: FULL_RETRY })?;
        let leaving = self.api.parts.leaving.clone().cancelled_owned();
        Ok(answer.map(|body| {
            // Given back with the connection.
            Body::from_stream(body.into_data_stream().take_until(leaving).map(move |data| {
                let _ = &place;
                data
            }))
        }))
    }

    /// Where what its client sends beside its media goes; `None` where there is no session that could take it.
    async fn way(&self, parts: &Parts, owner: Owner) -> Option<(Reach, Voucher)> {
        match owner {
            Owner::Live(live) => Some(self.vouched(parts, &live.at, live.user.as_ref()).await),
            Owner::Said(found) => Some(self.vouched(parts, &found.at, found.user.as_ref()).await),
            Owner::Last(at) => Some((at, self.introduced(parts).await)),
            Owner::Over | Owner::Nobody => None,
        }
    }

    /// Where a request goes, and whether the router vouches for it: it is the router that has seen whether a session's own
    /// user asks, or the operator.
    pub(super) async fn vouched(&self, parts: &Parts, at: &Reach, user: Option<&UserId>) -> (Reach, Voucher) {
        let is_own = self.is_operator(parts) || self.is_user(parts, user).await;
        (at.clone(), if is_own { Voucher::Given } else { Voucher::None })
    }

    /// What a worker is told of whoever asks for a session that is over: the router does not know any more whose it was.
    async fn introduced(&self, parts: &Parts) -> Voucher {
        if self.is_operator(parts) {
            return Voucher::Given;
        }
        self.proved(parts).await.map_or(Voucher::None, Voucher::User)
    }

    fn is_operator(&self, parts: &Parts) -> bool {
        let shown = bearer(&parts.headers).map(str::to_owned).or_else(|| access_token(parts));
        shown.is_some_and(|shown| self.api.parts.access.admin_token.matches(&shown))
    }

    /// Whether a token proves that this is `user`, whose session it is.
    pub(super) async fn is_user(&self, parts: &Parts, user: Option<&UserId>) -> bool {
        user.is_some() && self.proved(parts).await.as_ref() == user
    }

    /// The user who asks, if a token proves one.
    async fn proved(&self, parts: &Parts) -> Option<UserId> {
        if !self.desk.identifier.takes_tokens() {
            return None;
        }
        let token = access_token(parts);
        let shown = Shown { headers: &parts.headers, query_token: token.as_deref(), claims: Claims::default() };
        self.known_caller(shown).await.ok()?.proved().cloned()
    }

    /// Workers that serve, in any order.
    pub(super) fn some_workers(&self) -> Vec<Reach> {
        let snapshot = self.desk.directory.now();
        let open = snapshot.workers.iter().filter(|view| view.gate == Gate::Open);
        let mut found: Vec<Reach> = open
            .filter_map(|view| {
                let said = view.said.as_ref()?;
                Some(Reach { worker: view.owner.worker.clone(), http: said.http.clone() })
            })
            .collect();
        if !found.is_empty() {
            let turn = rand::random::<u32>() as usize % found.len();
            found.rotate_left(turn);
        }
        found
    }

    async fn pass_on_for(
        &self,
        parts: &Parts,
        body: Body,
        (at, voucher): (Reach, Voucher),
    ) -> Result<Response, Failure> {
        let mut request = onward(parts.method.clone(), &self.target, &parts.headers, self.client, body);
        let said = match voucher {
            Voucher::Given => Some((VOUCHED_HEADER, HeaderValue::from_static(VOUCHED))),
            // Base64 is a header's value.
            Voucher::User(user) => HeaderValue::try_from(encode_user(&user)).ok().map(|user| (USER_HEADER, user)),
            Voucher::None => None,
        };
        if let Some((header, value)) = said {
            request.headers_mut().insert(HeaderName::from_static(header), value);
        }
        self.send(request, &at).await
    }

    async fn send(&self, request: Request<Body>, at: &Reach) -> Result<Response, Failure> {
        let is_head = request.method() == Method::HEAD;
        let answer = self.api.parts.upstream.ask(&at.http, request, HEAD_TIME).await;
        let (head, body) = answer.map_err(|_| Failure::UpstreamUnavailable)?.into_parts();
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = passed_on(&head.headers);
        // The length of what a GET would bring (RFC 9110, 8.6); of a body that comes it is written anew.
        if let Some(length) = head.headers.get(header::CONTENT_LENGTH).filter(|_| is_head) {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.clone());
        }
        Ok(response)
    }

    fn answered(&self, outcome: Result<Response, Failure>) -> Response {
        match outcome {
            Ok(response) => self.counted("passed", response),
            Err(failure) => self.counted(failure.as_str(), reply::failure(&failure)),
        }
    }

    pub(super) fn counted(&self, outcome: &'static str, response: Response) -> Response {
        self.api.record.session(outcome);
        response
    }
}
