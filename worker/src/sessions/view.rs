//! A session as control shows it.

use streamfleet_handler::Transport;

use crate::http::{Quality, SessionView, TrackInfo};
use crate::media::{Shared, TrackView};
use crate::sockets::session::TRACK;

pub(super) fn view(shared: &Shared) -> SessionView {
    let figures = shared.quality();
    let sum = |count: fn(&TrackView) -> u64| figures.tracks.iter().map(count).sum::<u64>();
    let (received, lost) = (sum(|t| t.packets_received), sum(|t| t.packets_lost));
    let quality = (!figures.tracks.is_empty()).then(|| Quality {
        rtt_ms: figures.rtt_ms,
        loss_received: if received + lost == 0 { 0.0 } else { lost as f64 / (received + lost) as f64 },
        loss_sent: figures.tracks.iter().find_map(|t| t.remote_fraction_lost).map(f64::from),
        jitter_ms: figures.tracks.first().map_or(0.0, |t| t.jitter_ms),
        buffer_ms: figures.playout.as_ref().map(|p| p.current_delay_ms),
        packets_received: received,
        packets_sent: sum(|t| t.packets_sent),
        frames_concealed: figures.playout.as_ref().map_or(0, |p| p.concealed),
        frames_repaired: figures.playout.as_ref().map_or(0, |p| p.fec_repaired),
    });
    let tracks = match shared.transport() {
        Transport::WebRtc => figures.tracks.iter().map(track).collect(),
        // Nothing was negotiated: there is one, as long as there is a session.
        Transport::WebSocket | Transport::Telephone => {
            vec![TrackInfo { mid: TRACK.to_owned(), kind: "audio", closed: shared.stage().reason().is_some() }]
        }
    };
    SessionView {
        id: shared.id().clone(),
        service: shared.service().clone(),
        transport: shared.transport(),
        user_id: shared.user().cloned(),
        verified: shared.verified().is_verified(),
        state: shared.stage().into(),
        since: shared.since(),
        quality,
        outputs: shared.outputs(),
        tracks,
    }
}

fn track(track: &TrackView) -> TrackInfo {
    TrackInfo { mid: track.mid.clone(), kind: track.kind, closed: track.closed }
}
