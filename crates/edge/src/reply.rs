//! Every outcome as an HTTP response. Nothing else chooses a status.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use streamfleet_session::wire::{Answer, BodyError, Failure, Success};
use streamfleet_session::{CloseReason, SessionId};

use crate::body::BodyFault;

/// As which sockets are counted, and told, that are one too many of their address.
pub const TOO_MANY_SOCKETS: &str = "too_many_sockets";

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Most JSON answers are text already, with bytes that tests hold.
fn text(status: StatusCode, json: String) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], Body::from(json)).into_response()
}

/// Anything of ours as JSON.
///
/// # Panics
/// If the value cannot be written as JSON: none of ours can fail to.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let json = serde_json::to_string(value).expect("invariant: our views have string keys and no failing serializer");
    text(status, json)
}

/// The reply to an offer.
#[must_use]
pub fn answer(answer: &Answer) -> Response {
    text(StatusCode::OK, answer.to_json())
}

/// The reply to a candidate.
#[must_use]
pub fn success() -> Response {
    text(StatusCode::OK, Success.to_json())
}

/// A body whose shape is wrong.
#[must_use]
pub fn shape(error: &BodyError) -> Response {
    text(status(BodyError::STATUS), error.to_json())
}

/// A failure that the protocol names.
#[must_use]
pub fn failure(failure: &Failure) -> Response {
    let mut response = text(status(failure.status()), failure.to_json());
    if let Some(after) = failure.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().into());
    }
    if *failure == Failure::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A body that could not be taken in whole leaves the connection in the middle of it, so the connection ends too.
#[must_use]
pub fn body_fault(fault: BodyFault) -> Response {
    let mut response = match fault {
        BodyFault::TooLarge => failure(&Failure::PayloadTooLarge),
        BodyFault::TooSlow => other(StatusCode::REQUEST_TIMEOUT, "request_timeout"),
        BodyFault::Broken => other(StatusCode::BAD_REQUEST, "incomplete_body"),
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The path exists, the method does not; the router adds `Allow`.
#[must_use]
pub fn method_not_allowed() -> Response {
    other(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
}

/// No `Host`, several, or one that is none (RFC 9112, 3.2): nobody can say which name this request was sent to.
#[must_use]
pub fn invalid_host() -> Response {
    other(StatusCode::BAD_REQUEST, "invalid_host")
}

/// A WebSocket's route was asked for something else (RFC 9110, 15.5.22).
#[must_use]
pub fn upgrade_required() -> Response {
    let mut response = other(StatusCode::UPGRADE_REQUIRED, "upgrade_required");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

/// A session is over at a caller's wish.
#[must_use]
pub fn ended(id: &SessionId, reason: CloseReason) -> Response {
    #[derive(Serialize)]
    struct Ended<'a> {
        status: &'static str,
        id: &'a SessionId,
        reason: &'static str,
    }
    json(StatusCode::OK, &Ended { status: "success", id, reason: reason.as_str() })
}

/// A session is still on its way to its end; the caller may look again.
#[must_use]
pub fn ending(id: &SessionId) -> Response {
    #[derive(Serialize)]
    struct Ending<'a> {
        status: &'static str,
        id: &'a SessionId,
    }
    json(StatusCode::ACCEPTED, &Ending { status: "ending", id })
}

/// A track has ended at a caller's wish.
#[must_use]
pub fn track_closed(id: &SessionId, mid: &str) -> Response {
    #[derive(Serialize)]
    struct Closed<'a> {
        status: &'static str,
        id: &'a SessionId,
        mid: &'a str,
    }
    json(StatusCode::OK, &Closed { status: "success", id, mid })
}

/// There is nothing, and there will be nothing: what makes an `EventSource` give up.
#[must_use]
pub fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// As many sockets of one address wait for their `start` as may where places are scarce.
#[must_use]
pub fn too_many_sockets(retry_after: Duration) -> Response {
    later(other(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_SOCKETS), retry_after.as_secs())
}

/// With the seconds after which to come again.
#[must_use]
pub fn later(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

/// What HTTP itself refuses, in the shape of the protocol's failures.
#[must_use]
pub fn other(status: StatusCode, error: &'static str) -> Response {
    text(status, format!(r#"{{"status":"failed","meta":{{"error":"{error}"}}}}"#))
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("invariant: the protocol's statuses are HTTP's")
}

/// Keeps answers out of caches, and browsers from taking them for something else.
pub async fn private(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
