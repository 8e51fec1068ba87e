//! An untouched `rtc` peer connection as client, in virtual time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::interceptor::{Interceptor, Packet, Registry, Slot, StreamInfo, TaggedPacket};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::configure_rtcp_reports;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_PCMU, MIME_TYPE_VP8, MediaEngine,
};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::RTCIceCandidateInit;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp::Header;
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

/// Packets of 20 ms.
pub(crate) const FRAME: Duration = Duration::from_millis(20);
/// Pictures of one packet each.
const PICTURE: Duration = Duration::from_millis(40);
const AUDIO_TYPE: u8 = 111;
const VIDEO_TYPE: u8 = 96;
const AUDIO_SSRC: u32 = 77;
pub(crate) const VIDEO_SSRC: u32 = 78;

/// What a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offering {
    /// To speak and to hear.
    Audio,
    /// Only to hear.
    Listening,
    /// The same in G.711, where every sample that is heard is one that was sent.
    ListeningPcmu,
    /// Audio and pictures, both ways.
    Vp8,
    H264,
}

/// What came back: the echoed packet's number and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    pub(crate) number: u32,
    pub(crate) at: Instant,
}

/// A picture that came back: its number, and the SSRC that it came with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picture {
    pub(crate) number: u32,
    pub(crate) ssrc: u32,
}

/// Requests for a key frame, by the SSRC that is asked.
type KeyFrameRequests = Arc<Mutex<Vec<u32>>>;

pub(crate) struct Client {
    pub(crate) pc: RTCPeerConnection,
    audio: Option<RTCRtpSenderId>,
    video: Option<RTCRtpSenderId>,
    /// What its answers to checks are sealed with.
    pub(crate) pwd: String,
    pub(crate) ufrag: String,
    /// The address it knows of itself.
    pub(crate) inside: SocketAddr,
    /// The address that the network sees.
    pub(crate) outside: SocketAddr,
    pub(crate) connected_at: Option<Instant>,
    pub(crate) state: RTCPeerConnectionState,
    next_frame: Option<Instant>,
    number: u32,
    next_picture: Option<Instant>,
    picture: u32,
    pub(crate) sent_at: Vec<Instant>,
    pub(crate) echoes: Vec<Echo>,
    pub(crate) payloads: Vec<(u32, Bytes)>,
    /// When each of them came.
    pub(crate) heard_at: Vec<Instant>,
    pub(crate) pictures: Vec<Picture>,
    asked: KeyFrameRequests,
    pub(crate) messages: Vec<String>,
    channel: Option<rtc::data_channel::RTCDataChannelId>,
    /// Payloads to send instead of numbered ones.
    pub(crate) script: Option<Vec<Vec<u8>>>,
    pub(crate) alive: bool,
    /// Sends neither RTP nor RTCP.
    pub(crate) mute: bool,
}

fn codec(mime_type: &str, clock_rate: u32, channels: u16, fmtp: &str) -> RTCRtpCodec {
    let feedback = RTCPFeedback { typ: "nack".to_owned(), parameter: "pli".to_owned() };
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: fmtp.to_owned(),
        rtcp_feedback: if channels == 0 { vec![feedback] } else { vec![] },
    }
}

fn opus() -> RTCRtpCodec {
    codec(MIME_TYPE_OPUS, 48_000, 2, "minptime=10;useinbandfec=1")
}

fn track(id: &str, kind: RtpCodecKind, ssrc: u32, codec: RTCRtpCodec) -> MediaStreamTrack {
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec,
        ..Default::default()
    };
    MediaStreamTrack::new("s".to_owned(), id.to_owned(), id.to_owned(), kind, vec![encoding])
}

/// The value of an attribute of an SDP.
fn attribute(sdp: &str, name: &str) -> String {
    sdp.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')).unwrap().to_owned()
}

impl Client {
    /// A client at `inside` that speaks and hears, and its offer.
    pub(crate) fn new(inside: SocketAddr, now: Instant) -> (Self, String) {
        Self::offering(Offering::Audio, inside, now)
    }

    /// A client at `inside`, and its offer.
    pub(crate) fn offering(offering: Offering, inside: SocketAddr, now: Instant) -> (Self, String) {
        let mut engine = MediaEngine::default();
        let audio = if offering == Offering::ListeningPcmu {
            RTCRtpCodecParameters { rtp_codec: codec(MIME_TYPE_PCMU, 8_000, 1, ""), payload_type: 0 }
        } else {
            RTCRtpCodecParameters { rtp_codec: opus(), payload_type: AUDIO_TYPE }
        };
        engine.register_codec(audio, RtpCodecKind::Audio).unwrap();
        let pictures = match offering {
            Offering::Audio | Offering::Listening | Offering::ListeningPcmu => None,
            Offering::Vp8 => Some(codec(MIME_TYPE_VP8, 90_000, 0, "")),
            Offering::H264 => {
                let fmtp = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
                Some(codec(MIME_TYPE_H264, 90_000, 0, fmtp))
            }
        };
        if let Some(rtp_codec) = pictures.clone() {
            let video = RTCRtpCodecParameters { rtp_codec, payload_type: VIDEO_TYPE };
            engine.register_codec(video, RtpCodecKind::Video).unwrap();
        }
        let settings =
            SettingEngineBuilder::new().with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled).build();
        let asked = KeyFrameRequests::default();
        let ear = Ear { asked: asked.clone(), reads: VecDeque::new(), writes: VecDeque::new() };
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_media_engine(engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(configure_rtcp_reports(Registry::new()).with(Slot::CongestionControl, ear))
            .build(now)
            .unwrap();
        let audio = if matches!(offering, Offering::Listening | Offering::ListeningPcmu) {
            pc.add_transceiver_from_kind(RtpCodecKind::Audio, None).unwrap();
            None
        } else {
            Some(pc.add_track(track("a", RtpCodecKind::Audio, AUDIO_SSRC, opus())).unwrap())
        };
        let video = pictures.map(|codec| pc.add_track(track("v", RtpCodecKind::Video, VIDEO_SSRC, codec)).unwrap());
        let channel = pc.create_data_channel("text", None).unwrap().id();
        let candidate = format!("candidate:1 1 udp 2130706431 {} {} typ host", inside.ip(), inside.port());
        pc.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() }).unwrap();
        let offer = pc.create_offer(None).unwrap();
        pc.set_local_description(now, offer).unwrap();
        let sdp = pc.local_description().unwrap().sdp;
        let client = Client {
            pc,
            audio,
            video,
            pwd: attribute(&sdp, "ice-pwd"),
            ufrag: attribute(&sdp, "ice-ufrag"),
            inside,
            outside: inside,
            connected_at: None,
            state: RTCPeerConnectionState::New,
            next_frame: None,
            number: 0,
            next_picture: None,
            picture: 0,
            sent_at: vec![],
            echoes: vec![],
            payloads: vec![],
            heard_at: vec![],
            pictures: vec![],
            asked,
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
                        self.next_frame = self.audio.map(|_| now);
                        self.next_picture = self.video.map(|_| now);
                    }
                }
                RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnClose(_)) => self.channel = None,
                _ => {}
            }
        }
        while let Some(message) = self.pc.poll_read() {
            match message.message {
                RTCMessage::RtpPacket(_, packet) if packet.header.payload_type == VIDEO_TYPE => {
                    let number = u32::from_be_bytes(packet.payload[..4].try_into().unwrap());
                    self.pictures.push(Picture { number, ssrc: packet.header.ssrc });
                }
                RTCMessage::RtpPacket(_, packet) => {
                    if let Some(n) = packet.payload.get(..4) {
                        let number = u32::from_be_bytes(n.try_into().unwrap());
                        self.echoes.push(Echo { number, at: now });
                    }
                    self.heard_at.push(now);
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
            let header = Header {
                version: 2,
                payload_type: AUDIO_TYPE,
                // Rolls over soon.
                sequence_number: (65_500 + self.number) as u16,
                timestamp: self.number.wrapping_mul(960),
                ssrc: AUDIO_SSRC,
                ..Default::default()
            };
            self.number += 1;
            self.sent_at.push(now);
            self.write(self.audio, header, payload, now);
        }
        while let Some(at) = self.next_picture.filter(|at| *at <= now) {
            self.next_picture = Some(at + PICTURE);
            let payload = [&self.picture.to_be_bytes()[..], &[0x66; 900]].concat();
            let header = Header {
                version: 2,
                payload_type: VIDEO_TYPE,
                sequence_number: self.picture as u16,
                timestamp: self.picture.wrapping_mul(3_600),
                ssrc: VIDEO_SSRC,
                ..Default::default()
            };
            self.picture += 1;
            self.write(self.video, header, payload, now);
        }
        while let Some(m) = self.pc.poll_write() {
            let media = m.message.first().is_some_and(|first| (128..192).contains(first));
            if !(self.mute && media) {
                send(m.transport.peer_addr, &m.message);
            }
        }
    }

    fn write(&mut self, sender: Option<RTCRtpSenderId>, header: Header, payload: Vec<u8>, now: Instant) {
        let packet = rtc::rtp::Packet { header, payload: Bytes::from(payload) };
        self.pc.rtp_sender(sender.unwrap()).unwrap().write_rtp(now, packet).unwrap();
    }

    /// Asks the source `media` for a key frame.
    pub(crate) fn ask_key_frame(&mut self, media: u32, now: Instant) {
        let packets = streamfleet_rtp::rtcp::pli(VIDEO_SSRC, media);
        let message = RTCMessage::RtcpPacket(String::new(), packets);
        self.pc.handle_write(TaggedRTCMessage { now, message }).unwrap();
    }

    /// The sources that the worker has asked for key frames.
    pub(crate) fn key_frames_asked(&self) -> Vec<u32> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        [timer, self.next_frame, self.next_picture].into_iter().flatten().min()
    }
}

/// Hears requests for key frames, which the core keeps to itself, and lets everything pass.
struct Ear {
    asked: KeyFrameRequests,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Ear {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = rtc::shared::error::Error;
    type Time = Instant;

    fn handle_read(&mut self, tagged: TaggedPacket) -> Result<(), Self::Error> {
        if let Packet::Rtcp(packets) = &tagged.message.packet {
            let requests = packets.iter().filter_map(|p| p.as_any().downcast_ref::<PictureLossIndication>());
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.extend(requests.map(|request| request.media_ssrc));
        }
        self.reads.push_back(tagged);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, tagged: TaggedPacket) -> Result<(), Self::Error> {
        self.writes.push_back(tagged);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }
}

impl Interceptor for Ear {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
