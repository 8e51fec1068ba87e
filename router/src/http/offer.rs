//! `POST {p}/webrtc/offer`: an offer; candidates go to [`super::candidate`].

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use streamfleet_edge::headers::utf8;
use streamfleet_edge::{body, reply};
use streamfleet_process::telemetry::trace;
use streamfleet_session::Claims;
use streamfleet_session::fleet::{PLACED_HEADER, REFUSED_HEADER, Refused};
use streamfleet_session::wire::{Failure, Offer, OfferBody};
use streamfleet_store::Delivery;
use tracing::Instrument as _;

use super::Call;
use super::claim::{Ask, Carrier, Medium, Told, Wanted, trace_headers};
use super::wait::Wait;
use crate::attempt::Outcome;
use crate::forward::{ANSWER_TIME, Silence, onward, passed_on};
use crate::identify::Shown;

impl Call {
    pub(super) async fn offer_or_candidate(&self, request: Request) -> Response {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let body = match body::read(body).await {
            Ok(body) => body,
            Err(fault) => {
                self.api.record.offer(fault.as_str());
                return reply::body_fault(fault);
            }
        };
        match OfferBody::parse(&body) {
            Err(error) => {
                self.api.record.offer("invalid_body");
                reply::shape(&error)
            }
            Ok(OfferBody::Candidate { webrtc_id, candidate, metadata }) => {
                self.candidate(&parts, body, &webrtc_id, &candidate, metadata.as_ref()).await
            }
            Ok(OfferBody::Offer(offer)) => {
                let service = &self.desk.service.name;
                let span = tracing::info_span!("offer", %service, session = %offer.webrtc_id, otel.kind = "server");
                trace::accept(&span, |name| utf8(&parts.headers, name));
                let outcome = self.offer(&parts, body, &offer, began).instrument(span).await;
                let label = match &outcome {
                    Ok((_, Outcome::Taken)) => {
                        self.api.record.offer_took(began.elapsed());
                        "accepted"
                    }
                    Ok((_, outcome)) => outcome.as_str(),
                    Err(failure) => failure.as_str(),
                };
                self.api.record.offer(label);
                outcome.map_or_else(|failure| reply::failure(&failure), |(response, _)| response)
            }
        }
    }

    async fn offer(
        &self,
        parts: &Parts,
        body: Bytes,
        offer: &Offer,
        began: Instant,
    ) -> Result<(Response, Outcome), Failure> {
        let claims = Claims::from(offer);
        let token = access_token(parts);
        let shown = Shown { headers: &parts.headers, query_token: token.as_deref(), claims };
        let caller = self.identified(shown, &offer.webrtc_id, began).await?;
        let delivery = Delivery::Known;
        let wanted = Wanted { session: &offer.webrtc_id, caller, resume: offer.resume, delivery, medium: Medium::Udp };
        let key = (self.desk.service.name.clone(), offer.webrtc_id.clone());
        let placing = self.placing(&key);
        let carrier = Posted { call: self, parts, body };
        let served = self.place(&wanted, &carrier, Wait::new(self)).await?;
        if served.outcome == Outcome::Taken {
            self.found(placing, parts, &served.at);
        }
        let (head, body) = served.answer.into_parts();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = passed_on(&head.headers);
        Ok((response, served.outcome))
    }
}

/// An offer as it was posted.
struct Posted<'a> {
    call: &'a Call,
    parts: &'a Parts,
    body: Bytes,
}

impl Carrier for Posted<'_> {
    type Answer = axum::http::Response<Bytes>;

    async fn ask(&self, ask: Ask) -> Told<Self::Answer> {
        let Self { call, parts, body } = self;
        let mut request = onward(Method::POST, &call.target, &parts.headers, call.client, Body::from(body.clone()));
        let headers = request.headers_mut();
        headers.insert(HeaderName::from_static(PLACED_HEADER), ask.placed);
        for (name, value) in trace_headers() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        told(call.api.parts.upstream.ask_whole(&ask.at.http, request, ANSWER_TIME).await)
    }
}

/// What a worker's answer to an offer means.
fn told(answer: Result<axum::http::Response<Bytes>, Silence>) -> Told<axum::http::Response<Bytes>> {
    match answer {
        Ok(answer) => {
            let outcome = outcome(answer.status(), answer.headers().get(REFUSED_HEADER), answer.body());
            Told { outcome, answer: Some(answer) }
        }
        Err(Silence::Gone) => Told { outcome: Outcome::Gone, answer: None },
        Err(Silence::TimedOut) => Told { outcome: Outcome::TimedOut, answer: None },
    }
}

fn outcome(status: StatusCode, refused: Option<&HeaderValue>, body: &[u8]) -> Outcome {
    /// The part of an answer that tells it from a failure, which has the same status.
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        r#type: Option<std::borrow::Cow<'a, str>>,
    }
    let refused = refused.filter(|_| matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::FORBIDDEN));
    if let Some(refused) = refused.and_then(|text| text.to_str().ok()).and_then(|text| text.parse::<Refused>().ok()) {
        return Outcome::Refused(refused);
    }
    let answer = serde_json::from_slice::<Answer<'_>>(body);
    let is_answer = status == StatusCode::OK && answer.is_ok_and(|answer| answer.r#type.as_deref() == Some("answer"));
    match status {
        _ if is_answer => Outcome::Taken,
        _ if status.is_server_error() => Outcome::Failed,
        _ => Outcome::Declined,
    }
}

/// `access_token` of the query; of several the first.
pub(super) fn access_token(parts: &Parts) -> Option<String> {
    let query = parts.uri.query()?;
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == crate::identify::ACCESS_TOKEN).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        #[track_caller]
        fn check(status: u16, refused: Option<&'static str>, body: &str, expected: Outcome) {
            let refused = refused.map(HeaderValue::from_static);
            let found = outcome(StatusCode::from_u16(status).unwrap(), refused.as_ref(), body.as_bytes());
            assert_eq!(found, expected, "{status} {refused:?} {body}");
        }
        check(200, None, r#"{"sdp":"v=0","type":"answer"}"#, Outcome::Taken);
        check(200, None, r#"{"status":"failed","meta":{"error":"connection_already_exists"}}"#, Outcome::Declined);
        check(200, None, "", Outcome::Declined);
        check(400, None, r#"{"type":"answer"}"#, Outcome::Declined);
        check(503, Some("stale"), "{}", Outcome::Refused(Refused::Stale));
        check(503, Some("full"), "{}", Outcome::Refused(Refused::Full));
        check(503, Some("moody"), "{}", Outcome::Failed);
        check(200, Some("full"), r#"{"type":"answer"}"#, Outcome::Taken);
        // A fleet whose workers answer every offer so is one that refuses all calls.
        check(500, None, r#"{"status":"failed","meta":{"error":"internal"}}"#, Outcome::Failed);
        check(502, None, "", Outcome::Failed);
        check(503, None, "{}", Outcome::Failed);
    }
}
