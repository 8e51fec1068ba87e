//! `POST {p}/input_hook` and `POST {p}/trigger_response`: arguments for a session's handler, and the wish that it reply now.
//!
//! Both go into the handler's bounded link, in the order of their arrival, beside what its client says. What is answered is
//! that they wait there; what the handler makes of them is its own affair.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use streamfleet_handler::{Input, Pushed, Replies};
use streamfleet_session::SessionId;
use streamfleet_session::wire::client::is_too_many;
use streamfleet_session::wire::{BodyError, Failure, InputBody, TriggerBody};

use super::access::Sender;
use super::body::{self, BodyFault};
use super::record::Route;
use super::{Door, Reached, reply, source};

/// The largest body, in bytes: what a data channel carries in one message. Up to 64 of them wait for a handler.
const MAX_INPUT: usize = 64 << 10;

/// Why nothing was handed in.
enum Refused {
    Body(BodyFault),
    Shape(BodyError),
    Failed(Failure),
    /// As many wait as may.
    TooMany,
}

impl Refused {
    fn label(&self) -> &'static str {
        match self {
            Self::Body(fault) => fault.as_str(),
            Self::Shape(_) => "invalid_body",
            Self::Failed(failure) => failure.as_str(),
            Self::TooMany => "too_many_inputs",
        }
    }

    fn response(&self) -> Response {
        match self {
            Self::Body(fault) => reply::body_fault(*fault),
            Self::Shape(error) => reply::shape(error),
            Self::Failed(failure) => reply::failure(failure),
            Self::TooMany => reply::too_many_inputs(),
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

pub(super) async fn input_hook(State(door): State<Arc<Door>>, request: Request) -> Response {
    let parse = |body: &[u8]| {
        let InputBody { webrtc_id, inputs } = InputBody::parse(body)?;
        Ok((webrtc_id, Wish::Args(inputs)))
    };
    door.handed(Route::Input, request, parse).await
}

pub(super) async fn trigger_response(State(door): State<Arc<Door>>, request: Request) -> Response {
    let parse = |body: &[u8]| {
        let TriggerBody { webrtc_id, inputs } = TriggerBody::parse(body)?;
        Ok((webrtc_id, Wish::Reply(inputs)))
    };
    door.handed(Route::Trigger, request, parse).await
}

type Values = Vec<serde_json::Value>;

/// What is asked of a handler.
enum Wish {
    Args(Values),
    Reply(Option<Values>),
}

impl Wish {
    fn values(&self) -> &[serde_json::Value] {
        match self {
            Self::Args(inputs) => inputs,
            Self::Reply(inputs) => inputs.as_deref().unwrap_or_default(),
        }
    }
}

impl Door {
    async fn handed(
        &self,
        route: Route,
        request: Request,
        parse: impl Fn(&[u8]) -> Result<(SessionId, Wish), BodyError>,
    ) -> Response {
        match self.hand_in(request, parse).await {
            Ok(()) => {
                self.api.record.session(route, "accepted");
                reply::success()
            }
            Err(refused) => {
                self.api.record.session(route, refused.label());
                refused.response()
            }
        }
    }

    async fn hand_in(
        &self,
        request: Request,
        parse: impl Fn(&[u8]) -> Result<(SessionId, Wish), BodyError>,
    ) -> Result<(), Refused> {
        let source = source(request.extensions());
        let (parts, body) = request.into_parts();
        let body = body::read_up_to(body, MAX_INPUT).await.map_err(Refused::Body)?;
        let (id, wish) = parse(&body).map_err(Refused::Shape)?;
        if is_too_many(wish.values()) {
            return Err(Failure::PayloadTooLarge.into());
        }
        let reached = self.reached(&id, Sender::of(&parts.headers, &parts.extensions, None)).await;
        let reached = reached.inspect_err(|failure| self.denied(&id, source, failure))?;
        give(&reached, wish)
    }
}

/// Gives a handler what is wished of it, if its session goes on.
fn give(reached: &Reached, wish: Wish) -> Result<(), Refused> {
    use streamfleet_session::State;
    match reached.state() {
        // Only its outputs are still there.
        State::Closed(_) => return Err(Failure::NotFound.into()),
        State::Ending(_) => return Err(Failure::ConnectionClosed.into()),
        State::Connecting | State::Active => {}
    }
    let input = match wish {
        Wish::Args(inputs) => Input::Args(inputs),
        Wish::Reply(_) if reached.replies == Replies::Freely => return Err(Failure::NotAReplyOnPause.into()),
        Wish::Reply(inputs) => Input::Trigger(inputs),
    };
    // A handler on the media loop takes no arguments, as one on a task may ignore them.
    let Some(inputs) = &reached.inputs else { return Ok(()) };
    match inputs.push(input) {
        Pushed::Queued | Pushed::DroppedOldest => Ok(()),
        Pushed::Refused => Err(Refused::TooMany),
        Pushed::Closed => Err(Failure::ConnectionClosed.into()),
    }
}
