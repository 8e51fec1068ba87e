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
    // What is passed on from somebody who was asked by us says whom *he* allows: everybody who asks is us to him.
    headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    headers.remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    if let Some(allowed) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
    if matches!(origins, Origins::Only(_)) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn whom_somebody_behind_us_allows_is_not_whom_we_allow() {
        let origins = Origins::Only(["https://app.example.com".to_owned()].into());
        let behind = get(async || [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")]);
        let app = Router::new().route("/", behind).layer(from_fn_with_state(origins, allow));
        for (origin, expected) in
            [("https://app.example.com", Some("https://app.example.com")), ("https://evil.example", None)]
        {
            let request = Request::get("/").header(header::ORIGIN, origin).body(Body::empty()).unwrap();
            let response = app.clone().oneshot(request).await.unwrap();
            let allowed: Vec<&HeaderValue> =
                response.headers().get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN).iter().collect();
            assert_eq!(allowed, expected.as_slice(), "{origin}");
        }
    }
}
