//! That a request comes from a router: everybody else is told nothing.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use streamfleet_session::FleetSecret;
use streamfleet_session::fleet::SECRET_HEADER;
use streamfleet_session::wire::Failure;

use crate::http;

/// Lets a request through that shows the secret, once and whole.
pub(crate) async fn guard(State(secret): State<FleetSecret>, mut request: Request, next: Next) -> Response {
    let shown = {
        let mut values = request.headers().get_all(SECRET_HEADER).iter();
        matches!((values.next(), values.next()), (Some(value), None) if secret.matches(value.as_bytes()))
    };
    if !shown {
        return http::refusal(&Failure::Forbidden);
    }
    // Nothing behind this door needs it, and nothing can log it then.
    request.headers_mut().remove(SECRET_HEADER);
    next.run(request).await
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
    async fn only_who_shows_the_secret_once_is_answered() {
        let secret: FleetSecret = "correct-horse-battery".parse().unwrap();
        let inner = get(async |request: Request| request.headers().contains_key(SECRET_HEADER).to_string());
        let app = Router::new().route("/", inner).layer(from_fn_with_state(secret, guard));
        let shown: [(&[&str], u16); 5] = [
            (&[], 403),
            (&["correct-horse-batterx"], 403),
            (&["correct-horse-battery-"], 403),
            (&["correct-horse-battery", "correct-horse-battery"], 403),
            (&["correct-horse-battery"], 200),
        ];
        for (values, expected) in shown {
            for path in ["/", "/nowhere"] {
                let request =
                    values.iter().fold(Request::get(path), |request, value| request.header(SECRET_HEADER, *value));
                let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                let expected = if path == "/nowhere" && expected == 200 { 404 } else { expected };
                assert_eq!(response.status().as_u16(), expected, "{values:?} {path}");
                if expected == 200 {
                    let body = axum::body::to_bytes(response.into_body(), 9).await.unwrap();
                    assert_eq!(&body[..], b"false", "nothing behind the door sees it");
                }
            }
        }
    }
}
