//! `rtc_configuration`: the STUN and TURN servers that a client of a service is told of.
//!
//! Whoever may offer may have them, and nobody else: credentials are worth something. Where the service says which servers, this router
//! makes the credentials, and no worker has the secret; else any worker is asked, which may have some of its own.

use std::time::{Instant, SystemTime};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use streamfleet_edge::{body, reply};
use streamfleet_service::ice::IceServers;
use streamfleet_service::turn::Asker;
use streamfleet_session::wire::Failure;
use streamfleet_session::{Claims, UserId};

use super::Call;
use super::offer::access_token;
use super::owner::Voucher;
use crate::identify::Shown;
use crate::limit::Kind;

impl Call {
    pub(super) async fn configuration(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        // Nothing is in it; one that is too large is refused as everywhere.
        let body = match body::read(body).await {
            Ok(body) => body,
            Err(fault) => return self.counted(fault.as_str(), reply::body_fault(fault)),
        };
        let user = match self.asker(&parts).await {
            Ok(user) => user,
            Err(failure) => return self.counted(failure.as_str(), reply::failure(&failure)),
        };
        let Some(ice) = &self.desk.ice else {
            let workers = self.some_workers();
            if workers.is_empty() {
                // It is asked for before the offer, which is what has a first worker made: whoever were told to wait here would wait for
                // ever.
                return self.answered_by(&IceServers::default(), user.as_ref());
            }
            let voucher = user.map_or(Voucher::None, Voucher::User);
            // The one that is asked may be gone since it was heard of; a second one is not asked for more than that.
            return self.first_of(&parts, body, voucher, workers.into_iter().take(2)).await;
        };
        self.answered_by(ice, user.as_ref())
    }

    fn answered_by(&self, ice: &IceServers, user: Option<&UserId>) -> Response {
        let asker = user.map_or_else(|| Asker::Somebody(rand::random()), Asker::User);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.counted("answered", reply::json(StatusCode::OK, &ice.configuration(asker, now)))
    }

    /// The user who asks, if a token proves one. Refuses whoever could not offer.
    async fn asker(&self, parts: &Parts) -> Result<Option<UserId>, Failure> {
        self.rated(Kind::Configuration, Instant::now())?;
        let token = access_token(parts);
        let shown = Shown { headers: &parts.headers, query_token: token.as_deref(), claims: Claims::default() };
        Ok(self.known_caller(shown).await?.proved().cloned())
    }
}
