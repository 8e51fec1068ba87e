//! A session as control shows it.

use streamfleet_session::State;

use crate::http::{Quality, SessionView};
use crate::media::{Shared, Stage, TrackView};

pub(super) fn view(shared: &Shared) -> SessionView {
    let state = match shared.stage() {
        Stage::Connecting => State::Connecting,
        Stage::Active => State::Active,
        Stage::Ending(reason) => State::Ending(reason),
        Stage::Closed(reason) => State::Closed(reason),
    };
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
    SessionView {
        id: shared.id().clone(),
        service: shared.service().clone(),
        transport: shared.transport(),
        user_id: shared.user().cloned(),
        verified: shared.verified().is_verified(),
        state,
        since: shared.since(),
        quality,
        outputs: shared.outputs(),
    }
}
