//! Who has sent a request to a worker that stands alone: its peer, or, where that is a proxy whose word is taken, whom the proxy
//! names. In a fleet routers have seen to it (`crate::fleet::guard`).

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use streamfleet_edge::proxy::{Network, client, is_trusted};
use streamfleet_process::telemetry::trace;

use super::source;

/// Leaves in a request what is known of where it is from. Strangers would decide which traces are recorded, and under whose names.
pub(super) async fn judge(State(trusted): State<Arc<[Network]>>, mut request: Request, next: Next) -> Response {
    let peer = source(request.extensions());
    if is_trusted(peer.ip(), &trusted) {
        let client = client(peer, request.headers(), &trusted);
        request.extensions_mut().insert(ConnectInfo(client));
    } else {
        for name in trace::HEADERS {
            request.headers_mut().remove(name);
        }
    }
    next.run(request).await
}
