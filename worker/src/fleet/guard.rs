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
