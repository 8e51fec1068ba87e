//! One `rtc` peer connection, driven for everything but RTP: ICE, DTLS, SCTP, SRTCP.
//!
//! Addresses here are as the ICE agent knows them; [`super::path`] decides what they mean on the network.
//! Five things that the core leaves to its driver are done here:
//!
//! - A nominating check on a pair that has not succeeded yet is never answered by the core, so it is fed in again once
//!   our own check has its response (else the client waits 500 ms for its next one).
//! - DTLS that arrives before a pair is selected is dropped by the core, so the first flight is held back.
//! - A peer's close_notify changes no connection state; its data channels closing does, and so does DTLS' own state.
//! - A handshake's flight that was lost is said again when the client repeats what led to it, and always as it was said first
//!   ([`Flight`]; the worker is the server).
//! - Once nothing but consent checks is left to do, the agent's wish to be called five times a second is overruled.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::data_channel::RTCDataChannelId;
use rtc::peer_connection::RTCPeerConnection;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::state::{RTCIceConnectionState, RTCPeerConnectionState};
use rtc::peer_connection::transport::{RTCDtlsRole, RTCDtlsTransportState};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::statistics::StatsSelector;
use streamfleet_rtp::keying::Keying;
use streamfleet_rtp::rtcp::{Packets, RtcpInbox};
use streamfleet_rtp::srtp::{Keys, Profile, Role};
use streamfleet_rtp::{Flight, Sent};
use streamfleet_session::candidate::RemoteCandidate;

use super::answer::{Answered, LocalAddresses, MAX_REMOTE_CANDIDATES, add_remote};
use super::dtls::{Gate, Phase};

/// Datagrams of a first DTLS flight that are kept until ICE has selected a pair. Chromium's flight is two.
const MAX_EARLY: usize = 8;
/// Messages that wait for the data channel to open.
const MAX_WAITING: usize = 64;
/// Octets that may wait in SCTP for a client that does not read; beyond, messages are dropped and counted.
const MAX_OUTSTANDING: usize = 1 << 20;
/// What rtc-ice asks for while connected, though its next check is seconds away.
const ICE_TICK: Duration = Duration::from_millis(200);
/// What it gets once DTLS and SCTP are at rest.
const RELAXED_TICK: Duration = Duration::from_secs(1);
/// DTLS and SCTP count as at rest this long after their last packet: beyond every retransmission timer of theirs.
const SETTLED: Duration = Duration::from_secs(3);
/// A connected client that answers no check is given this long beyond the 5 s after which the agent notices. A lift or
/// a tunnel is shorter than the sum.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// No timer runs more often, whatever the core says.
const MIN_TICK: Duration = Duration::from_millis(1);

/// What became of a peer.
pub(crate) enum PeerEvent {
    /// ICE and DTLS are up; media keys follow from this material (RFC 5764).
    Connected { keys: Keys, remote: SocketAddr },
    /// The data channel is open.
    ChannelOpen,
    /// A message of the client.
    Message { text: String, channel: RTCDataChannelId },
    /// The client closed the connection.
    ClosedByPeer,
    /// No check was answered for too long, or DTLS failed.
    Lost,
    /// The core did what the worker's release does not expect; the session cannot go on.
    Broken(&'static str),
}

/// What happened to an outgoing message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageSent {
    Yes,
    /// The client has opened no data channel (yet) and too much waits, or it does not read.
    Dropped,
}

/// What became of a datagram that the core has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// The core must not see it.
    Refused,
    /// Nobody knows who has sent it; or nothing came of it.
    Unknown,
    /// The connected client has sent it, and it has not come before.
    Authentic,
}

pub(crate) struct Peer {
    pc: Box<RTCPeerConnection>,
    base: LocalAddresses,
    keying: Keying,
    rtcp: RtcpInbox,
    remote_candidates: usize,
    selected: bool,
    connected: bool,
    held: Option<(SocketAddr, Vec<u8>)>,
    early: Vec<(SocketAddr, Vec<u8>)>,
    channels: Vec<RTCDataChannelId>,
    waiting: VecDeque<String>,
    events: VecDeque<PeerEvent>,
    /// Where the core sends DTLS: the selected pair's remote address.
    dtls_remote: Option<SocketAddr>,
    ticked: Instant,
    /// The client is given up then, unless it answers.
    lost_at: Option<Instant>,
    /// When DTLS or SCTP last moved.
    active: Instant,
    gate: Gate,
    /// What was said last in the handshake.
    flight: Flight,
    /// Something was asked of the core since it was last emptied. Each look into it sweeps all of its layers, so it is
    /// left alone while only RTP flows.
    dirty: bool,
    /// The core's next timer, until something is asked of it again.
    timer: Option<Option<Instant>>,
}

impl Peer {
    pub(crate) fn new(answered: Answered, now: Instant) -> Self {
        Peer {
            pc: answered.pc,
            base: answered.base,
            keying: answered.keying,
            rtcp: answered.rtcp,
            remote_candidates: answered.remote_candidates,
            selected: false,
            connected: false,
            held: None,
            early: Vec::new(),
            channels: Vec::new(),
            waiting: VecDeque::new(),
            events: VecDeque::new(),
            dtls_remote: None,
            ticked: now,
            lost_at: None,
            active: now,
            gate: Gate::default(),
            flight: Flight::default(),
            dirty: true,
            timer: None,
        }
    }

    pub(crate) fn rtcp(&self) -> &RtcpInbox {
        &self.rtcp
    }

    /// A candidate that the client trickled. False if there are too many or the core cannot use it.
    pub(crate) fn add_candidate(&mut self, candidate: &RemoteCandidate) -> bool {
        self.touch();
        if self.remote_candidates == MAX_REMOTE_CANDIDATES || !add_remote(&mut self.pc, &self.base, candidate) {
            return false;
        }
        self.remote_candidates += 1;
        true
    }

    /// A STUN message whose integrity was verified; `nominates` if it is a request with USE-CANDIDATE.
    pub(crate) fn read_stun(&mut self, now: Instant, from: SocketAddr, data: &[u8], kind: StunKind) {
        self.read(now, from, data);
        match kind {
            StunKind::NominatingRequest if !self.selected => self.held = Some((from, data.to_vec())),
            StunKind::Success => {
                if let Some((from, request)) = self.held.take() {
                    self.read(now, from, &request);
                }
            }
            StunKind::NominatingRequest | StunKind::Other => {}
        }
    }

    /// DTLS records.
    pub(crate) fn read_dtls(&mut self, now: Instant, from: SocketAddr, data: &[u8]) -> Read {
        if !self.gate.admit(data, if self.connected { Phase::Connected } else { Phase::Handshake }) {
            return Read::Refused;
        }
        self.active = now;
        let before = self.keying.opened();
        if !self.connected {
            self.flight.heard(data);
        }
        if self.selected {
            self.read(now, from, data);
        } else if self.early.len() < MAX_EARLY {
            self.early.push((from, data.to_vec()));
        }
        // Until the handshake is over, the one that the keys were agreed upon with may be anybody.
        if self.connected && self.keying.opened() > before { Read::Authentic } else { Read::Unknown }
    }

    /// An SRTCP packet.
    pub(crate) fn read_rtcp(&mut self, now: Instant, from: SocketAddr, data: &[u8]) -> Read {
        let before = self.rtcp.received();
        self.read(now, from, data);
        if self.rtcp.received() > before { Read::Authentic } else { Read::Unknown }
    }

    fn read(&mut self, now: Instant, peer_addr: SocketAddr, data: &[u8]) {
        let Some(local_addr) = self.base.for_peer(peer_addr) else { return };
        self.touch();
        let transport =
            TransportContext { local_addr, peer_addr, ecn: None, transport_protocol: TransportProtocol::UDP };
        // A datagram can be wrong without the session being so.
        drop(self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(data) }));
    }

    fn touch(&mut self) {
        self.dirty = true;
        self.timer = None;
    }

    /// The client has answered otherwise: it is not given up yet.
    pub(crate) fn reprieve(&mut self, now: Instant) {
        self.lost_at = Some(now + LOST_AFTER);
    }

    /// Runs the core's timers if they are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.lost_at.is_some_and(|at| at <= now) {
            self.lost_at = None;
            self.events.push_back(PeerEvent::Lost);
        }
        if self.pc.poll_timeout().is_some_and(|t| t <= now) {
            self.touch();
            self.ticked = now;
            if self.pc.handle_timeout(now).is_err() {
                // DTLS has retransmitted as often as it may, or ICE cannot go on.
                self.events.push_back(PeerEvent::Lost);
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let core = match self.timer {
            Some(timer) => timer,
            None => *self.timer.insert(self.pc.poll_timeout()),
        };
        let mut at = core?;
        // The agent's fixed tick hides the timers of DTLS and SCTP, so it is overruled only when those are at rest.
        if self.connected && at == self.ticked + ICE_TICK && self.active + SETTLED < now {
            at = self.ticked + RELAXED_TICK;
        }
        Some(self.lost_at.map_or(at, |lost| lost.min(at)).max(now + MIN_TICK))
    }

    /// What happened since the last call. To be called after any other, until it returns `None`.
    pub(crate) fn poll_event(&mut self, now: Instant) -> Option<PeerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if !self.dirty {
                return None;
            }
            if let Some(event) = self.pc.poll_event() {
                self.core_event(event, now);
                continue;
            }
            match self.pc.poll_read() {
                Some(TaggedRTCMessage { message: RTCMessage::DataChannelMessage(id, message), .. }) => {
                    self.active = now;
                    if !self.channels.contains(&id) {
                        self.channels.push(id);
                    }
                    let text = String::from_utf8_lossy(&message.data).into_owned();
                    return Some(PeerEvent::Message { text, channel: id });
                }
                Some(_) => {}
                None => return None,
            }
        }
    }

    fn core_event(&mut self, event: RTCPeerConnectionEvent, now: Instant) {
        use RTCPeerConnectionEvent as Core;
        match event {
            Core::OnIceConnectionStateChangeEvent(RTCIceConnectionState::Connected) if !self.selected => {
                self.selected = true;
                for (from, data) in std::mem::take(&mut self.early) {
                    self.read(now, from, &data);
                }
            }
            Core::OnConnectionStateChangeEvent(RTCPeerConnectionState::Connected) if !self.connected => {
                self.connected = true;
                self.flight = Flight::default();
                let event = self.keys(now).unwrap_or_else(PeerEvent::Broken);
                self.events.push_back(event);
            }
            Core::OnIceConnectionStateChangeEvent(RTCIceConnectionState::Disconnected) => {
                self.lost_at = Some(now + LOST_AFTER);
            }
            Core::OnIceConnectionStateChangeEvent(RTCIceConnectionState::Connected) => self.lost_at = None,
            Core::OnConnectionStateChangeEvent(RTCPeerConnectionState::Failed) => {
                self.events.push_back(PeerEvent::Lost);
            }
            Core::OnConnectionStateChangeEvent(RTCPeerConnectionState::Closed) => {
                self.events.push_back(PeerEvent::ClosedByPeer);
            }
            Core::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => {
                self.active = now;
                if !self.channels.contains(&id) {
                    self.channels.push(id);
                }
                for text in std::mem::take(&mut self.waiting) {
                    self.send_text(now, text);
                }
                self.events.push_back(PeerEvent::ChannelOpen);
            }
            Core::OnDataChannel(RTCDataChannelEvent::OnClose(id)) => {
                self.active = now;
                self.channels.retain(|c| *c != id);
                // A client that closes one channel of its own accord may go on; one whose DTLS is closed may not.
                if self.is_dtls_closed() {
                    self.events.push_back(PeerEvent::ClosedByPeer);
                }
            }
            _ => {}
        }
    }

    /// Whether the peer has said close_notify. The core's statistics do not know; its transport does, and every way to
    /// it leads through something that was negotiated.
    pub(crate) fn is_dtls_closed(&mut self) -> bool {
        let closed = |state| state == RTCDtlsTransportState::Closed;
        if let Some(sctp) = self.pc.sctp() {
            return closed(sctp.transport().state());
        }
        let (sender, receiver) = (self.pc.get_senders().next(), self.pc.get_receivers().next());
        if let Some(state) = sender.and_then(|id| Some(self.pc.rtp_sender(id)?.transport()?.state())) {
            return closed(state);
        }
        receiver.and_then(|id| Some(self.pc.rtp_receiver(id)?.transport()?.state())).is_some_and(closed)
    }

    fn keys(&mut self, now: Instant) -> Result<PeerEvent, &'static str> {
        let stats = self.pc.get_stats(now, StatsSelector::None);
        let transport = stats.transport().ok_or("no transport statistics")?;
        // To the core a DTLS transport that was closed counts as connected, although it never was.
        if transport.srtp_cipher.is_empty() {
            return Ok(PeerEvent::ClosedByPeer);
        }
        let profile = Profile::from_name(&transport.srtp_cipher).ok_or("DTLS negotiated an SRTP profile of its own")?;
        let role = if transport.dtls_role == RTCDtlsRole::Client { Role::Client } else { Role::Server };
        let material = self.keying.take().ok_or("the DTLS exporter did not pass through the provider")?;
        let remote = self.dtls_remote.ok_or("DTLS completed without sending")?;
        let keys = Keys::from_exporter(material.as_ref(), profile, role).map_err(|_| "too little keying material")?;
        Ok(PeerEvent::Connected { keys, remote })
    }

    /// Sends text on the client's data channel, or keeps it until there is one.
    pub(crate) fn send_text(&mut self, now: Instant, text: String) -> MessageSent {
        let Some(id) = self.channels.first().copied() else {
            if self.waiting.len() == MAX_WAITING {
                return MessageSent::Dropped;
            }
            self.waiting.push_back(text);
            return MessageSent::Yes;
        };
        self.send_on(now, id, text)
    }

    /// Sends text on this channel.
    pub(crate) fn send_on(&mut self, now: Instant, id: RTCDataChannelId, text: String) -> MessageSent {
        self.active = now;
        self.touch();
        match self.pc.data_channel(id) {
            Some(mut channel) if channel.outstanding_bytes() + text.len() <= MAX_OUTSTANDING => {
                if channel.send_text(now, text).is_ok() { MessageSent::Yes } else { MessageSent::Dropped }
            }
            _ => MessageSent::Dropped,
        }
    }

    /// Sends RTCP, which the core protects with keys and indices of its own.
    pub(crate) fn send_rtcp(&mut self, now: Instant, packets: Packets) {
        self.touch();
        let message = RTCMessage::RtcpPacket(String::new(), packets);
        // Fails only when the connection is closed, of which there is an event.
        drop(self.pc.handle_write(TaggedRTCMessage { now, message }));
    }

    /// The next datagram that the core wants sent, and to whom.
    pub(crate) fn poll_write(&mut self, now: Instant) -> Option<(SocketAddr, BytesMut)> {
        if !self.dirty {
            return None;
        }
        loop {
            let Some(message) = self.pc.poll_write() else {
                if let Some(again) = self.flight.poll() {
                    return Some(again);
                }
                self.dirty = false;
                return None;
            };
            let to = message.transport.peer_addr;
            match message.message.first() {
                Some(20..64) => {
                    self.dtls_remote = Some(to);
                    self.active = now;
                    if !self.connected && self.flight.sent(to, &message.message) == Sent::Repetition {
                        self.flight.repeat();
                        continue;
                    }
                }
                // Only the loop may send RTP: a second sender would use the key with indices of its own. The
                // interceptor lets none through, so this is the second lock on the same door.
                Some(128..192) if message.message.get(1).is_some_and(|b| !(192..224).contains(b)) => continue,
                _ => {}
            }
            return Some((to, message.message));
        }
    }

    /// Tells the client (SCTP abort, close_notify) and stops; what is to be sent is in [`Self::poll_write`].
    pub(crate) fn close(&mut self) {
        self.touch();
        // An error means that it was closed already.
        drop(self.pc.close());
    }
}

/// What kind of STUN message the agent is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StunKind {
    NominatingRequest,
    Success,
    Other,
}
