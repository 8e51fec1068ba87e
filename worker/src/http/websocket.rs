//! `{p}/websocket/offer`: audio over a WebSocket.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{Extensions, HeaderMap};
use axum::response::Response;
use streamfleet_handler::Transport;
use streamfleet_session::wire::Failure;
use streamfleet_socket::protocol::{Resume, Start};

use super::Door;
use super::socket::{self, Dialect, Earlier, Hello, Otherwise};

pub(super) async fn websocket(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    extensions: Extensions,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    socket::accept(door, headers, &extensions, upgrade, Dialect::Client)
}

/// What a client's `start` says.
pub(super) fn hello(start: Start, admitted: Result<(), Failure>) -> Hello {
    let earlier = match start.resume {
        Resume::With(token) => Some(Earlier { id: start.id.clone(), token, otherwise: Otherwise::Begin }),
        Resume::No | Resume::Wanted => None,
    };
    Hello {
        id: start.id,
        transport: Transport::WebSocket,
        metadata: start.metadata,
        resume: start.resume,
        earlier,
        call: None,
        admitted,
    }
}
