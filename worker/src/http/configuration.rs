//! `GET {p}/rtc_configuration`: the STUN and TURN servers that a client is told of.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use streamfleet_service::turn::Asker;

use super::offer::check_rate;
use super::{Door, reply, source};
use crate::fleet::guard::Proven;

pub(super) async fn configuration(State(door): State<Arc<Door>>, request: Request) -> Response {
    let rate = door.rates.as_ref().map(|rates| &rates.configurations);
    if let Err(failure) = check_rate(rate, source(request.extensions()), Instant::now()) {
        return reply::failure(&failure);
    }
    // Only a router proves who asks; a worker alone knows what somebody says of himself, which is not enough.
    let asker = match request.extensions().get::<Proven>() {
        Some(Proven(user)) => Asker::User(user),
        None => Asker::Somebody(rand::random()),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    reply::json(StatusCode::OK, &door.api.ice.configuration(asker, now))
}
