//! What a telephone company asks, and what is known of the calls that it puts through: any router and any worker can tell by
//! a key that the whole fleet has, and which session a call has stands in the store.

use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use streamfleet_edge::{body, reply};
use streamfleet_session::wire::Failure;
use streamfleet_session::{CloseReason, SessionId};
use streamfleet_socket::hello::Proof;
use streamfleet_socket::protocol::{CallSid, CallStart, PARAMETER_SESSION};
use streamfleet_socket::telephone::{CallLeg, CallNonce, CallTokenKey, InvalidCallToken, form_parameters, returning};
use streamfleet_store::{Reach, SessionView};
use tokio::time::timeout;

use super::Call;
use super::away::ASKED_AT_ONCE;
use super::owner::Voucher;
use crate::forward::{onward, passed_on};
use crate::limit::Kind;

/// For workers to say whether a call is theirs. One that is not found is over for good, and its company waits for much longer.
const CALL_TIME: Duration = Duration::from_secs(1);

/// For workers to be known again, after the store was lost. A company waits for fifteen seconds (Twilio).
const CALL_PATIENCE: Duration = Duration::from_secs(8);
/// Between two searches.
const CALL_AGAIN: Duration = Duration::from_millis(500);

/// Where the session is of a call that comes back.
enum Whereabouts {
    /// At this worker.
    At(Reach),
    /// It is over; or the call is a new one.
    Nowhere,
    /// The store does not know the call, or where its session is: it is away, or was when the call began, or has lost all that it had
    /// since; or the worker was lost, which may be there again.
    Unknown,
}

impl Call {
    /// `telephone/incoming`: any worker puts a call through; one that comes back goes to the worker that has its session.
    pub(super) async fn incoming(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = match body::read(body).await {
            Ok(body) => body,
            Err(fault) => return reply::body_fault(fault),
        };
        let owner = match self.whereabouts(&parts, &body).await {
            Whereabouts::At(at) => Some(at),
            Whereabouts::Nowhere => None,
            // Where nobody signs, anybody can have a call put through, and have all workers asked for it.
            Whereabouts::Unknown if self.is_signed() || self.rated(Kind::Session, Instant::now()).is_ok() => {
                match self.search_call_long_enough(&parts, &body).await {
                    Some(answer) => return self.counted("passed", answer),
                    None => None,
                }
            }
            Whereabouts::Unknown => None,
        };
        // Anybody else says that the conversation is over.
        let others = self.some_workers().into_iter();
        self.first_of(&parts, body, Voucher::None, owner.into_iter().chain(others).take(2)).await
    }

    async fn whereabouts(&self, parts: &Parts, body: &[u8]) -> Whereabouts {
        let Some(nonce) = self.nonce_of_return(parts, body) else { return Whereabouts::Nowhere };
        let (store, service) = (&self.api.parts.store, &self.desk.service.name);
        let Ok(Some(session)) = store.session_of_call(service, nonce.bits()).await else {
            return Whereabouts::Unknown;
        };
        match store.session(service, &session).await {
            Ok(Some(SessionView::Live(live))) => Whereabouts::At(live.at),
            Ok(Some(SessionView::Over(reason))) if reason != CloseReason::WorkerLost => Whereabouts::Nowhere,
            Ok(_) | Err(_) => Whereabouts::Unknown,
        }
    }

    /// What a call that comes back was put through as; `None` of a new one, and of one that cannot prove it.
    fn nonce_of_return(&self, parts: &Parts, body: &[u8]) -> Option<CallNonce> {
        let shown = parts.uri.query().and_then(returning)?;
        let form = form_parameters(body);
        let sid = form.iter().find(|(key, _)| key == "CallSid").and_then(|(_, value)| CallSid::parse(value))?;
        self.call_key().verify_return(sid.as_str(), shown)
    }

    /// The same again and again while workers are about to be known: a call that is not found is over.
    async fn search_call_long_enough(&self, parts: &Parts, body: &Bytes) -> Option<Response> {
        let until = Instant::now() + CALL_PATIENCE;
        loop {
            if let Some(answer) = self.search_call(parts, body).await {
                return Some(answer);
            }
            let goes_on = match self.unsure().await {
                Ok(left) => left.is_some(),
                Err(_) => !self.desk.directory.now().has_anybody(),
            };
            if !goes_on || Instant::now() + CALL_AGAIN > until {
                return None;
            }
            tokio::time::sleep(CALL_AGAIN).await;
        }
    }

    /// The answer of the worker that has a call's session: all are asked.
    async fn search_call(&self, parts: &Parts, body: &Bytes) -> Option<Response> {
        let snapshot = self.desk.directory.now();
        let workers: Vec<String> =
            snapshot.workers.iter().filter_map(|view| Some(view.said.as_ref()?.http.clone())).collect();
        let answers = async {
            // Never closed: what is not given in time is not given.
            let Ok(_turn) = self.api.call_searches.acquire().await else { return None };
            let mut asked =
                stream::iter(workers).map(|at| self.takes_up(parts, body, at)).buffer_unordered(ASKED_AT_ONCE);
            while let Some(answer) = asked.next().await {
                if answer.is_some() {
                    return answer;
                }
            }
            None
        };
        let searched = timeout(CALL_TIME, answers).await;
        self.api.record.search(match &searched {
            Ok(Some(_)) => "found",
            Ok(None) => "nobody",
            Err(_) => "unsure",
        });
        searched.ok().flatten()
    }

    /// What a worker answers, if it connects the call to the session that it has. Whoever has none says goodbye.
    async fn takes_up(&self, parts: &Parts, body: &Bytes, at: String) -> Option<Response> {
        let body = Body::from(body.clone());
        let request = onward(parts.method.clone(), &self.target, &parts.headers, self.client, body);
        let (head, twiml) = self.api.parts.upstream.ask_whole(&at, request, CALL_TIME).await.ok()?.into_parts();
        // A caller's own words have no quotes there: they are escaped.
        let names_session = format!("name=\"{PARAMETER_SESSION}\"");
        let takes_up = twiml.windows(names_session.len()).any(|window| window == names_session.as_bytes());
        (head.status == StatusCode::OK && takes_up).then(|| {
            let mut response = Response::new(Body::from(twiml));
            *response.headers_mut() = passed_on(&head.headers);
            response
        })
    }

    /// What is known of a media stream. Where requests for TwiML are signed, a stream that one has led here is no attempt of
    /// anybody's and its address is not counted: all of them come from the company's few.
    pub(super) fn proof(&self, start: &CallStart, now: Instant) -> Result<Proof, Failure> {
        let proof = self.look_at(start);
        match proof {
            Ok(proof) if self.is_signed() => Ok(proof),
            Ok(proof) => self.rated(Kind::Offer, now).map(|()| proof),
            Err(error) => {
                self.rated(Kind::Offer, now)?;
                if self.is_signed() {
                    tracing::debug!(%error, "a media stream is refused");
                    return Err(Failure::Forbidden);
                }
                Ok(Proof::None)
            }
        }
    }

    fn look_at(&self, start: &CallStart) -> Result<Proof, InvalidCallToken> {
        let (Some(sid), Some(token)) = (&start.call_sid, &start.token) else { return Err(InvalidCallToken::Invalid) };
        let (nonce, visit) = self.call_key().look(sid.as_str(), token, unix_time())?;
        Ok(Proof::Ours(CallLeg { sid: sid.clone(), nonce }, visit))
    }

    /// Uses up what a call shows: it has this session now. Where the store does not answer, its worker remembers alone.
    pub(super) async fn enter_call(&self, call: &CallLeg, session: &SessionId) -> Result<(), Failure> {
        let entered = self.api.parts.store.enter_call(&self.desk.service.name, call.nonce.bits(), session).await;
        match entered {
            Ok(true) | Err(_) => Ok(()),
            Ok(false) => Err(Failure::Forbidden),
        }
    }

    fn is_signed(&self) -> bool {
        self.desk.service.telephone.auth_token.is_some()
    }

    fn call_key(&self) -> CallTokenKey {
        CallTokenKey::of_service(&self.api.parts.secret.of_service(&self.desk.service.name))
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
