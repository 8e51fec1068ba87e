//! One session on its loop: peer, reach, tracks, handler and life, fed with datagrams and time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::data_channel::RTCDataChannelId;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{Emit, Packet};
use streamfleet_net::stun;
use streamfleet_rtp::srtp;
use streamfleet_session::candidate::RemoteCandidate;
use streamfleet_session::lifecycle::{CloseReason, LifeEvent, LifeLimits, Lifecycle, State};
use streamfleet_session::wire::ServerMessage;

use super::answer::{Answered, NegotiatedTrack};
use super::conversation::{Allotment, Conversation, Panicked, Sink, Turn};
use super::counters::Drop;
use super::frames::Listening;
use super::io::{Io, Route};
use super::path::Newest;
use super::peer::{MessageSent, Peer, PeerEvent, Read};
use super::reach::{Outcome, Reach};
use super::shared::{Playout, Quality, Shared, TrackEnd, millis};
use super::tracks::{Inbound, Media, Track};
use crate::feed::{Said, words};

pub(crate) use super::conversation::Endpoint;

/// A client that sends media and is then silent for this long, packets and reports alike, is gone, whatever its ICE says.
const SILENT: Duration = Duration::from_secs(30);
/// How long an ended session waits for the client to go by itself once it has been told.
const CLOSE_GRACE: Duration = Duration::from_millis(700);
/// A session is not called more often by its timers.
const MIN_STEP: Duration = Duration::from_micros(200);
/// What the rest of the process sees of a session's quality is never older than this.
const QUALITY_EVERY: Duration = Duration::from_secs(1);
/// With any timer after this long it is taken along, so that it has none of its own beside the agent's.
const QUALITY_EARLY: Duration = Duration::from_millis(500);

/// A session that is about to begin.
pub(crate) struct NewSession {
    pub(crate) answered: Answered,
    pub(crate) endpoint: Endpoint,
    pub(crate) limits: LifeLimits,
    pub(crate) bounds: DelayBounds,
    pub(crate) shared: Arc<Shared>,
    pub(crate) provider: Arc<dyn rtc::crypto::RTCCryptoProvider>,
    /// Seals what goes to its client by relays; without, the client is reached directly.
    pub(crate) relay: Option<streamfleet_session::ufrag::SessionKey>,
    /// Kept until the session is over.
    pub(crate) guard: Box<dyn std::any::Any + Send>,
}

pub(crate) struct Session {
    peer: Peer,
    reach: Reach,
    provider: Arc<dyn rtc::crypto::RTCCryptoProvider>,
    negotiated: Vec<NegotiatedTrack>,
    media: Option<Box<Media>>,
    conversation: Conversation,
    bounds: DelayBounds,
    life: Lifecycle,
    ending: Option<Ending>,
    /// Something was done beside RTP since the last settling.
    touched: bool,
    /// Dropped with the session: what it holds in the rest of the process.
    _guard: Box<dyn std::any::Any + Send>,
    /// When the client was last heard of on a track or about one.
    heard_at: Option<Instant>,
    /// When the rest of the process was last shown the session's quality.
    published_at: Option<Instant>,
    /// More may be done than was done in one turn.
    pub(crate) more: bool,
    /// The loop has it on its list.
    pub(crate) queued: bool,
    sources: Vec<u32>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Option<Instant>,
}

struct Ending {
    reason: CloseReason,
    /// Said to the client before the peer is closed.
    goodbye: Option<ServerMessage>,
    close_at: Option<Instant>,
}

impl Ending {
    fn new(reason: CloseReason, goodbye: Option<ServerMessage>) -> Self {
        Ending { reason, goodbye, close_at: None }
    }

    /// Whether there is nobody left to say anything to.
    fn is_alone(&self) -> bool {
        matches!(self.reason, CloseReason::ClientClosed | CloseReason::ConnectionLost | CloseReason::ConnectTimeout)
    }
}

impl Session {
    pub(crate) fn new(new: NewSession, now: Instant) -> Self {
        Session {
            reach: Reach::new(new.answered.local.clone(), new.answered.remote.clone()),
            negotiated: new.answered.tracks.clone(),
            peer: Peer::new(new.answered, now),
            provider: new.provider,
            media: None,
            conversation: Conversation::new(new.endpoint, now),
            bounds: new.bounds,
            life: Lifecycle::new(now, new.limits),
            ending: None,
            touched: false,
            _guard: new.guard,
            heard_at: None,
            published_at: None,
            more: false,
            queued: false,
            sources: Vec::new(),
            shared: new.shared,
            deadline: None,
        }
    }

    pub(crate) fn ufrag(&self) -> &str {
        self.reach.ufrag()
    }

    /// The session is over and its slot may go.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        match self.life.state() {
            State::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    /// What the loop's tables know of this session by other names than its own.
    pub(crate) fn routes(&self) -> impl Iterator<Item = Route> {
        self.reach.routes().chain(self.sources.iter().map(|ssrc| Route::Source(*ssrc)))
    }

    pub(crate) fn add_candidate(&mut self, candidate: &RemoteCandidate) -> bool {
        self.peer.add_candidate(candidate)
    }

    // ---- what comes from the network ----

    /// A STUN message for this session, by its ufrag or by the check that it answers.
    pub(crate) fn stun(&mut self, from: SocketAddr, data: &[u8], message: &stun::Message<'_>, io: &mut Io<'_>) {
        match self.reach.stun(from, data, message, io) {
            Outcome::Done => {}
            Outcome::ForAgent(from, kind) => self.peer.read_stun(io.now, from, data, kind),
            Outcome::Moved(to) => self.moved(to, io),
        }
    }

    /// A DTLS record.
    pub(crate) fn dtls(&mut self, from: SocketAddr, data: &[u8], io: &mut Io<'_>) {
        let alert = data.first() == Some(&21);
        match self.peer.read_dtls(io.now, self.reach.as_known(from), data) {
            Read::Refused => return io.counters.dropped(Drop::DtlsRefused),
            Read::Authentic => io.out.authentic(),
            Read::Unknown => {}
        }
        if alert && self.media.is_some() && self.peer.is_dtls_closed() {
            self.end(CloseReason::ClientClosed, None, io.now);
        }
    }

    /// An SRTCP packet.
    pub(crate) fn rtcp(&mut self, from: SocketAddr, data: &[u8], io: &mut Io<'_>) {
        if self.peer.read_rtcp(io.now, self.reach.as_known(from), data) == Read::Authentic {
            io.out.authentic();
        }
    }

    /// An SRTP packet. Returns whether it was this session's.
    pub(crate) fn rtp(&mut self, from: SocketAddr, data: &mut [u8], io: &mut Io<'_>) -> bool {
        let Some(media) = self.media.as_mut() else {
            // Chromium sends as soon as its own side is up, which may be before our last flight arrived.
            io.counters.dropped(Drop::EarlyRtp);
            return false;
        };
        let inbound = match media.open(data, io.now) {
            Ok(Some(inbound)) => inbound,
            Ok(None) => {
                io.out.authentic();
                io.counters.dropped(Drop::UnknownPayloadType);
                return true;
            }
            Err(refused) => {
                io.counters.dropped(refused.into());
                return false;
            }
        };
        if inbound.new_source && !self.sources.contains(&inbound.ssrc) {
            self.sources.push(inbound.ssrc);
            io.routes.push(Route::Source(inbound.ssrc));
        }
        io.counters.received(data.len());
        // What is late may have been overtaken on a way that is over.
        if inbound.newest == Newest::Yes {
            io.out.authentic();
        }
        self.heard_at = Some(io.now);
        if let Some(to) = self.reach.media(from, inbound.newest, data.len(), io) {
            self.moved(to, io);
        }
        self.hear(&inbound, data, io);
        true
    }

    /// Gives a packet to the handler.
    fn hear(&mut self, inbound: &Inbound, data: &[u8], io: &mut Io<'_>) {
        let (Some(media), Some(to)) = (self.media.as_deref_mut(), self.reach.current()) else { return };
        if inbound.payload.is_empty() || self.ending.is_some() {
            return;
        }
        let track = &media.tracks[inbound.track].negotiated;
        let packet = Packet {
            kind: track.kind,
            codec: track.codec,
            index: inbound.index,
            timestamp: inbound.timestamp,
            marker: inbound.marker,
            payload: &data[inbound.payload.clone()],
        };
        let (peer, touched) = (&mut self.peer, &mut self.touched);
        let mut sink = Sink { media, peer, touched, to, now: io.now, out: io.out, counters: io.counters };
        if self.conversation.packet(&packet, &mut sink) == Err(Panicked) {
            self.handler_panicked(io.now);
        }
    }

    fn moved(&mut self, to: SocketAddr, io: &mut Io<'_>) {
        io.counters.moved();
        self.shared.moved(to);
    }

    // ---- what time and the handler bring ----

    /// Runs all timers that are due.
    pub(crate) fn handle_timeout(&mut self, io: &mut Io<'_>) {
        self.peer.handle_timeout(io.now);
        self.life.handle_timeout(io.now);
        // Looked at with each timer, of which the agent has one a second.
        if self.heard_at.is_some_and(|at| io.now.saturating_duration_since(at) >= SILENT) {
            self.end(CloseReason::MediaTimeout, Some(ServerMessage::UpdateConnection), io.now);
        }
        if let Some(reports) = self.media.as_mut().and_then(|m| m.reports(io.now, io.clock)) {
            self.peer.send_rtcp(io.now, reports);
        }
        if self.published_at.is_some_and(|at| io.now.saturating_duration_since(at) >= QUALITY_EARLY) {
            self.publish(io.now);
        }
    }

    /// Everything that follows from the inputs so far. To be called once after a batch of them.
    pub(crate) fn settle(&mut self, io: &mut Io<'_>) {
        self.touched = false;
        while let Some(event) = self.peer.poll_event(io.now) {
            self.peer_event(event, io);
        }
        self.feedback(io);
        self.work(io);
        self.finish(io);
        loop {
            if io.out.is_full() {
                // What the core wants sent is not what may be lost.
                self.more = true;
                return;
            }
            let Some((to, data)) = self.peer.poll_write(io.now) else { return };
            self.reach.send(to, &data, io);
        }
    }

    fn peer_event(&mut self, event: PeerEvent, io: &mut Io<'_>) {
        match event {
            PeerEvent::Connected { keys, remote } => self.connected(&keys, remote, io),
            PeerEvent::ChannelOpen => self.shared.channel_opened(),
            PeerEvent::Message { text, channel } => self.message(text, channel, io),
            PeerEvent::ClosedByPeer => self.end(CloseReason::ClientClosed, None, io.now),
            PeerEvent::Lost if self.reach.has_consent(io.now) => self.peer.reprieve(io.now),
            PeerEvent::Lost => self.end(CloseReason::ConnectionLost, None, io.now),
            PeerEvent::Broken(why) => {
                tracing::error!(session = %self.shared.id(), why, "a session cannot go on");
                self.end(CloseReason::InternalError, None, io.now);
            }
        }
    }

    fn connected(&mut self, keys: &srtp::Keys, remote: SocketAddr, io: &mut Io<'_>) {
        let crypto = self.provider.crypto();
        let (rx, tx) = match (srtp::Rx::new(crypto, keys), srtp::Tx::new(crypto, keys)) {
            (Ok(rx), Ok(tx)) => (rx, tx),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(session = %self.shared.id(), %error, "no media keys");
                self.end(CloseReason::InternalError, None, io.now);
                return;
            }
        };
        let media = Media::new(rx, tx, &self.negotiated, rand::random(), io.now);
        if let Err(error) = self.conversation.connected(&media, self.bounds) {
            tracing::error!(session = %self.shared.id(), %error, "no codec");
            self.end(CloseReason::InternalError, None, io.now);
            return;
        }
        self.media = Some(Box::new(media));
        self.reach.connected(remote, io);
        self.life.handle(LifeEvent::Connected, io.now);
        self.publish(io.now);
        self.shared.connected(remote);
    }

    fn message(&mut self, text: String, channel: RTCDataChannelId, io: &mut Io<'_>) {
        io.counters.message();
        let log = ServerMessage::log_received(&text).to_json();
        if self.peer.send_on(io.now, channel, log) == MessageSent::Dropped {
            io.counters.dropped(Drop::ClientMessages);
        }
        let (Some(media), Some(to)) = (self.media.as_deref_mut(), self.reach.current()) else {
            io.counters.dropped(Drop::HandlerMessages);
            return;
        };
        let (peer, touched) = (&mut self.peer, &mut self.touched);
        let mut sink = Sink { media, peer, touched, to, now: io.now, out: io.out, counters: io.counters };
        if self.conversation.message(text, &mut sink) == Err(Panicked) {
            self.handler_panicked(io.now);
        }
    }

    fn say(&mut self, text: String, io: &Io<'_>) {
        if self.peer.send_text(io.now, text) == MessageSent::Dropped {
            io.counters.dropped(Drop::ClientMessages);
        }
    }

    fn feedback(&mut self, io: &mut Io<'_>) {
        let Some(media) = self.media.as_mut() else { return };
        let reported = media.feedback(self.peer.rtcp(), io.clock);
        if reported.heard && self.heard_at.is_some() {
            self.heard_at = Some(io.now);
        }
        if let Some(loss) = reported.audio_loss {
            self.conversation.report(io.now, loss);
        }
        if reported.key_frame
            && let Some(request) = media.key_frame_request(io.now)
        {
            // What the client cannot decode is what it sent: only its own encoder can mend that.
            self.peer.send_rtcp(io.now, request);
        }
    }

    /// Moves audio between network and handler, and does what the handler said.
    fn work(&mut self, io: &mut Io<'_>) {
        self.more = false;
        if self.closed().is_some() {
            return;
        }
        let mut left = Allotment::new();
        loop {
            let listening = self.listening();
            let (Some(media), Some(to)) = (self.media.as_deref_mut(), self.reach.current()) else { return };
            match self.conversation.turn(media, to, listening, &mut left, io) {
                Turn::Rest => return,
                Turn::More => {
                    self.more = true;
                    return;
                }
                Turn::Said(Said::Now(emit)) => self.said(emit, io),
                Turn::Said(Said::End(message)) => {
                    let goodbye = ServerMessage::end_stream(message);
                    self.end(CloseReason::EndStream, Some(goodbye), io.now);
                }
            }
        }
    }

    fn said(&mut self, emit: Emit, io: &Io<'_>) {
        match emit {
            Emit::Output(value) => {
                if self.shared.output(&value).is_ok() {
                    self.say(ServerMessage::FetchOutput.to_json(), io);
                }
            }
            Emit::Message(message) => self.say(words(message), io),
            // A handler that names a track which is not there has nothing to be told.
            Emit::CloseTrack(mid) => {
                self.close_track(&mid, io.now);
            }
            Emit::Audio(_) | Emit::Packet(_) | Emit::Clear | Emit::EndStream(_) | Emit::All(_) | Emit::Nothing => {}
        }
    }

    /// Nothing is sent or taken on this track any more. Returns what came of it.
    pub(crate) fn close_track(&mut self, mid: &str, now: Instant) -> TrackEnd {
        let mut tracks = self.media.iter_mut().flat_map(|m| &mut m.tracks);
        let Some(track) = tracks.find(|t| t.negotiated.mid == mid) else { return TrackEnd::Unknown };
        track.closed = true;
        self.publish(now);
        TrackEnd::Closed
    }

    // ---- ending ----

    /// Begins the end: `goodbye` is said, and a moment later the peer is closed. A handler's own end comes here when all that
    /// it emitted before has been sent.
    pub(crate) fn end(&mut self, reason: CloseReason, goodbye: Option<ServerMessage>, now: Instant) {
        if self.ending.is_some() || self.closed().is_some() {
            return;
        }
        self.ending = Some(Ending::new(reason, goodbye));
        self.life.handle(LifeEvent::End(reason), now);
        self.shared.ending(reason);
    }

    fn handler_panicked(&mut self, now: Instant) {
        tracing::error!(session = %self.shared.id(), "a handler panicked on the media loop");
        self.touched = true;
        self.handler_failed("The handler failed", now);
    }

    /// The handler's task is over without having said so in the stream.
    pub(crate) fn handler_failed(&mut self, message: &str, now: Instant) {
        self.conversation.clear();
        self.end(CloseReason::HandlerError, Some(ServerMessage::Error(message.to_owned())), now);
    }

    /// Asks the client to offer again elsewhere; the session goes on until it does or its time is over.
    pub(crate) fn ask_to_reconnect(&mut self, message: &ServerMessage, io: &Io<'_>) {
        self.say(message.to_json(), io);
    }

    fn finish(&mut self, io: &mut Io<'_>) {
        // The life's own limits: the time limit, or no connection in time.
        if self.ending.is_none()
            && let Some(reason) = self.life.state().reason()
        {
            let goodbye = self.media.is_some().then_some(ServerMessage::UpdateConnection);
            self.ending = Some(Ending::new(reason, goodbye));
            self.shared.ending(reason);
        }
        let Some(mut ending) = self.ending.take() else { return };
        if let Some(goodbye) = ending.goodbye.take() {
            self.say(goodbye.to_json(), io);
        }
        let grace = if ending.is_alone() || self.media.is_none() { Duration::ZERO } else { CLOSE_GRACE };
        let close_at = *ending.close_at.get_or_insert(io.now + grace);
        if close_at <= io.now {
            self.publish(io.now);
            self.peer.close();
            self.life.handle(LifeEvent::Close(ending.reason), io.now);
        }
        self.ending = Some(ending);
    }

    /// When the session wants to be called again.
    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        [
            self.peer.poll_timeout(now),
            self.life.poll_timeout(),
            self.media.as_ref().map(|m| m.report_at),
            self.conversation.poll_timeout(self.listening()),
            self.ending.as_ref().and_then(|e| e.close_at),
            self.published_at.map(|at| at + QUALITY_EVERY),
        ]
        .into_iter()
        .flatten()
        .min()
        // What was due has been done; whatever asks for the present again is not heard before the clock has moved.
        .map(|at| at.max(now + MIN_STEP))
    }

    /// An ending session's handler hears nothing more.
    fn listening(&self) -> Listening {
        if self.ending.is_none() { Listening::Yes } else { Listening::No }
    }

    /// Whether a packet has left more to do than was done with it.
    pub(crate) fn wants_settling(&self) -> bool {
        self.touched
            || self.conversation.plays_out()
                && self.deadline.is_none_or(|deadline| {
                    self.conversation.poll_timeout(self.listening()).is_some_and(|at| at < deadline)
                })
    }

    /// Shows the rest of the process how this session's media fares.
    fn publish(&mut self, now: Instant) {
        let Some(media) = &self.media else { return };
        self.published_at = Some(now);
        let playout = self.conversation.playout().map(|s| Playout {
            target_delay_ms: millis(s.target_delay),
            current_delay_ms: millis(s.current_delay),
            concealed: s.concealed,
            concealed_share: if s.played.is_zero() { 0.0 } else { s.concealed_time.div_duration_f64(s.played) },
            fec_repaired: s.fec_repaired,
            late: s.late,
            accelerated: s.accelerated,
        });
        self.shared.publish(Quality {
            rtt_ms: media.round_trip.map(millis),
            tracks: media.tracks.iter().map(Track::view).collect(),
            playout,
            intake: None,
        });
    }
}
