//! Paths that are no service's.

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use streamfleet_session::wire::{Failure, OfferBody};

use crate::{body, cors, reply};

/// Answers a request for a path that is nobody's. An offer is read before it is refused: its client learns of a body that is
/// too large or has the wrong shape wherever it sends it.
pub async fn path(request: Request) -> Response {
    match *request.method() {
        _ if !request.uri().path().ends_with("/webrtc/offer") => return reply::failure(&Failure::NotFound),
        Method::OPTIONS => return cors::preflight().await,
        Method::POST => {}
        _ => return reply::failure(&Failure::NotFound),
    }
    let body = match body::read(request.into_body()).await {
        Ok(body) => body,
        Err(fault) => return reply::body_fault(fault),
    };
    match OfferBody::parse(&body) {
        Ok(_) => reply::failure(&Failure::ServiceNotFound),
        Err(error) => reply::shape(&error),
    }
}
