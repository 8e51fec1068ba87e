//! One session on its loop: peer, paths, tracks, handler and life, fed with datagrams and time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::data_channel::RTCDataChannelId;
use streamfleet_audio::DelayBounds;
use streamfleet_handler::{
    Emit, EncodedPacket, Input, LoopEnd, Media as HandlerMedia, Message, Packet, PacketHandler, PacketSink, TrackKind,
};
use streamfleet_net::stun::TransactionId;
use streamfleet_net::{Outbox, stun};
use streamfleet_rtp::rtcp::WallClock;
use streamfleet_rtp::srtp;
use streamfleet_session::lifecycle::{CloseReason, LifeEvent, LifeLimits, Lifecycle, State};
use streamfleet_session::wire::ServerMessage;

use super::answer::{Answered, IceCredentials, NegotiatedTrack};
use super::counters::{Counters, Drop};
use super::frames::{Frames, Listening, Said};
use super::path::{PathAction, Paths};
use super::peer::{MessageSent, Peer, PeerEvent, StunKind};
use super::shared::{Playout, Quality, Shared, millis};
use super::tracks::{Media, Track};

/// Addresses that one session may be reached from while it connects: as many as candidates are taken.
const MAX_ADDRESSES: usize = 24;
/// Checks of ours that may be answered: the agent sends one to each candidate every 200 ms and gives each up after 4 s.
const MAX_ASKED: usize = 64;
/// A client that sends media and is then silent for this long, packets and reports alike, is gone, whatever its ICE says.
const SILENT: Duration = Duration::from_secs(30);
/// An answered check counts as the client's consent for this long.
const CONSENT: Duration = Duration::from_secs(10);
/// Packets and messages taken from a handler in one turn, so that one that always has more shares the loop.
const MAX_EMITS: usize = 64;
/// How long an ended session waits for the client to go by itself once it has been told.
const CLOSE_GRACE: Duration = Duration::from_millis(700);

/// A session is not called more often by its timers.
const MIN_STEP: Duration = Duration::from_micros(200);

/// The handler's end that the loop talks to.
pub(crate) enum Endpoint {
    /// Runs here, on the loop.
    Packets(Box<dyn PacketHandler>),
    /// Runs in a task of its own.
    Task { link: LoopEnd, media: HandlerMedia },
}

/// A session that is about to begin.
pub(crate) struct NewSession {
    pub(crate) answered: Answered,
    pub(crate) endpoint: Endpoint,
    pub(crate) limits: LifeLimits,
    pub(crate) bounds: DelayBounds,
    pub(crate) shared: Arc<Shared>,
    pub(crate) provider: Arc<dyn rtc::crypto::RTCCryptoProvider>,
    /// Kept until the session is over.
    pub(crate) guard: Box<dyn std::any::Any + Send>,
}

/// What a session needs of its loop while it works.
pub(crate) struct Io<'a> {
    pub(crate) now: Instant,
    pub(crate) clock: &'a WallClock,
    pub(crate) out: &'a mut Outbox,
    pub(crate) counters: &'a Counters,
    pub(crate) routes: &'a mut Vec<Route>,
    pub(crate) payload: &'a mut Vec<u8>,
}

/// What the loop's tables are to learn of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// A check with valid integrity came from there. Integrity does not cover the source address, so this takes the address
    /// from nobody.
    Claimed(SocketAddr),
    /// A check of ours was answered from there: whoever is there is this session's client.
    Proven(SocketAddr),
    /// The session has no more use for it.
    Forgotten(SocketAddr),
    /// A check of ours left with this id; its answer carries no name.
    Asked(TransactionId),
    /// It was answered, or is too old to be.
    Answered(TransactionId),
    /// Authenticated media has this SSRC.
    Source(u32),
}

pub(crate) struct Session {
    peer: Peer,
    local: IceCredentials,
    remote: IceCredentials,
    provider: Arc<dyn rtc::crypto::RTCCryptoProvider>,
    tracks: Vec<NegotiatedTrack>,
    paths: Option<Paths>,
    /// The current path's address as the ICE agent knows it, whatever it is by now.
    selected: Option<SocketAddr>,
    media: Option<Box<Media>>,
    frames: Option<Box<Frames>>,
    endpoint: Endpoint,
    bounds: DelayBounds,
    life: Lifecycle,
    ending: Option<Ending>,
    /// Something was done beside RTP since the last settling.
    touched: bool,
    /// The index of the next packet that the frames path sends.
    next_index: u64,
    /// Dropped with the session: what it holds in the rest of the process.
    _guard: Box<dyn std::any::Any + Send>,
    /// When the client was last heard of on a track or about one.
    heard_at: Option<Instant>,
    /// More may be done than was done in one turn.
    pub(crate) more: bool,
    /// The loop has it on its list.
    pub(crate) queued: bool,
    /// All that the loop's tables know of this session.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) asked: VecDeque<(TransactionId, SocketAddr)>,
    /// Addresses that checks came from before the session connected, and that no answer of theirs has proven yet.
    unproven: Vec<Unproven>,
    /// And those that one has.
    proven: Vec<SocketAddr>,
    pub(crate) sources: Vec<u32>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Option<Instant>,
}

/// Octets from and to an address of which only a check is known.
struct Unproven {
    address: SocketAddr,
    received: usize,
    sent: usize,
}

struct Ending {
    reason: CloseReason,
    /// Said to the client before the peer is closed.
    goodbye: Option<ServerMessage>,
    close_at: Option<Instant>,
}

impl Session {
    pub(crate) fn new(new: NewSession, now: Instant) -> Self {
        let (local, remote) = (new.answered.local.clone(), new.answered.remote.clone());
        let tracks = new.answered.tracks.clone();
        Session {
            peer: Peer::new(new.answered, now),
            local,
            remote,
            provider: new.provider,
            tracks,
            paths: None,
            selected: None,
            media: None,
            frames: None,
            endpoint: new.endpoint,
            bounds: new.bounds,
            life: Lifecycle::new(now, new.limits),
            ending: None,
            touched: false,
            next_index: 0,
            _guard: new.guard,
            heard_at: None,
            more: false,
            queued: false,
            addresses: Vec::new(),
            asked: VecDeque::new(),
            unproven: Vec::new(),
            proven: Vec::new(),
            sources: Vec::new(),
            shared: new.shared,
            deadline: None,
        }
    }

    pub(crate) fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// The session is over and its slot may go.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        match self.life.state() {
            State::Closed(reason) => Some(reason),
            _ => None,
        }
    }

    pub(crate) fn add_candidate(&mut self, candidate: &streamfleet_session::candidate::RemoteCandidate) -> bool {
        self.peer.add_candidate(candidate)
    }

    // ---- what comes from the network ----

    /// A STUN message for this session, by its ufrag or by the address it came from.
    pub(crate) fn stun(&mut self, from: SocketAddr, data: &[u8], message: &stun::Message<'_>, io: &mut Io<'_>) {
        match message.class() {
            stun::Class::Request => self.stun_request(from, data, message, io),
            stun::Class::Success => {
                if !message.verify_integrity(self.remote.pwd.as_bytes()) {
                    io.counters.dropped(Drop::StunIntegrity);
                    return;
                }
                let id = message.transaction();
                // RFC 8445 7.2.5.2.1: the answer comes from where the check went. A client knows the ids of the checks that
                // reached it, and could answer one of them in another's name.
                if !self.asked.contains(&(id, from)) {
                    io.counters.dropped(Drop::StunUnasked);
                    return;
                }
                self.learn(from, Route::Proven(from), io);
                self.prove(from);
                if let Some(action) = self.paths.as_mut().and_then(|p| p.response(from, &id, io.now)) {
                    self.path(action, io);
                    return;
                }
                self.peer.read_stun(io.now, self.as_known(from), data, StunKind::Success);
            }
            // The agent would take an indication for a sign of life without asking who it is from; it has no use for errors.
            _ => io.counters.dropped(Drop::StunUnasked),
        }
    }

    fn stun_request(&mut self, from: SocketAddr, data: &[u8], message: &stun::Message<'_>, io: &mut Io<'_>) {
        // The core looks at roles before it looks at integrity; nothing unauthenticated may reach it.
        let named = message.username().is_some_and(|name| {
            name.split_once(':').is_some_and(|(local, remote)| local == self.local.ufrag && remote == self.remote.ufrag)
        });
        if !named || !message.verify_integrity(self.local.pwd.as_bytes()) {
            io.counters.dropped(Drop::StunIntegrity);
            return;
        }
        let nominates = message.use_candidate();
        let Some(paths) = self.paths.as_mut() else {
            self.learn(from, Route::Claimed(from), io);
            let known = self.unproven.iter().position(|u| u.address == from);
            match known {
                Some(i) => self.unproven[i].received += data.len(),
                None if self.proven.contains(&from) => {}
                None if self.unproven.len() == MAX_ADDRESSES => {
                    io.counters.dropped(Drop::Unaffordable);
                    return;
                }
                None => self.unproven.push(Unproven { address: from, received: data.len(), sent: 0 }),
            }
            let kind = if nominates { StunKind::NominatingRequest } else { StunKind::Other };
            self.peer.read_stun(io.now, from, data, kind);
            return;
        };
        // Once connected the loop answers checks itself: to the agent the path never changes.
        let action = paths.request(from, nominates, data.len(), io.now);
        self.learn(from, Route::Claimed(from), io);
        // Our own check goes first: an unproven address has not paid for both, and only the check's answer proves it.
        self.path(action, io);
        let allowance = self.paths.as_ref().map_or(0, |p| p.allowance(from));
        let response = stun::BindingSuccess { transaction: message.transaction(), mapped: from };
        let key = self.local.pwd.as_bytes();
        let mut size = 0;
        let sent = io.out.push(from, |buffer| {
            let start = buffer.len();
            response.write(key, buffer);
            size = buffer.len() - start;
            size <= allowance
        });
        if sent && let Some(paths) = self.paths.as_mut() {
            paths.sent(from, size);
        }
    }

    /// A DTLS record.
    pub(crate) fn dtls(&mut self, from: SocketAddr, data: &[u8], io: &mut Io<'_>) {
        let alert = data.first() == Some(&21);
        if !self.peer.read_dtls(io.now, self.as_known(from), data) {
            io.counters.dropped(Drop::DtlsRefused);
            return;
        }
        if alert && self.media.is_some() && self.peer.is_dtls_closed() {
            self.end(CloseReason::ClientClosed, None, io.now);
        }
    }

    /// An SRTCP packet.
    pub(crate) fn rtcp(&mut self, from: SocketAddr, data: &[u8], io: &mut Io<'_>) {
        self.peer.read_rtcp(io.now, self.as_known(from), data);
    }

    /// An SRTP packet. Returns whether it was this session's.
    pub(crate) fn rtp(&mut self, from: SocketAddr, data: &mut [u8], io: &mut Io<'_>) -> bool {
        let (Some(media), Some(paths)) = (self.media.as_mut(), self.paths.as_mut()) else {
            // Chromium sends as soon as its own side is up, which may be before our last flight arrived.
            io.counters.dropped(Drop::EarlyRtp);
            return false;
        };
        let size = data.len();
        let inbound = match media.open(data, io.now) {
            Ok(Some(inbound)) => inbound,
            Ok(None) => {
                io.counters.dropped(Drop::UnknownPayloadType);
                return true;
            }
            Err(refused) => {
                io.counters.dropped(refused.into());
                return false;
            }
        };
        let action = paths.media(from, inbound.newest, size, io.now);
        let to = paths.current();
        if inbound.new_source && !self.sources.contains(&inbound.ssrc) {
            self.sources.push(inbound.ssrc);
            io.routes.push(Route::Source(inbound.ssrc));
        }
        io.counters.received(size);
        self.heard_at = Some(io.now);
        let mut panicked = false;
        if !inbound.payload.is_empty() && self.ending.is_none() {
            let track = &media.tracks[inbound.track].negotiated;
            let packet = Packet {
                kind: track.kind,
                codec: track.codec,
                index: inbound.index,
                timestamp: inbound.timestamp,
                marker: inbound.marker,
                payload: &data[inbound.payload],
            };
            match (&mut self.endpoint, &mut self.frames) {
                (Endpoint::Packets(handler), _) => {
                    let mut sink = Sink { media, peer: &mut self.peer, touched: &mut self.touched, to, io };
                    // One session's fault must not end the loop that it shares with the others.
                    panicked = catch_unwind(AssertUnwindSafe(|| handler.packet(&packet, &mut sink))).is_err();
                }
                (Endpoint::Task { .. }, Some(frames)) if packet.kind == TrackKind::Audio => {
                    frames.insert(io.now, packet.index, packet.timestamp, packet.payload);
                }
                (Endpoint::Task { link, media: HandlerMedia::Packets }, _) => {
                    let pushed = link.push(Input::Packet(EncodedPacket {
                        kind: packet.kind,
                        codec: packet.codec,
                        index: packet.index,
                        timestamp: packet.timestamp,
                        marker: packet.marker,
                        payload: Bytes::copy_from_slice(packet.payload),
                    }));
                    if pushed != streamfleet_handler::Pushed::Queued {
                        io.counters.dropped(Drop::HandlerAudio);
                    }
                }
                // A handler of audio frames has no use for pictures.
                (Endpoint::Task { .. }, _) => io.counters.dropped(Drop::UnwantedTrack),
            }
        }
        if panicked {
            self.handler_panicked(io.now);
        }
        self.path(action, io);
        true
    }

    /// The address as the ICE agent knows it.
    fn as_known(&self, from: SocketAddr) -> SocketAddr {
        match (&self.paths, self.selected) {
            (Some(paths), Some(selected)) if paths.is_validated(from) => selected,
            _ => from,
        }
    }

    fn path(&mut self, action: PathAction, io: &mut Io<'_>) {
        let (PathAction::Check(to) | PathAction::Moved(to)) = action else { return };
        let Some(paths) = self.paths.as_mut() else { return };
        match action {
            PathAction::Check(_) => {
                let id = TransactionId(rand::random());
                let allowance = paths.allowance(to);
                let request = stun::BindingRequest {
                    transaction: id,
                    remote_ufrag: &self.remote.ufrag,
                    local_ufrag: &self.local.ufrag,
                    priority: PEER_REFLEXIVE_PRIORITY,
                    role: stun::Role::Controlled(rand::random()),
                    nomination: stun::Nomination::None,
                };
                let key = self.remote.pwd.as_bytes();
                let mut size = 0;
                let sent = io.out.push(to, |buffer| {
                    let start = buffer.len();
                    let written = request.write(key, buffer).is_ok();
                    size = buffer.len() - start;
                    written && size <= allowance
                });
                if sent {
                    paths.sent(to, size);
                    paths.checked(to, id, io.now);
                    self.ask(id, to, io);
                }
            }
            PathAction::Moved(_) => {
                io.counters.moved();
                self.shared.moved(to);
                self.learn(to, Route::Proven(to), io);
            }
            PathAction::Keep => {}
        }
    }

    fn learn(&mut self, address: SocketAddr, route: Route, io: &mut Io<'_>) {
        if !self.addresses.contains(&address) {
            if self.addresses.len() == MAX_ADDRESSES {
                let unused = |a: &SocketAddr| self.paths.as_ref().is_none_or(|paths| !paths.knows(*a));
                let oldest = self.addresses.iter().position(unused).unwrap_or(0);
                io.routes.push(Route::Forgotten(self.addresses.remove(oldest)));
            }
            self.addresses.push(address);
        }
        io.routes.push(route);
    }

    /// An answer to a check of ours came from there.
    fn prove(&mut self, address: SocketAddr) {
        if self.paths.is_none() && !self.proven.contains(&address) && self.proven.len() < MAX_ADDRESSES {
            self.unproven.retain(|u| u.address != address);
            self.proven.push(address);
        }
    }

    /// Whether so much may be sent to an address that has proven nothing: as in RFC 9000 8.1, three times what came.
    fn affords(&mut self, to: SocketAddr, size: usize) -> bool {
        let Some(unproven) = self.unproven.iter_mut().find(|u| u.address == to) else { return true };
        unproven.sent += size;
        unproven.sent <= 3 * unproven.received
    }

    /// A check leaves with this id, for this address.
    fn ask(&mut self, id: TransactionId, to: SocketAddr, io: &mut Io<'_>) {
        if self.asked.len() == MAX_ASKED {
            io.routes.extend(self.asked.pop_front().map(|(old, _)| Route::Answered(old)));
        }
        self.asked.push_back((id, to));
        io.routes.push(Route::Asked(id));
    }

    // ---- what time and the handler bring ----

    /// Runs all timers that are due.
    pub(crate) fn handle_timeout(&mut self, io: &mut Io<'_>) {
        self.peer.handle_timeout(io.now);
        self.life.handle_timeout(io.now);
        // Looked at with each report: to the second is near enough.
        if self.heard_at.is_some_and(|at| io.now.saturating_duration_since(at) >= SILENT) {
            self.end(CloseReason::MediaTimeout, Some(ServerMessage::UpdateConnection), io.now);
        }
        if let Some(reports) = self.media.as_mut().and_then(|m| m.reports(io.now, io.clock)) {
            self.peer.send_rtcp(io.now, reports);
            self.publish();
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
        while let Some((to, data)) = self.peer.poll_write(io.now) {
            // To the agent the selected address never changes.
            let to = match &self.paths {
                Some(paths) if Some(to) == self.selected => paths.current(),
                _ => to,
            };
            if self.paths.is_none() && !self.affords(to, data.len()) {
                io.counters.dropped(Drop::Unaffordable);
                continue;
            }
            if data.starts_with(&[0, 1])
                && let Some(id) = data.get(8..20).and_then(|id| id.try_into().ok())
            {
                self.ask(TransactionId(id), to, io);
            }
            io.out.push_slice(to, &data);
        }
    }

    fn peer_event(&mut self, event: PeerEvent, io: &mut Io<'_>) {
        match event {
            PeerEvent::Connected { keys, remote } => self.connected(&keys, remote, io),
            PeerEvent::ChannelOpen => self.shared.channel_opened(),
            PeerEvent::Message { text, channel } => self.message(text, channel, io),
            PeerEvent::ClosedByPeer => self.end(CloseReason::ClientClosed, None, io.now),
            PeerEvent::Lost => {
                let proved = self.paths.as_ref().map(Paths::proved_at);
                if proved.is_some_and(|at| io.now.saturating_duration_since(at) < CONSENT) {
                    self.peer.reprieve(io.now);
                } else {
                    self.end(CloseReason::ConnectionLost, None, io.now);
                }
            }
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
        let media = Media::new(rx, tx, &self.tracks, rand::random(), io.now);
        if let Endpoint::Task { media: HandlerMedia::Frames { input, .. }, .. } = &self.endpoint
            && let Some(codec) = media.codec(TrackKind::Audio)
        {
            match Frames::new(codec, *input, self.bounds) {
                Ok(frames) => self.frames = Some(Box::new(frames)),
                Err(error) => {
                    tracing::error!(session = %self.shared.id(), %error, "no codec");
                    self.end(CloseReason::InternalError, None, io.now);
                    return;
                }
            }
        }
        self.media = Some(Box::new(media));
        self.paths = Some(Paths::new(remote, io.now));
        self.selected = Some(remote);
        (self.unproven, self.proven) = (Vec::new(), Vec::new());
        self.life.handle(LifeEvent::Connected, io.now);
        self.shared.connected(remote);
    }

    fn message(&mut self, text: String, channel: RTCDataChannelId, io: &mut Io<'_>) {
        io.counters.message();
        let log = ServerMessage::log_received(&text).to_json();
        if self.peer.send_on(io.now, channel, log) == MessageSent::Dropped {
            io.counters.dropped(Drop::ClientMessages);
        }
        match &mut self.endpoint {
            Endpoint::Packets(handler) => {
                if let (Some(media), Some(paths)) = (self.media.as_mut(), &self.paths) {
                    let to = paths.current();
                    let mut sink = Sink { media, peer: &mut self.peer, touched: &mut self.touched, to, io };
                    if catch_unwind(AssertUnwindSafe(|| handler.message(&text, &mut sink))).is_err() {
                        self.handler_panicked(io.now);
                    }
                }
            }
            Endpoint::Task { link, .. } => {
                if !matches!(link.push(Input::Message(text)), streamfleet_handler::Pushed::Queued) {
                    io.counters.dropped(Drop::HandlerMessages);
                }
            }
        }
    }

    fn say(&mut self, message: &ServerMessage, io: &mut Io<'_>) {
        if self.peer.send_text(io.now, message.to_json()) == MessageSent::Dropped {
            io.counters.dropped(Drop::ClientMessages);
        }
    }

    fn feedback(&mut self, io: &mut Io<'_>) {
        let Some(media) = self.media.as_mut() else { return };
        let reported = media.feedback(self.peer.rtcp(), io.clock);
        if reported.heard && self.heard_at.is_some() {
            self.heard_at = Some(io.now);
        }
        if let (Some(loss), Some(frames)) = (reported.audio_loss, self.frames.as_mut()) {
            frames.report(io.now, loss);
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
        let mut emits = 0;
        loop {
            if emits >= MAX_EMITS || io.out.is_full() {
                self.more = true;
                return;
            }
            let (Some(media), Some(paths)) = (self.media.as_mut(), &self.paths) else { return };
            let Endpoint::Task { link, media: kind } = &self.endpoint else { return };
            let to = paths.current();
            let said = match (&mut self.frames, kind) {
                (Some(frames), _) => {
                    if self.ending.is_none() {
                        frames.play(io.now, link);
                    }
                    let said = frames.feed(io.now, link);
                    let mut sent = false;
                    loop {
                        io.payload.clear();
                        let Some((timestamp, marker)) = frames.poll(io.now, io.payload) else { break };
                        if let Some(codec) = media.codec(TrackKind::Audio) {
                            let index = self.next_index;
                            self.next_index += 1;
                            let packet =
                                Packet { kind: TrackKind::Audio, codec, index, timestamp, marker, payload: io.payload };
                            media.send(&packet, to, io.now, io.out);
                            sent = true;
                        }
                    }
                    io.counters.dropped_many(Drop::HandlerAudio, frames.take_dropped());
                    if said.is_none() && sent && frames.has_behind() {
                        // What waited for that packet may be next.
                        continue;
                    }
                    said
                }
                (None, HandlerMedia::Packets) => loop {
                    emits += 1;
                    if emits >= MAX_EMITS || io.out.is_full() {
                        break None;
                    }
                    match link.pop() {
                        Some(Emit::Packet(packet)) => {
                            if !media.send(&packet.as_packet(), to, io.now, io.out) {
                                io.counters.dropped(Drop::HandlerPackets);
                            }
                        }
                        Some(Emit::EndStream(message)) => break Some(Said::End(message)),
                        Some(Emit::Audio(_) | Emit::Nothing) => {}
                        Some(other) => break Some(Said::Now(other)),
                        None => break None,
                    }
                },
                // The client negotiated no audio: nothing to play, but the handler may speak.
                (None, HandlerMedia::Frames { .. }) => match link.pop() {
                    Some(Emit::EndStream(message)) => Some(Said::End(message)),
                    Some(Emit::Audio(_) | Emit::Packet(_) | Emit::Nothing) => continue,
                    other => other.map(Said::Now),
                },
            };
            match said {
                Some(Said::Now(emit)) => self.said(emit, io),
                Some(Said::End(message)) => {
                    let goodbye = ServerMessage::end_stream(message);
                    self.end(CloseReason::EndStream, Some(goodbye), io.now);
                }
                None if emits >= MAX_EMITS || io.out.is_full() => {}
                None => return,
            }
            emits += 1;
        }
    }

    fn said(&mut self, emit: Emit, io: &mut Io<'_>) {
        match emit {
            Emit::Output(value) => {
                self.shared.output(value);
                self.say(&ServerMessage::FetchOutput, io);
            }
            Emit::Message(Message::Log(text)) => self.say(&ServerMessage::Log(text), io),
            Emit::Message(Message::Warning(text)) => self.say(&ServerMessage::Warning(text), io),
            Emit::Message(Message::Error(text)) => self.say(&ServerMessage::Error(text), io),
            Emit::Message(Message::Text(text)) => {
                if self.peer.send_text(io.now, text) == MessageSent::Dropped {
                    io.counters.dropped(Drop::ClientMessages);
                }
            }
            Emit::CloseTrack(mid) => {
                self.close_track(&mid);
            }
            Emit::Audio(_) | Emit::Packet(_) | Emit::EndStream(_) | Emit::Nothing => {}
        }
    }

    /// Nothing is sent or taken on this track any more.
    pub(crate) fn close_track(&mut self, mid: &str) -> bool {
        let Some(track) = self.media.as_mut().and_then(|m| m.tracks.iter_mut().find(|t| t.negotiated.mid == mid))
        else {
            return false;
        };
        track.closed = true;
        true
    }

    // ---- ending ----

    /// Begins the end: `goodbye` is said, and a moment later the peer is closed. A handler's own end comes here when all that
    /// it emitted before has been sent.
    pub(crate) fn end(&mut self, reason: CloseReason, goodbye: Option<ServerMessage>, now: Instant) {
        if self.ending.is_some() || self.closed().is_some() {
            return;
        }
        self.ending = Some(Ending { reason, goodbye, close_at: None });
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
        if let Some(frames) = self.frames.as_mut() {
            frames.clear();
        }
        self.end(CloseReason::HandlerError, Some(ServerMessage::Error(message.to_owned())), now);
    }

    /// Asks the client to offer again elsewhere; the session goes on until it does or its time is over.
    pub(crate) fn ask_to_reconnect(&mut self, message: &ServerMessage, io: &mut Io<'_>) {
        self.say(message, io);
    }

    fn finish(&mut self, io: &mut Io<'_>) {
        // The life's own limits: the time limit, or no connection in time.
        if self.ending.is_none()
            && let Some(reason) = self.life.state().reason()
        {
            let goodbye = self.media.is_some().then_some(ServerMessage::UpdateConnection);
            self.ending = Some(Ending { reason, goodbye, close_at: None });
            self.shared.ending(reason);
        }
        let Some(mut ending) = self.ending.take() else { return };
        let gone = matches!(
            ending.reason,
            CloseReason::ClientClosed | CloseReason::ConnectionLost | CloseReason::ConnectTimeout
        );
        if let Some(goodbye) = ending.goodbye.take() {
            self.say(&goodbye, io);
        }
        let grace = if gone || self.media.is_none() { Duration::ZERO } else { CLOSE_GRACE };
        let close_at = *ending.close_at.get_or_insert(io.now + grace);
        if close_at <= io.now {
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
            self.frames.as_ref().and_then(|f| f.poll_timeout(self.listening())),
            self.ending.as_ref().and_then(|e| e.close_at),
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
            || match (&self.frames, self.deadline) {
                (Some(frames), Some(deadline)) => frames.poll_timeout(self.listening()).is_some_and(|at| at < deadline),
                (Some(_), None) => true,
                (None, _) => false,
            }
    }

    /// Shows the rest of the process how this session's media fares.
    pub(crate) fn publish(&mut self) {
        let Some(media) = &self.media else { return };
        let playout = self.frames.as_ref().map(|frames| {
            let s = frames.stats();
            Playout {
                target_delay_ms: millis(s.target_delay),
                current_delay_ms: millis(s.current_delay),
                concealed: s.concealed,
                fec_repaired: s.fec_repaired,
                late: s.late,
                accelerated: s.accelerated,
            }
        });
        self.shared.publish(Quality {
            rtt_ms: media.round_trip.map(millis),
            tracks: media.tracks.iter().map(Track::view).collect(),
            playout,
        });
    }
}

/// RFC 8445 5.1.2.1 for a peer-reflexive candidate, which a check from a moved path makes ours in the client's eyes.
const PEER_REFLEXIVE_PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;

struct Sink<'a, 'io> {
    media: &'a mut Media,
    peer: &'a mut Peer,
    touched: &'a mut bool,
    to: SocketAddr,
    io: &'a mut Io<'io>,
}

impl PacketSink for Sink<'_, '_> {
    fn send(&mut self, packet: &Packet<'_>) {
        if !self.media.send(packet, self.to, self.io.now, self.io.out) {
            self.io.counters.dropped(Drop::HandlerPackets);
        }
    }

    fn message(&mut self, text: &str) {
        *self.touched = true;
        if self.peer.send_text(self.io.now, text.to_owned()) == MessageSent::Dropped {
            self.io.counters.dropped(Drop::ClientMessages);
        }
    }
}
