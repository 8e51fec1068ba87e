//! Every outcome as an HTTP response. Nothing else in this module's siblings chooses a status.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use streamfleet_session::CloseReason;
use streamfleet_session::SessionId;
use streamfleet_session::wire::{Answer, BodyError, Failure, Success};
use streamfleet_store::Document;

use super::body::BodyFault;
use super::etag::Tag;

/// As which sockets are counted, and told, that are one too many of their address.
pub(super) const TOO_MANY_SOCKETS: &str = "too_many_sockets";

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Most JSON answers are text already, with bytes that tests hold.
fn text(status: StatusCode, json: String) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], Body::from(json)).into_response()
}

/// Anything of ours as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let json = serde_json::to_string(value).expect("invariant: our views have string keys and no failing serializer");
    text(status, json)
}

/// What a telephone company is to do.
pub(super) fn twiml(xml: String) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"))], Body::from(xml))
        .into_response()
}

pub(super) fn answer(answer: &Answer) -> Response {
    text(StatusCode::OK, answer.to_json())
}

pub(super) fn success() -> Response {
    text(StatusCode::OK, Success.to_json())
}

pub(super) fn shape(error: &BodyError) -> Response {
    text(status(BodyError::STATUS), error.to_json())
}

pub(super) fn failure(failure: &Failure) -> Response {
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
pub(super) fn body_fault(fault: BodyFault) -> Response {
    let mut response = match fault {
        BodyFault::TooLarge => failure(&Failure::PayloadTooLarge),
        BodyFault::TooSlow => other(StatusCode::REQUEST_TIMEOUT, "request_timeout"),
        BodyFault::Broken => other(StatusCode::BAD_REQUEST, "incomplete_body"),
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The path exists, the method does not; the router adds `Allow`.
pub(super) fn method_not_allowed() -> Response {
    other(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
}

/// No `Host`, several, or one that is none (RFC 9112, 3.2): nobody can say which name this request was sent to.
pub(super) fn invalid_host() -> Response {
    other(StatusCode::BAD_REQUEST, "invalid_host")
}

/// A WebSocket's route was asked for something else (RFC 9110, 15.5.22).
pub(super) fn upgrade_required() -> Response {
    let mut response = other(StatusCode::UPGRADE_REQUIRED, "upgrade_required");
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

/// A session is over at a caller's wish.
pub(super) fn ended(id: &SessionId, reason: CloseReason) -> Response {
    #[derive(Serialize)]
    struct Ended<'a> {
        status: &'static str,
        id: &'a SessionId,
        reason: &'static str,
    }
    json(StatusCode::OK, &Ended { status: "success", id, reason: reason.as_str() })
}

/// A session is still on its way to its end; the caller may look again.
pub(super) fn ending(id: &SessionId) -> Response {
    #[derive(Serialize)]
    struct Ending<'a> {
        status: &'static str,
        id: &'a SessionId,
    }
    json(StatusCode::ACCEPTED, &Ending { status: "ending", id })
}

/// A track has ended at a caller's wish.
pub(super) fn track_closed(id: &SessionId, mid: &str) -> Response {
    #[derive(Serialize)]
    struct Closed<'a> {
        status: &'static str,
        id: &'a SessionId,
        mid: &'a str,
    }
    json(StatusCode::OK, &Closed { status: "success", id, mid })
}

/// Server-sent events (HTML Living Standard, 9.2), past proxies that would collect them first.
pub(super) fn events(body: Body) -> Response {
    let kind = HeaderValue::from_static("text/event-stream");
    let at_once = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    (StatusCode::OK, [(header::CONTENT_TYPE, kind), at_once], body).into_response()
}

/// There is nothing, and there will be nothing: what makes an `EventSource` give up.
pub(super) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// A session's data, with its version.
pub(super) fn document(document: &Document, tag: Tag) -> Response {
    with_tag(json(StatusCode::OK, &document.data), tag)
}

/// What the caller has is what there is (RFC 9110, 15.4.5).
pub(super) fn not_modified(tag: Tag) -> Response {
    with_tag(StatusCode::NOT_MODIFIED.into_response(), tag)
}

/// The caller has read another version than there is by now (RFC 9110, 15.5.13).
pub(super) fn precondition_failed(current: Tag) -> Response {
    with_tag(other(StatusCode::PRECONDITION_FAILED, "precondition_failed"), current)
}

/// A patch of a kind that is not known (RFC 5789, 2.2).
pub(super) fn unsupported_media_type(known: &'static str) -> Response {
    let mut response = other(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    response.headers_mut().insert(HeaderName::from_static("accept-patch"), HeaderValue::from_static(known));
    response
}

/// A handler has more to take than it has come to: it may have done so in a second.
pub(super) fn too_many_inputs() -> Response {
    later(other(StatusCode::TOO_MANY_REQUESTS, "too_many_inputs"), 1)
}

/// As many follow a session's outputs as may.
pub(super) fn too_many_readers() -> Response {
    later(other(StatusCode::TOO_MANY_REQUESTS, "too_many_readers"), 1)
}

/// As many sockets of one address wait for their `start` as may where places are scarce.
pub(super) fn too_many_sockets(retry_after: Duration) -> Response {
    later(other(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_SOCKETS), retry_after.as_secs())
}

fn later(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

fn with_tag(mut response: Response, tag: Tag) -> Response {
    let tag = HeaderValue::try_from(tag.to_string()).expect("invariant: digits in quotes are a header's value");
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// What HTTP itself refuses, in the shape of the protocol's failures.
fn other(status: StatusCode, error: &'static str) -> Response {
    text(status, format!(r#"{{"status":"failed","meta":{{"error":"{error}"}}}}"#))
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("invariant: the protocol's statuses are HTTP's")
}

/// Keeps answers out of caches, and browsers from taking them for something else.
pub(super) async fn private(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
