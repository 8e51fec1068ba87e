//! One candidate: to the worker that has its session, or kept until its offer is placed, by whichever router.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use streamfleet_edge::reply;
use streamfleet_session::wire::Failure;
use streamfleet_session::{Claims, RemoteCandidate, SessionId};
use streamfleet_store::{Reach, SessionView, Topic};
use tokio::time::timeout;

use super::away::Search;
use super::offer::access_token;
use super::{Api, Call};
use crate::forward::{Target, onward, passed_on};
use crate::identify::Shown;
use crate::known::{Key, Route};
use crate::limit::Kind;
use crate::roster::Desk;

/// For a worker to take a candidate: it does nothing but hand it to the session's loop.
const CANDIDATE_TIME: Duration = Duration::from_secs(5);
/// A lost wake-up costs a candidate this, and a store that is away its listener's first one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Wake-ups that come within this are one: a round trip to the store, several times.
const GATHER: Duration = Duration::from_millis(20);

/// An offer on its way to a worker, as long as this lives.
pub(super) struct Placing<'a> {
    api: &'a Arc<Api>,
    key: &'a Key,
}

impl Placing<'_> {
    /// The session is there. Returns what waited for it.
    fn found(self, at: Reach) -> Vec<RemoteCandidate> {
        let mut known = self.api.known.lock();
        // In one step: a candidate that came between the two would wait for nobody.
        known.not_placing(self.key);
        let waited = known.found(self.key, at, Instant::now());
        drop(known);
        std::mem::forget(self);
        waited
    }
}

impl Drop for Placing<'_> {
    fn drop(&mut self) {
        self.api.known.lock().not_placing(self.key);
    }
}

/// What candidates of one session are sent on with.
#[derive(Clone)]
struct Envelope {
    desk: Arc<Desk>,
    target: Target,
    headers: HeaderMap,
    client: std::net::SocketAddr,
}

impl Call {
    pub(super) async fn candidate(
        &self,
        parts: &Parts,
        body: Bytes,
        id: &SessionId,
        candidate: &Value,
        metadata: Option<&Value>,
    ) -> Response {
        let outcome = self.try_candidate(parts, body, id, candidate, metadata).await;
        let label =
            outcome.as_ref().map_or_else(Failure::as_str, |response| response.as_ref().map_or("kept", |_| "sent"));
        self.api.record.candidate(label);
        match outcome {
            Ok(Some(response)) => response,
            Ok(None) => reply::success(),
            Err(failure) => reply::failure(&failure),
        }
    }

    /// The worker's answer; `None` if the candidate waits.
    async fn try_candidate(
        &self,
        parts: &Parts,
        body: Bytes,
        id: &SessionId,
        candidate: &Value,
        metadata: Option<&Value>,
    ) -> Result<Option<Response>, Failure> {
        let now = Instant::now();
        self.rated(Kind::Candidate, now)?;
        // Who may not offer here may not ask about ids either.
        let token = access_token(parts);
        let claims = Claims { metadata, candidate: None };
        let shown = Shown { headers: &parts.headers, query_token: token.as_deref(), claims };
        self.known_caller(shown).await?;
        let key = (self.desk.service.name.clone(), id.clone());
        let envelope = self.envelope(parts);
        let Ok(parsed) = RemoteCandidate::parse(candidate) else {
            // What is wrong with it, the session's worker says, if there is one.
            let at = self.api.look(&self.desk, id).await.ok_or(Failure::UnknownConnection)?;
            return self.api.send(&envelope, &at, body).await.map(Some);
        };
        let route = self.api.known.lock().candidate(&key, self.client.ip(), parsed.clone(), now);
        match route {
            Route::To(at) => match self.api.send(&envelope, &at, body.clone()).await {
                Ok(response) => Ok(Some(response)),
                // It may be elsewhere by now.
                Err(failure) => {
                    self.api.known.lock().forget(&key, &at);
                    let at = self.api.look(&self.desk, id).await.filter(|found| *found != at).ok_or(failure)?;
                    self.api.send(&envelope, &at, body).await.map(Some)
                }
            },
            Route::Waits => Ok(None),
            Route::WaitsUnsought => {
                let seek = self.api.clone().seek(key, envelope);
                let stop = self.api.parts.stop.clone();
                self.api.parts.tasks.spawn(stop.run_until_cancelled_owned(seek));
                Ok(None)
            }
            Route::Refused => Err(Failure::UnknownConnection),
        }
    }

    /// Notes that an offer is on its way.
    pub(super) fn placing<'a>(&'a self, key: &'a Key) -> Placing<'a> {
        self.api.known.lock().placing(key);
        Placing { api: &self.api, key }
    }

    /// The session is there: what waited for it is sent after it, while its client reads the answer.
    pub(super) fn found(&self, placing: Placing<'_>, parts: &Parts, at: &Reach) {
        let id = placing.key.1.clone();
        let waited = placing.found(at.clone());
        if !waited.is_empty() {
            let (api, envelope, at) = (self.api.clone(), self.envelope(parts), at.clone());
            self.api.parts.tasks.spawn(async move { api.send_all(&envelope, &at, &id, &waited).await });
        }
    }

    fn envelope(&self, parts: &Parts) -> Envelope {
        let mut headers = passed_on(&parts.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Envelope { desk: self.desk.clone(), target: self.target.clone(), headers, client: self.client }
    }
}

impl Api {
    /// Where a session lives, by the store or, while it is away, by the workers; remembered. One read.
    pub(super) async fn look(&self, desk: &Desk, id: &SessionId) -> Option<Reach> {
        let key = (desk.service.name.clone(), id.clone());
        match self.parts.store.session(&key.0, id).await {
            Ok(Some(SessionView::Live(live))) => {
                self.known.lock().remember(&key, live.at.clone(), Instant::now());
                Some(live.at)
            }
            Ok(Some(SessionView::Over(_)) | None) => None,
            Err(_) => match self.search(desk, id).await {
                Search::Found(found) => Some(found.at),
                Search::Nobody | Search::Unsure => None,
            },
        }
    }

    /// Waits for the session of candidates that came before their offer, which another router may place, and sends them
    /// after it. Ends with the last of them.
    ///
    /// It reads once when it listens, and once when it is woken: for the offer. Without a wake-up it looks again only if
    /// another candidate has come since: none costs the store more than one read.
    async fn seek(self: Arc<Self>, key: Key, envelope: Envelope) {
        let mut listener = self.parts.store.listen(&key.0, Topic::Session(key.1.clone()));
        let mut reads = 0;
        loop {
            let woken = timeout(LOOK_AGAIN, listener.woken()).await.is_ok();
            // That it listens, and that something had happened, wake it one after the other.
            tokio::time::sleep(GATHER).await;
            while listener.woken().now_or_never().is_some() {}
            let (waiting, placing) = {
                let mut known = self.known.lock();
                if !known.awaits(&key, Instant::now()) {
                    return;
                }
                (known.waiting(&key), known.is_placing(&key))
            };
            // This router's own offer takes them along.
            if placing || !(woken || reads < waiting) {
                continue;
            }
            reads += 1;
            if let Some(at) = self.look(&envelope.desk, &key.1).await {
                let waited = self.known.lock().found(&key, at.clone(), Instant::now());
                return self.send_all(&envelope, &at, &key.1, &waited).await;
            }
        }
    }

    async fn send_all(&self, envelope: &Envelope, at: &Reach, id: &SessionId, waited: &[RemoteCandidate]) {
        for candidate in waited {
            // Their senders have been told that all is well.
            let _ = self.send(envelope, at, message(id, candidate)).await;
        }
    }

    async fn send(&self, envelope: &Envelope, at: &Reach, body: Bytes) -> Result<Response, Failure> {
        let request = onward(Method::POST, &envelope.target, &envelope.headers, envelope.client, Body::from(body));
        let answer = self.parts.upstream.ask_whole(&at.http, request, CANDIDATE_TIME).await;
        let (head, body) = answer.map_err(|_| Failure::UpstreamUnavailable)?.into_parts();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = passed_on(&head.headers);
        Ok(response)
    }
}

/// A candidate as a client would send it.
fn message(id: &SessionId, candidate: &RemoteCandidate) -> Bytes {
    let mut init = json!({ "candidate": candidate.line });
    if let Some(mid) = &candidate.sdp_mid {
        init["sdpMid"] = json!(mid);
    }
    if let Some(index) = candidate.sdp_mline_index {
        init["sdpMLineIndex"] = json!(index);
    }
    if let Some(ufrag) = &candidate.ufrag {
        init["usernameFragment"] = json!(ufrag);
    }
    json!({ "type": "ice-candidate", "webrtc_id": id, "candidate": init }).to_string().into()
}

#[cfg(test)]
mod tests {
    use streamfleet_session::ParsedCandidate;
    use streamfleet_session::wire::OfferBody;

    use super::*;

    #[test]
    fn a_candidate_that_waited_says_what_it_said() {
        let sent = json!({
            "candidate": "candidate:1 1 udp 2122260223 192.0.2.1 4242 typ host",
            "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "abcd",
        });
        let ParsedCandidate::Candidate(parsed) = RemoteCandidate::parse(&sent).unwrap() else { panic!("{sent}") };
        let body = message(&"x".parse().unwrap(), &parsed);
        let OfferBody::Candidate { webrtc_id, candidate, .. } = OfferBody::parse(&body).unwrap() else {
            panic!("{body:?}")
        };
        assert_eq!(webrtc_id.as_str(), "x");
        assert_eq!(RemoteCandidate::parse(&candidate), Ok(ParsedCandidate::Candidate(parsed)));
    }
}
