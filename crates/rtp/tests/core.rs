//! Past the core, against the core: a peer connection whose RTP this crate opens and seals, and an untouched one, in
//! virtual time. This has to pass for every version of the core, because [`KeyTap`] relies on how it makes its keys.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::BytesMut;
use rtc::crypto::{SignatureScheme, default_provider};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{ReceiverReportBuilder, Registry, SenderReportBuilder, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::certificate::{CertificateParams, RTCCertificate};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::RTCPeerConnectionEvent;
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::statistics::StatsSelector;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};
use streamfleet_rtp::rtcp::{
    Event, Feedback, Reception, RtcpInbox, RtcpTap, Transmission, WallClock, bye, compound, read,
};
use streamfleet_rtp::srtp::Role;
use streamfleet_rtp::{Extensions, KeyTap, Keying, Keys, Outgoing, Profile, Rx, Tx};

const RATE: u32 = 48_000;
const PT: u8 = 111;
const CLIENT_SSRC: u32 = 0x1111_1111;
const OUR_SSRC: u32 = 0x2222_2222;
/// One way.
const DELAY: Duration = Duration::from_millis(15);

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: RATE,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: vec![],
    }
}

struct Peer {
    pc: RTCPeerConnection,
    sender: RTCRtpSenderId,
    address: SocketAddr,
    connected: bool,
    messages: Vec<RTCMessage>,
}

impl Peer {
    fn new(now: Instant, port: u16, ssrc: u32, settings: SettingEngineBuilder, interceptors: Registry) -> Self {
        let provider = default_provider().unwrap();
        let parameters = CertificateParams::new(vec!["x".to_owned()]).unwrap();
        let scheme = SignatureScheme::EcdsaP256Sha256;
        let certificate = RTCCertificate::generate(provider.crypto(), scheme, parameters).unwrap();
        let mut media = MediaEngine::default();
        let codec = RTCRtpCodecParameters { rtp_codec: opus(), payload_type: PT };
        media.register_codec(codec, RtpCodecKind::Audio).unwrap();
        let settings = settings.with_multicast_dns_mode(MulticastDnsMode::Disabled).build();
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().with_certificates(vec![certificate]).build())
            .with_media_engine(media)
            .with_setting_engine(settings)
            .with_interceptor_registry(interceptors)
            .build(now)
            .unwrap();
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: opus(),
            ..Default::default()
        };
        let kind = RtpCodecKind::Audio;
        let track = MediaStreamTrack::new("s".into(), "a".into(), "a".into(), kind, vec![encoding]);
        let sender = pc.add_track(track).unwrap();
        let address = SocketAddr::from(([192, 0, 2, 1], port));
        Self { pc, sender, address, connected: false, messages: vec![] }
    }

    fn add_candidate(&mut self) {
        let (ip, port) = (self.address.ip(), self.address.port());
        let candidate = format!("candidate:1 1 udp 2130706431 {ip} {port} typ host");
        self.pc.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() }).unwrap();
    }

    fn read(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: self.address,
            peer_addr: from,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        // Errors are the core's verdict on a datagram, of which media decides in the end.
        drop(self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) }));
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(event) = self.pc.poll_event() {
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                self.connected = state == RTCPeerConnectionState::Connected;
            }
        }
        while let Some(tagged) = self.pc.poll_read() {
            self.messages.push(tagged.message);
        }
    }
}

/// Both peers and the network between them.
struct World {
    now: Instant,
    clock: WallClock,
    client: Peer,
    server: Peer,
    keying: Keying,
    inbox: RtcpInbox,
    /// When, to whom, what; in order, because the delay is constant.
    network: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    /// RTP that reached the server.
    media: Vec<Vec<u8>>,
}

impl World {
    fn new(profiles: Vec<SrtpProtectionProfile>) -> Self {
        let now = Instant::now();
        let interceptors = Registry::new()
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().with_interval(Duration::from_secs(1)).build())
            .with(Slot::SenderReport, SenderReportBuilder::new().with_interval(Duration::from_secs(1)).build());
        let mut client = Peer::new(now, 1_000, CLIENT_SSRC, SettingEngineBuilder::new(), interceptors);
        let (provider, keying) = KeyTap::new(default_provider().unwrap());
        let (tap, inbox) = RtcpTap::new();
        let settings = SettingEngineBuilder::new()
            .with_crypto_provider(provider)
            .with_srtp_protection_profiles(profiles)
            .with_answering_dtls_role(RTCDtlsRole::Server);
        let registry = Registry::new().with(Slot::ReceiverReport, tap);
        let mut server = Peer::new(now, 2_000, OUR_SSRC, settings, registry);

        client.add_candidate();
        let offer = client.pc.create_offer(None).unwrap();
        client.pc.set_local_description(now, offer).unwrap();
        let offer = client.pc.local_description().unwrap().sdp;
        server.pc.set_remote_description(now, RTCSessionDescription::offer(offer).unwrap()).unwrap();
        server.add_candidate();
        let answer = server.pc.create_answer(None).unwrap();
        server.pc.set_local_description(now, answer).unwrap();
        let answer = server.pc.local_description().unwrap().sdp;
        client.pc.set_remote_description(now, RTCSessionDescription::answer(answer).unwrap()).unwrap();
        let clock = WallClock::new(now, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        Self { now, clock, client, server, keying, inbox, network: VecDeque::new(), media: vec![] }
    }

    fn flush(&mut self) {
        let at = self.now + DELAY;
        let (client, server) = (self.client.address, self.server.address);
        for (peer, other) in [(&mut self.client, server), (&mut self.server, client)] {
            while let Some(tagged) = peer.pc.poll_write() {
                assert_eq!(tagged.transport.peer_addr, other);
                self.network.push_back((at, other, tagged.message.to_vec()));
            }
        }
    }

    fn send(&mut self, datagram: Vec<u8>) {
        self.network.push_back((self.now + DELAY, self.client.address, datagram));
    }

    /// Runs for `time`.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.flush();
            let timers = [self.client.pc.poll_timeout(), self.server.pc.poll_timeout()];
            let arrival = self.network.front().map(|(at, ..)| *at);
            // An expired timer must not stop the time.
            let timer = timers.into_iter().flatten().min().map(|at| at.max(self.now + Duration::from_millis(1)));
            let next = arrival.into_iter().chain(timer).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
            while let Some((at, to, datagram)) = self.network.pop_front_if(|(at, ..)| *at <= next) {
                debug_assert!(at <= self.now);
                self.deliver(to, &datagram);
            }
            for peer in [&mut self.client, &mut self.server] {
                if peer.pc.poll_timeout().is_some_and(|at| at <= self.now) {
                    peer.pc.handle_timeout(self.now).unwrap();
                }
                peer.poll();
            }
        }
    }

    fn deliver(&mut self, to: SocketAddr, datagram: &[u8]) {
        let is_rtp = datagram[0] >> 6 == 2 && !(192..224).contains(&datagram[1]);
        if to == self.client.address {
            self.client.read(self.now, self.server.address, datagram);
        } else if is_rtp {
            self.media.push(datagram.to_vec());
        } else {
            self.server.read(self.now, self.client.address, datagram);
        }
    }

    fn connect(&mut self) {
        for _ in 0..100 {
            if self.client.connected && self.server.connected {
                return;
            }
            self.run(Duration::from_millis(100));
        }
        panic!("not connected: client {}, server {}", self.client.connected, self.server.connected);
    }

    fn keys(&mut self) -> Keys {
        let stats = self.server.pc.get_stats(self.now, StatsSelector::None);
        let transport = stats.transport().unwrap();
        let role = match transport.dtls_role {
            RTCDtlsRole::Client => Role::Client,
            _ => Role::Server,
        };
        let profile = Profile::from_name(&transport.srtp_cipher).unwrap();
        Keys::from_exporter(self.keying.take().unwrap().as_ref(), profile, role).unwrap()
    }

    /// What the peer said since the last call.
    fn heard(&self) -> Vec<(Instant, String, Option<Feedback>, Option<u64>)> {
        let mut heard = vec![];
        while let Some((at, packets)) = self.inbox.pop() {
            read(&packets, at, &self.clock, |event| {
                let what = match &event {
                    Event::Feedback { ssrc, feedback } => (format!("feedback {ssrc:x}"), Some(*feedback), None),
                    Event::SenderReport { ssrc, ntp } => (format!("sender {ssrc:x}"), None, Some(ntp.0)),
                    other => (format!("{other:?}"), None, None),
                };
                heard.push((at, what.0, what.1, what.2));
            });
        }
        heard
    }

    fn write_rtcp(&mut self, packets: Vec<Box<dyn rtc::rtcp::Packet>>) {
        let message = RTCMessage::RtcpPacket(String::new(), packets);
        self.server.pc.handle_write(TaggedRTCMessage { now: self.now, message }).unwrap();
    }
}

fn rtp(index: u64, payload: &'static [u8]) -> rtc::rtp::Packet {
    rtc::rtp::Packet {
        header: rtc::rtp::Header {
            version: 2,
            payload_type: PT,
            sequence_number: index as u16,
            timestamp: (index as u32).wrapping_mul(960),
            ssrc: CLIENT_SSRC,
            ..Default::default()
        },
        payload: bytes::Bytes::from_static(payload),
    }
}

fn check_echo(profiles: Vec<SrtpProtectionProfile>, expected: Profile) {
    let mut world = World::new(profiles);
    world.connect();
    let provider = default_provider().unwrap();
    let keys = world.keys();
    assert_eq!(keys.profile(), expected);
    assert!(world.keying.take().is_none());
    let (mut rx, mut tx) = (Rx::new(provider.crypto(), &keys).unwrap(), Tx::new(provider.crypto(), &keys).unwrap());
    let mut reception: Option<Reception> = None;
    let mut transmission = Transmission::new(OUR_SSRC, RATE);
    let start = world.now;

    // Eight seconds of packets from the client, over a wrap of the sequence number; of ours, every tenth is lost.
    for i in 0..400u64 {
        let sender = world.client.sender;
        let packet = rtp(0xFF00 + i, b"opus");
        world.client.pc.rtp_sender(sender).unwrap().write_rtp(world.now, packet).unwrap();
        world.run(Duration::from_millis(20));
        for mut octets in std::mem::take(&mut world.media) {
            let opened = rx.open(&mut octets).unwrap();
            assert_eq!(&octets[opened.payload.clone()], b"opus");
            assert_eq!((opened.header.ssrc, opened.header.payload_type), (CLIENT_SSRC, PT));
            reception.get_or_insert_with(|| Reception::new(CLIENT_SSRC, RATE, opened.index, world.now)).packet(
                opened.index,
                opened.header.timestamp,
                opened.payload.len(),
                world.now,
            );
            let index = opened.index;
            let mut out = vec![];
            let packet = Outgoing {
                ssrc: OUR_SSRC,
                index,
                marker: false,
                payload_type: PT,
                timestamp: opened.header.timestamp,
                extensions: Extensions::NONE,
                payload: &octets[opened.payload],
            };
            tx.seal(&mut out, &packet).unwrap();
            transmission.packet(opened.header.timestamp, 4, world.now);
            // The first packet of a stream tells the client's core what it is, so the loss begins later.
            if index.get() % 10 != 9 {
                world.send(out);
            }
        }
        if i % 50 == 49 {
            for (at, what, _, ntp) in world.heard() {
                if what.starts_with("sender") {
                    let ntp = streamfleet_rtp::rtcp::Ntp(ntp.unwrap());
                    reception.as_mut().unwrap().sender_report(ntp, at);
                }
            }
            let mut receptions: Vec<&mut Reception> = reception.iter_mut().collect();
            let report = compound("cname", &[&transmission], &mut receptions, world.now, &world.clock).unwrap();
            world.write_rtcp(report);
        }
    }

    let reception = reception.unwrap();
    assert_eq!((reception.packets(), reception.lost()), (400, 0));
    assert!(reception.jitter() < Duration::from_millis(2), "{:?}", reception.jitter());

    // The client's core took our RTP for the core's own.
    world.run(Duration::from_millis(1_100));
    let echoed: Vec<u16> = world
        .client
        .messages
        .iter()
        .filter_map(|message| match message {
            RTCMessage::RtpPacket(_, packet) => {
                assert_eq!((packet.header.ssrc, &packet.payload[..]), (OUR_SSRC, &b"opus"[..]));
                Some(packet.header.sequence_number)
            }
            _ => None,
        })
        .collect();
    assert_eq!(echoed.len(), 360, "of 400, a tenth lost");

    // And reported on it, with the delay of this network.
    let heard = world.heard();
    let (_, _, feedback, _) = heard.iter().find(|(_, what, ..)| *what == format!("feedback {OUR_SSRC:x}")).unwrap();
    let feedback = feedback.unwrap();
    let round_trip = feedback.round_trip.unwrap();
    assert!(round_trip.abs_diff(2 * DELAY) < Duration::from_millis(5), "{round_trip:?}");
    assert!((35..=40).contains(&feedback.total_lost), "{feedback:?}");
    assert!(feedback.jitter_at(RATE) < Duration::from_millis(2), "{feedback:?}");
    assert!(world.now - start > Duration::from_secs(8));

    // RTP written through the core must not leave: it would use indices of ours.
    let track = RTCMessage::RtpPacket(
        "a".into(),
        rtc::rtp::Packet { header: rtc::rtp::Header { ssrc: OUR_SSRC, ..rtp(1, b"").header }, ..rtp(1, b"leak") },
    );
    let before = world.client.messages.len();
    drop(world.server.pc.handle_write(TaggedRTCMessage { now: world.now, message: track }));
    world.run(Duration::from_millis(100));
    assert_eq!(world.client.messages.len(), before);
    assert_eq!(world.inbox.rtp_refused(), 1);

    world.write_rtcp(bye(&[OUR_SSRC]));
    world.run(Duration::from_millis(100));
    assert_eq!(world.inbox.overflowed(), 0);
}

#[test]
fn an_untouched_peer_is_echoed_with_aead_aes_128_gcm() {
    check_echo(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm], Profile::AeadAes128Gcm);
}

#[test]
fn an_untouched_peer_is_echoed_with_aes_cm() {
    check_echo(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80], Profile::Aes128CmSha1_80);
}

#[test]
fn rtcp_that_nobody_takes_is_bounded() {
    let mut world = World::new(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm]);
    world.connect();
    let now = world.now;
    for _ in 0..100 {
        let pli = streamfleet_rtp::rtcp::pli(CLIENT_SSRC, OUR_SSRC);
        let message = RTCMessage::RtcpPacket(String::new(), pli);
        world.client.pc.handle_write(TaggedRTCMessage { now, message }).unwrap();
    }
    world.run(Duration::from_millis(100));
    let heard = world.heard();
    assert_eq!(world.inbox.overflowed() as usize, 100 - heard.len());
    assert_eq!(heard.len(), 32);
    assert!(heard[0].1.contains("KeyFrame") && heard[0].1.contains("Pli"), "{heard:?}");
}
