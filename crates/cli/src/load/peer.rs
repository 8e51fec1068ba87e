//! One peer connection of a client: the core drives ICE, DTLS, SCTP and SRTCP, and sees no RTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::BytesMut;
use rtc::crypto::{RTCCryptoProvider, SignatureScheme};
use rtc::data_channel::RTCDataChannelId;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{Registry, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::certificate::{CertificateParams, RTCCertificate};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::{RTCIceConnectionState, RTCPeerConnectionState};
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::statistics::StatsSelector;
use streamfleet_net::demux::{Kind, classify};
use streamfleet_net::stun::{Class, Message};
use streamfleet_rtp::rtcp::{Packets, RtcpInbox, RtcpTap};
use streamfleet_rtp::srtp::Role;
use streamfleet_rtp::{Flight, KeyTap, Keying, Keys, Profile};

/// The payload type that sessions offer for Opus, and so the one that servers answer with.
pub(super) const PAYLOAD_TYPE: u8 = 111;
/// Opus' RTP clock, Hz (RFC 7587).
pub(super) const CLOCK_RATE: u32 = 48_000;

/// Datagrams of DTLS that are kept until ICE has selected a pair; the core drops what comes before.
const MAX_EARLY: usize = 8;
/// What the agent asks for, also while connected and its next check is seconds away ...
const ICE_TICK: Duration = Duration::from_millis(200);
/// ... and what it gets once DTLS and SCTP rest, so that a thousand idle agents do not cost what media costs.
const RELAXED_TICK: Duration = Duration::from_secs(1);
/// DTLS and SCTP rest when nothing of theirs has come or gone for so long.
const SETTLED: Duration = Duration::from_secs(3);

/// What all sessions have in common.
pub(super) struct Factory {
    certificate: RTCCertificate,
    provider: Arc<dyn RTCCryptoProvider>,
    profiles: Vec<SrtpProtectionProfile>,
}

impl Factory {
    /// Makes one DTLS identity for all: making a thousand would measure that.
    pub(super) fn new(profiles: &[Profile]) -> anyhow::Result<Self> {
        let provider = rtc::crypto::default_provider()?;
        let parameters = CertificateParams::new(vec!["streamfleet-load".to_owned()])?;
        let certificate = RTCCertificate::generate(provider.crypto(), SignatureScheme::EcdsaP256Sha256, parameters)?;
        let profile = |profile: &Profile| match profile {
            Profile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            Profile::Aes128CmSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        };
        Ok(Self { certificate, provider, profiles: profiles.iter().map(profile).collect() })
    }

    pub(super) fn provider(&self) -> &dyn RTCCryptoProvider {
        self.provider.as_ref()
    }

    /// A peer connection with one audio track, both ways, and the data channel without which FastRTC sends no sound; and
    /// its complete offer. `local` is where the server's packets will come.
    pub(super) fn offer(&self, local: SocketAddr, ssrc: u32, now: Instant) -> anyhow::Result<(Peer, String)> {
        let mut engine = MediaEngine::default();
        let codec = RTCRtpCodecParameters { rtp_codec: opus(), payload_type: PAYLOAD_TYPE };
        engine.register_codec(codec, RtpCodecKind::Audio)?;
        let (provider, keying) = KeyTap::new(Arc::clone(&self.provider));
        let (tap, rtcp) = RtcpTap::new();
        let settings = SettingEngineBuilder::new()
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_crypto_provider(provider)
            .with_srtp_protection_profiles(self.profiles.clone())
            .build();
        let configuration = RTCConfigurationBuilder::new().with_certificates(vec![self.certificate.clone()]).build();
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_configuration(configuration)
            .with_media_engine(engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(Registry::new().with(Slot::ReceiverReport, tap))
            .build(now)?;
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: opus(),
            ..Default::default()
        };
        let kind = RtpCodecKind::Audio;
        pc.add_track(MediaStreamTrack::new("load".into(), "audio".into(), "audio".into(), kind, vec![encoding]))?;
        pc.create_data_channel("text", None)?;
        let candidate = format!("candidate:1 1 udp 2130706431 {} {} typ host", local.ip(), local.port());
        pc.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() })?;
        let offer = pc.create_offer(None)?;
        pc.set_local_description(now, offer)?;
        let sdp = pc.local_description().context("the core made no offer")?.sdp;
        let peer = Peer {
            pc: Box::new(pc),
            local,
            keying,
            rtcp,
            early: Vec::new(),
            flight: Flight::default(),
            nomination: Nomination::Waiting,
            selected: false,
            connected: false,
            channel: None,
            dtls_remote: None,
            ticked: now,
            active: now,
        };
        Ok((peer, sdp))
    }
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: CLOCK_RATE,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: vec![],
    }
}

/// The agent nominates a pair only at its next tick, 200 ms after the check that found it to work; browsers do so at once.
/// So that setup times are the server's and not the agent's, that tick is brought forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nomination {
    /// No check was answered yet.
    Waiting,
    /// Done.
    Hastened,
}

/// What became of a peer.
#[derive(Debug)]
pub(super) enum PeerEvent {
    /// Media may flow, under these keys, to there.
    Connected { keys: Keys, remote: SocketAddr },
    /// The server says something on the data channel.
    Message(String),
    /// The connection failed or was closed.
    Lost,
    /// The core did what this program does not expect.
    Broken(&'static str),
}

/// A client's end of one connection.
pub(super) struct Peer {
    pc: Box<RTCPeerConnection>,
    local: SocketAddr,
    keying: Keying,
    rtcp: RtcpInbox,
    early: Vec<(SocketAddr, Vec<u8>)>,
    /// What was said last in the DTLS handshake.
    flight: Flight,
    nomination: Nomination,
    selected: bool,
    connected: bool,
    channel: Option<RTCDataChannelId>,
    /// Where the core sends DTLS: the selected pair's remote address.
    dtls_remote: Option<SocketAddr>,
    ticked: Instant,
    /// When DTLS or SCTP last moved.
    active: Instant,
}

impl Peer {
    pub(super) fn accept(&mut self, answer: String, now: Instant) -> anyhow::Result<()> {
        Ok(self.pc.set_remote_description(now, RTCSessionDescription::answer(answer)?)?)
    }

    pub(super) fn rtcp(&self) -> &RtcpInbox {
        &self.rtcp
    }

    /// Anything but RTP.
    pub(super) fn read(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        if classify(datagram) == Kind::Dtls {
            self.active = now;
            if !self.connected {
                self.flight.heard(datagram);
            }
            if !self.selected {
                if self.early.len() < MAX_EARLY {
                    self.early.push((from, datagram.to_vec()));
                }
                return;
            }
        }
        self.pass(from, datagram, now);
        let is_success = Message::parse(datagram).is_ok_and(|message| message.class() == Class::Success);
        if is_success && self.nomination == Nomination::Waiting {
            self.nomination = Nomination::Hastened;
            // To the agent it is time for its next round of checks, which is when it nominates. Its clock is right again
            // with the next call; nothing else of the core has begun to use one. Errors come back by then, too.
            drop(self.pc.handle_timeout(now + ICE_TICK));
        }
    }

    fn pass(&mut self, peer_addr: SocketAddr, datagram: &[u8], now: Instant) {
        let transport_protocol = TransportProtocol::UDP;
        let transport = TransportContext { local_addr: self.local, peer_addr, ecn: None, transport_protocol };
        // What the core refuses is the server's fault or a stranger's; a session is judged by what works.
        drop(self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) }));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<PeerEvent> {
        if self.pc.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        self.ticked = now;
        self.pc.handle_timeout(now).is_err().then_some(PeerEvent::Broken("timers failed"))
    }

    pub(super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let mut at = self.pc.poll_timeout()?;
        if self.connected && at == self.ticked + ICE_TICK && self.active + SETTLED < now {
            at = self.ticked + RELAXED_TICK;
        }
        // An expired timer must not spin.
        Some(at.max(now + Duration::from_millis(1)))
    }

    pub(super) fn poll_event(&mut self, now: Instant) -> Option<PeerEvent> {
        while let Some(event) = self.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnIceConnectionStateChangeEvent(RTCIceConnectionState::Connected)
                    if !self.selected =>
                {
                    self.selected = true;
                    // The core begins its DTLS handshake in a timer. An error is for the next timer to report.
                    drop(self.pc.handle_timeout(now));
                    for (from, datagram) in std::mem::take(&mut self.early) {
                        self.pass(from, &datagram, now);
                    }
                }
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => match state {
                    RTCPeerConnectionState::Connected if !self.connected => {
                        self.connected = true;
                        self.flight = Flight::default();
                        return Some(self.keys(now).unwrap_or_else(PeerEvent::Broken));
                    }
                    RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => return Some(PeerEvent::Lost),
                    _ => {}
                },
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => self.channel = Some(id),
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnClose(id)) if self.channel == Some(id) => {
                    return Some(PeerEvent::Lost);
                }
                _ => {}
            }
        }
        while let Some(TaggedRTCMessage { message, .. }) = self.pc.poll_read() {
            if let RTCMessage::DataChannelMessage(_, message) = message {
                self.active = now;
                return Some(PeerEvent::Message(String::from_utf8_lossy(&message.data).into_owned()));
            }
        }
        None
    }

    fn keys(&mut self, now: Instant) -> Result<PeerEvent, &'static str> {
        let stats = self.pc.get_stats(now, StatsSelector::None);
        let transport = stats.transport().ok_or("no transport statistics")?;
        // To the core a DTLS transport that was closed counts as connected, although it never was.
        if transport.srtp_cipher.is_empty() {
            return Ok(PeerEvent::Lost);
        }
        let profile = Profile::from_name(&transport.srtp_cipher).ok_or("an SRTP profile that was not offered")?;
        let role = if transport.dtls_role == RTCDtlsRole::Client { Role::Client } else { Role::Server };
        let material = self.keying.take().ok_or("the DTLS exporter did not pass through the provider")?;
        let keys = Keys::from_exporter(material.as_ref(), profile, role).map_err(|_| "too little keying material")?;
        let remote = self.dtls_remote.ok_or("DTLS completed without sending")?;
        Ok(PeerEvent::Connected { keys, remote })
    }

    pub(super) fn send_rtcp(&mut self, packets: Packets, now: Instant) {
        let message = RTCMessage::RtcpPacket(String::new(), packets);
        // Fails only on a closed connection, of which there is an event.
        drop(self.pc.handle_write(TaggedRTCMessage { now, message }));
    }

    pub(super) fn poll_write(&mut self, now: Instant) -> Option<(SocketAddr, BytesMut)> {
        let Some(message) = self.pc.poll_write() else { return self.flight.poll() };
        let to = message.transport.peer_addr;
        if classify(&message.message) == Kind::Dtls {
            (self.dtls_remote, self.active) = (Some(to), now);
            if !self.connected {
                self.flight.sent(to, &message.message);
            }
        }
        Some((to, message.message))
    }

    /// Says goodbye; what is to be sent is in [`Self::poll_write`].
    pub(super) fn close(&mut self) {
        // An error means that it was closed already.
        drop(self.pc.close());
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("local", &self.local).field("connected", &self.connected).finish_non_exhaustive()
    }
}
