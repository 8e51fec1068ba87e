//! The last net: a panic in a handler becomes `internal` (500), is counted, and ends nothing but its request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;
use streamfleet_process::tasks::panic_message;
use streamfleet_session::wire::Failure;

use super::{Api, reply};

pub(super) async fn catch(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    // Whatever state a panic leaves behind is behind locks that do not poison, or owned by the request and gone.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            tracing::error!(message = panic_message(panic.as_ref()), "a request panicked");
            api.record.panicked();
            reply::failure(&Failure::Internal)
        }
    }
}
