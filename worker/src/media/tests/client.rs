//! An untouched `rtc` peer connection as client, in virtual time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::interceptor::Registry;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::configure_rtcp_reports;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MediaEngine};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

/// Packets of 20 ms.
pub(crate) const FRAME: Duration = Duration::from_millis(20);

/// What came back: the echoed packet's number and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    pub(crate) number: u32,
    pub(crate) at: Instant,
}

pub(crate) struct Client {
    pub(crate) pc: RTCPeerConnection,
    sender: RTCRtpSenderId,
    /// The address it knows of itself.
    pub(crate) inside: SocketAddr,
    /// The address that the network sees.
    pub(crate) outside: SocketAddr,
    pub(crate) connected_at: Option<Instant>,
    pub(crate) state: RTCPeerConnectionState,
    next_frame: Option<Instant>,
    number: u32,
    pub(crate) sent_at: Vec<Instant>,
    pub(crate) echoes: Vec<Echo>,
    pub(crate) payloads: Vec<(u32, Bytes)>,
    pub(crate) messages: Vec<String>,
    channel: Option<rtc::data_channel::RTCDataChannelId>,
    /// Payloads to send instead of numbered ones.
    pub(crate) script: Option<Vec<Vec<u8>>>,
    pub(crate) alive: bool,
    /// Sends neither RTP nor RTCP.
    pub(crate) mute: bool,
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: vec![],
    }
}

impl Client {
    /// A client at `inside`, and its offer.
    pub(crate) fn new(inside: SocketAddr, now: Instant) -> (Self, String) {
        let mut engine = MediaEngine::default();
        let codec = RTCRtpCodecParameters { rtp_codec: opus(), payload_type: 111 };
        engine.register_codec(codec, RtpCodecKind::Audio).unwrap();
        let settings =
            SettingEngineBuilder::new().with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled).build();
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
            .build(now)
            .unwrap();
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(77), ..Default::default() },
            codec: opus(),
            ..Default::default()
        };
        let track = MediaStreamTrack::new("s".into(), "a".into(), "a".into(), RtpCodecKind::Audio, vec![encoding]);
        let sender = pc.add_track(track).unwrap();
        let channel = pc.create_data_channel("text", None).unwrap().id();
        let candidate = format!("candidate:1 1 udp 2130706431 {} {} typ host", inside.ip(), inside.port());
        pc.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() }).unwrap();
        let offer = pc.create_offer(None).unwrap();
        pc.set_local_description(now, offer).unwrap();
        let sdp = pc.local_description().unwrap().sdp;
        let client = Client {
            pc,
            sender,
            inside,
            outside: inside,
            connected_at: None,
            state: RTCPeerConnectionState::New,
            next_frame: None,
            number: 0,
            sent_at: vec![],
            echoes: vec![],
            payloads: vec![],
            messages: vec![],
            channel: Some(channel),
            script: None,
            alive: true,
            mute: false,
        };
        (client, sdp)
    }

    pub(crate) fn accept(&mut self, answer: &str, now: Instant) {
        self.pc.set_remote_description(now, RTCSessionDescription::answer(answer.to_owned()).unwrap()).unwrap();
    }

    pub(crate) fn receive(&mut self, from: SocketAddr, data: &[u8], now: Instant) {
        let transport = TransportContext {
            local_addr: self.inside,
            peer_addr: from,
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        drop(self.pc.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(data) }));
    }

    /// Timers, media and events; what is to be sent goes to `send`.
    pub(crate) fn turn(&mut self, now: Instant, mut send: impl FnMut(SocketAddr, &[u8])) {
        if !self.alive {
            return;
        }
        if self.pc.poll_timeout().is_some_and(|at| at <= now) && self.pc.handle_timeout(now).is_err() {
            // Its DTLS has given up.
            self.alive = false;
            return;
        }
        while let Some(event) = self.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => {
                    self.state = state;
                    if state == RTCPeerConnectionState::Connected && self.connected_at.is_none() {
                        self.connected_at = Some(now);
                        self.next_frame = Some(now);
                    }
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnClose(_)) => self.channel = None,
                _ => {}
            }
        }
        while let Some(message) = self.pc.poll_read() {
            match message.message {
                RTCMessage::RtpPacket(_, packet) => {
                    if let Some(n) = packet.payload.get(..4) {
                        let number = u32::from_be_bytes(n.try_into().unwrap());
                        self.echoes.push(Echo { number, at: now });
                    }
                    self.payloads.push((packet.header.timestamp, packet.payload));
                }
                RTCMessage::DataChannelMessage(_, m) => {
                    self.messages.push(String::from_utf8_lossy(&m.data).into_owned());
                }
                _ => {}
            }
        }
        while let Some(at) = self.next_frame.filter(|at| *at <= now) {
            self.next_frame = Some(at + FRAME);
            let payload = match &self.script {
                Some(script) => script[self.number as usize % script.len()].clone(),
                None => [&self.number.to_be_bytes()[..], &[0x55; 60]].concat(),
            };
            let header = rtc::rtp::Header {
                version: 2,
                payload_type: 111,
                // Rolls over soon.
                sequence_number: (65_500 + self.number) as u16,
                timestamp: self.number.wrapping_mul(960),
                ssrc: 77,
                ..Default::default()
            };
            self.number += 1;
            self.sent_at.push(now);
            let packet = rtc::rtp::Packet { header, payload: Bytes::from(payload) };
            self.pc.rtp_sender(self.sender).unwrap().write_rtp(now, packet).unwrap();
        }
        while let Some(m) = self.pc.poll_write() {
            let media = m.message.first().is_some_and(|first| (128..192).contains(first));
            if !(self.mute && media) {
                send(m.transport.peer_addr, &m.message);
            }
        }
    }

    pub(crate) fn say(&mut self, text: &str, now: Instant) {
        let id = self.channel.unwrap();
        self.pc.data_channel(id).unwrap().send_text(now, text).unwrap();
    }

    pub(crate) fn next_at(&mut self, now: Instant) -> Option<Instant> {
        if !self.alive {
            return None;
        }
        let timer = self.pc.poll_timeout().map(|at| at.max(now + Duration::from_millis(1)));
        [timer, self.next_frame].into_iter().flatten().min()
    }
}
