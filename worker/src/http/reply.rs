//! Every outcome as an HTTP response: those of every server, and a worker's own. Nothing else in this module's siblings
//! chooses a status.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use streamfleet_edge::reply::later;
pub(super) use streamfleet_edge::reply::other;
pub(super) use streamfleet_edge::reply::{
    TOO_MANY_SOCKETS, answer, body_fault, ended, ending, failure, invalid_host, json, method_not_allowed, no_content,
    private, shape, success, too_many_sockets, track_closed, upgrade_required,
};
use streamfleet_store::Document;

use super::etag::Tag;

/// What a telephone company is to do.
pub(super) fn twiml(xml: String) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"))], Body::from(xml))
        .into_response()
}

/// Server-sent events (HTML Living Standard, 9.2), past proxies that would collect them first.
pub(super) fn events(body: Body) -> Response {
    let kind = HeaderValue::from_static("text/event-stream");
    let at_once = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    (StatusCode::OK, [(header::CONTENT_TYPE, kind), at_once], body).into_response()
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

fn with_tag(mut response: Response, tag: Tag) -> Response {
    let tag = HeaderValue::try_from(tag.to_string()).expect("invariant: digits in quotes are a header's value");
    response.headers_mut().insert(header::ETAG, tag);
    response
}
