//! A session as control shows it.

use streamfleet_handler::Transport;
use streamfleet_store::{ContextId, WorkerId};

use super::quality::quality;
use crate::http::{ChangeView, SessionView, TrackInfo};
use crate::media::{Change, Shared, TrackView};
use crate::sockets::session::TRACK;

pub(super) fn view(shared: &Shared, context: ContextId, worker: Option<WorkerId>) -> SessionView {
    let figures = shared.quality();
    let change = |Change { at, event }| ChangeView { at, change: event.as_str(), reason: event.reason() };
    let tracks = match shared.transport() {
        Transport::WebRtc => figures.tracks.iter().map(track).collect(),
        // Nothing was negotiated: there is one, as long as there is a session.
        Transport::WebSocket | Transport::Telephone => {
            vec![TrackInfo { mid: TRACK.to_owned(), kind: "audio", closed: shared.stage().reason().is_some() }]
        }
    };
    SessionView {
        id: shared.id().clone(),
        context,
        service: shared.service().clone(),
        worker,
        transport: shared.transport(),
        user_id: shared.user().cloned(),
        verified: shared.verified().is_verified(),
        state: shared.stage().into(),
        since: shared.since(),
        changes: shared.changes().into_iter().map(change).collect(),
        quality: quality(&figures),
        outputs: shared.outputs(),
        tracks,
    }
}

fn track(track: &TrackView) -> TrackInfo {
    TrackInfo { mid: track.mid.clone(), kind: track.kind, closed: track.closed }
}
