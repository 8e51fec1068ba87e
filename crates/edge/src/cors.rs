//! Cross-origin requests to the public routes (the Fetch standard's CORS protocol), without credentials.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::origin::Origins;

/// Browsers ask again after at most two hours, whatever we say.
const PREFLIGHT: [(HeaderName, HeaderValue); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
    // The wildcard stands for every header but Authorization.
    (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, Authorization")),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
];

/// Answers `OPTIONS`; [`allow`] adds who may go on.
pub async fn preflight() -> Response {
    (StatusCode::NO_CONTENT, HeaderMap::from_iter(PREFLIGHT)).into_response()
}

/// Lets scripts of the allowed origins read the answer.
pub async fn allow(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let allowed = origins.answer(request.headers().get(header::ORIGIN));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
    if matches!(origins, Origins::Only(_)) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}
