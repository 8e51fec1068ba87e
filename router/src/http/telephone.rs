//! What a telephone company asks, and what is known of the calls that it puts through: any router and any worker can tell by
//! a key that the whole fleet has, and which session a call has stands in the store.

use std::time::{Duration, Instant, SystemTime};

use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::Response;
use streamfleet_edge::{body, reply};
use streamfleet_session::SessionId;
use streamfleet_session::wire::Failure;
use streamfleet_socket::hello::Proof;
use streamfleet_socket::protocol::{CallSid, CallStart};
use streamfleet_socket::telephone::{CallLeg, CallTokenKey, InvalidCallToken, form_parameters, returning};
use streamfleet_store::{Reach, SessionView};

use super::Call;
use super::owner::Voucher;
use crate::limit::Kind;

impl Call {
    /// `telephone/incoming`: any worker puts a call through; one that comes back goes to the worker that has its session.
    pub(super) async fn incoming(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = match body::read(body).await {
            Ok(body) => body,
            Err(fault) => return reply::body_fault(fault),
        };
        let owner = self.owner_of_call(&parts, &body).await;
        // Anybody else says that the conversation is over.
        let others = self.some_workers().into_iter();
        self.first_of(&parts, body, Voucher::None, owner.into_iter().chain(others).take(2)).await
    }

    async fn owner_of_call(&self, parts: &Parts, body: &[u8]) -> Option<Reach> {
        let shown = parts.uri.query().and_then(returning)?;
        let form = form_parameters(body);
        let sid = form.iter().find(|(key, _)| key == "CallSid").and_then(|(_, value)| CallSid::parse(value))?;
        let nonce = self.call_key().verify_return(sid.as_str(), shown)?;
        let (store, service) = (&self.api.parts.store, &self.desk.service.name);
        let session = store.session_of_call(service, nonce.bits()).await.ok()??;
        match store.session(service, &session).await {
            Ok(Some(SessionView::Live(live))) => Some(live.at),
            _ => None,
        }
    }

    /// What is known of a media stream. Where requests for TwiML are signed, a stream that one has led here is no attempt of
    /// anybody's and its address is not counted: all of them come from the company's few.
    pub(super) fn proof(&self, start: &CallStart, now: Instant) -> Result<Proof, Failure> {
        let proof = self.look_at(start);
        let is_signed = self.desk.service.telephone.auth_token.is_some();
        match proof {
            Ok(proof) if is_signed => Ok(proof),
            Ok(proof) => self.rated(Kind::Offer, now).map(|()| proof),
            Err(error) => {
                self.rated(Kind::Offer, now)?;
                if is_signed {
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

    fn call_key(&self) -> CallTokenKey {
        CallTokenKey::of_service(&self.api.parts.secret.of_service(&self.desk.service.name))
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
