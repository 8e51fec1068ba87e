//! Who is asked before a call is taken: an admission webhook.

use serde::Serialize;
use serde_json::{Map, Value};
use streamfleet_service::service::Webhook;
use streamfleet_service::spec::OnFailure;
use streamfleet_session::wire::Failure;
use streamfleet_session::{ServiceName, SessionId};

use crate::identify::Caller;
use crate::web;

/// What the webhook is told.
#[derive(Debug, Serialize)]
struct Call<'a> {
    service: &'a str,
    session: &'a str,
    user: Option<&'a str>,
    verified: bool,
    metadata: &'a Map<String, Value>,
    claims: &'a Map<String, Value>,
}

/// What the webhook says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Take,
    Refuse,
    /// Neither: it fails, or does not answer in time.
    Nothing,
}

impl Word {
    fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Take,
            403 => Self::Refuse,
            _ => Self::Nothing,
        }
    }

    fn decide(self, on_failure: OnFailure) -> Result<(), Failure> {
        match (self, on_failure) {
            (Self::Take, _) | (Self::Nothing, OnFailure::Admit) => Ok(()),
            (Self::Refuse, _) | (Self::Nothing, OnFailure::Refuse) => Err(Failure::Forbidden),
        }
    }
}

/// Asks whether a call is taken.
///
/// # Errors
/// `forbidden`.
pub async fn ask(
    http: &reqwest::Client,
    webhook: &Webhook,
    service: &ServiceName,
    session: &SessionId,
    caller: &Caller,
) -> Result<(), Failure> {
    let call = Call {
        service: service.as_str(),
        session: session.as_str(),
        user: caller.user.as_ref().map(|user| user.as_str()),
        verified: caller.verified.is_verified(),
        metadata: caller.metadata.as_map(),
        claims: &caller.claims,
    };
    if let Err(error) = web::check(&webhook.url) {
        tracing::warn!(%service, %error, "the admission webhook is not asked");
        return Word::Nothing.decide(webhook.on_failure);
    }
    let Ok(body) = serde_json::to_vec(&call) else { return Word::Nothing.decide(webhook.on_failure) };
    let request =
        http.post(&webhook.url).timeout(webhook.timeout).header("content-type", "application/json").body(body);
    let word = match request.send().await {
        Ok(response) => Word::of_status(response.status().as_u16()),
        Err(error) => {
            tracing::warn!(%service, error = %error.without_url(), "the admission webhook does not answer");
            Word::Nothing
        }
    };
    word.decide(webhook.on_failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_a_word() {
        #[track_caller]
        fn check(status: u16, on_failure: OnFailure, expected: bool) {
            assert_eq!(Word::of_status(status).decide(on_failure).is_ok(), expected, "{status} {on_failure:?}");
        }
        check(204, OnFailure::Refuse, true);
        check(403, OnFailure::Admit, false);
        check(500, OnFailure::Admit, true);
        check(500, OnFailure::Refuse, false);
        check(302, OnFailure::Refuse, false);
        check(401, OnFailure::Refuse, false);
    }
}
