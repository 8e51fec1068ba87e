//! A session as control shows it.

use streamfleet_session::State;

use super::quality::quality;
use crate::http::{ChangeView, SessionView};
use crate::media::{Change, Shared, Stage};

pub(super) fn view(shared: &Shared) -> SessionView {
    let state = match shared.stage() {
        Stage::Connecting => State::Connecting,
        Stage::Active => State::Active,
        Stage::Ending(reason) => State::Ending(reason),
        Stage::Closed(reason) => State::Closed(reason),
    };
    let change = |Change { at, event }| ChangeView { at, change: event.as_str(), reason: event.reason() };
    SessionView {
        id: shared.id().clone(),
        service: shared.service().clone(),
        transport: shared.transport(),
        user_id: shared.user().cloned(),
        verified: shared.verified().is_verified(),
        state,
        since: shared.since(),
        changes: shared.changes().into_iter().map(change).collect(),
        quality: quality(&shared.quality()),
        outputs: shared.outputs(),
    }
}
