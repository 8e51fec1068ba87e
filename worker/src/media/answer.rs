//! From an offer to an answer and a peer connection that waits for the client's packets.
//!
//! Nothing here touches a socket: the addresses that clients may send to are configuration, so an answer can be made on
//! any thread and handed to the loop that will own the session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::interceptor::{Registry, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::certificate::{CertificateParams, RTCCertificate};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_PCMA, MIME_TYPE_PCMU, MIME_TYPE_VP8, MediaEngine,
};
use rtc::peer_connection::configuration::setting_engine::{SctpMaxMessageSize, SettingEngineBuilder};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::RTCRtpTransceiverDirection;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use streamfleet_handler::{CodecName, TrackKind};
use streamfleet_rtp::keying::{KeyTap, Keying};
use streamfleet_rtp::rtcp::{RtcpInbox, RtcpTap};
use streamfleet_session::candidate::{ParsedCandidate, RemoteCandidate};

use super::sdp::{self, Direction, InvalidOffer, OfferedCodec, Section, SectionKind};

/// The longest data-channel message, either way, octets. Conversations send lines of JSON, not files; and the core keeps a
/// buffer of this size for every session.
pub(crate) const MAX_MESSAGE: u32 = 16 * 1024;
/// SCTP's receive window, octets: bounds what one client can make the worker hold.
const SCTP_RECEIVE_BUFFER: u32 = 256 * 1024;
/// Candidates taken from one offer. A check goes to each, so the number bounds what a hostile offer can have us send.
pub(crate) const MAX_REMOTE_CANDIDATES: usize = 16;
/// Without any answer for this long the agent calls the pair disconnected; the peer then gives the client up in its own
/// time ...
const ICE_DISCONNECTED: Duration = Duration::from_secs(5);
/// ... which is shorter than the agent's, since this is also how long it goes on checking before it has a pair: until
/// after the session's own limit for that.
const ICE_FAILED: Duration = Duration::from_secs(120);
const ICE_KEEPALIVE: Duration = Duration::from_secs(2);

/// What every peer connection of a process shares.
#[derive(Clone)]
pub struct PeerFactory {
    certificate: RTCCertificate,
    provider: Arc<dyn RTCCryptoProvider>,
    profiles: Vec<SrtpProtectionProfile>,
}

/// The DTLS identity could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the DTLS certificate could not be made: {0}")]
pub struct NoIdentity(String);

impl PeerFactory {
    /// Makes the DTLS certificate of this process (ECDSA P-256, self-signed: its fingerprint goes into each answer).
    ///
    /// # Errors
    /// The crypto provider failed.
    pub fn new() -> Result<Self, NoIdentity> {
        let provider = rtc::crypto::default_provider().map_err(|e| NoIdentity(e.to_string()))?;
        let parameters =
            CertificateParams::new(vec!["streamfleet".to_owned()]).map_err(|e| NoIdentity(e.to_string()))?;
        let certificate =
            RTCCertificate::generate(provider.crypto(), rtc::crypto::SignatureScheme::EcdsaP256Sha256, parameters)
                .map_err(|e| NoIdentity(e.to_string()))?;
        Ok(PeerFactory {
            certificate,
            provider,
            // What streamfleet-rtp opens and seals. The client's order decides between them.
            profiles: vec![
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
            ],
        })
    }

    /// Only this profile is offered to clients: for tests that need both.
    #[cfg(test)]
    pub(crate) fn with_profile(mut self, profile: SrtpProtectionProfile) -> Self {
        self.profiles = vec![profile];
        self
    }

    pub(crate) fn provider(&self) -> &Arc<dyn RTCCryptoProvider> {
        &self.provider
    }
}

/// RFC 8445 5.3: what the client's checks must carry.
#[derive(Clone)]
pub(crate) struct IceCredentials {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// What the handler of a session takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) audio: bool,
    pub(crate) video: bool,
}

/// One m-line after negotiation.
#[derive(Clone, Debug)]
pub(crate) struct NegotiatedTrack {
    pub(crate) kind: TrackKind,
    pub(crate) mid: String,
    pub(crate) codec: CodecName,
    pub(crate) payload_type: u8,
    /// The SSRC that the worker sends with.
    pub(crate) ssrc: u32,
    /// The client sends.
    pub(crate) receives: bool,
    /// The client listens.
    pub(crate) sends: bool,
}

/// A peer connection with its answer applied; it has sent nothing yet.
pub(crate) struct Answered {
    pub(crate) pc: Box<RTCPeerConnection>,
    pub(crate) sdp: String,
    pub(crate) local: IceCredentials,
    pub(crate) remote: IceCredentials,
    pub(crate) keying: Keying,
    pub(crate) rtcp: RtcpInbox,
    pub(crate) tracks: Vec<NegotiatedTrack>,
    pub(crate) base: LocalAddresses,
    pub(crate) remote_candidates: usize,
}

/// What the ICE agent takes for its own addresses: one advertised address of each family. All of them are the same
/// socket, so which of several a packet came to makes no difference to the agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalAddresses {
    pub(crate) v4: Option<SocketAddr>,
    pub(crate) v6: Option<SocketAddr>,
}

impl LocalAddresses {
    pub(crate) fn new(advertised: &[SocketAddr]) -> Self {
        LocalAddresses {
            v4: advertised.iter().copied().find(SocketAddr::is_ipv4),
            v6: advertised.iter().copied().find(SocketAddr::is_ipv6),
        }
    }

    /// The local address of packets to and from `peer`, if the family is served at all.
    pub(crate) fn for_peer(&self, peer: SocketAddr) -> Option<SocketAddr> {
        if peer.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Everything that an answer is made of.
pub(crate) struct AnswerRequest<'a> {
    pub(crate) offer: &'a str,
    pub(crate) credentials: IceCredentials,
    /// What clients are told to send to, best first: the UDP port is the owning loop's.
    pub(crate) advertised: &'a [SocketAddr],
    pub(crate) wants: Wants,
    /// Candidates that came before the offer.
    pub(crate) early: &'a [RemoteCandidate],
}

/// Answers an offer.
///
/// # Errors
/// The offer is malformed or has nothing that the handler could use.
pub(crate) fn answer(
    factory: &PeerFactory,
    request: AnswerRequest<'_>,
    now: Instant,
) -> Result<Answered, InvalidOffer> {
    let sections = sdp::sections(request.offer)?;
    check_transport(request.offer, &sections)?;
    let chosen = choose_tracks(&sections, request.wants)?;
    let refused = |e: rtc::shared::error::Error| InvalidOffer::Refused(e.to_string());

    let mut engine = MediaEngine::default();
    for (_, codec) in &chosen {
        engine.register_codec(codec_parameters(codec), kind_of(codec)).map_err(refused)?;
    }
    let (provider, keying) = KeyTap::new(factory.provider.clone());
    let (tap, rtcp) = RtcpTap::new();
    let settings = SettingEngineBuilder::new()
        .with_ice_credentials(request.credentials.ufrag.clone(), request.credentials.pwd.clone())
        .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
        // As DTLS server the worker waits for the client's first flight, which saves a retransmission when the client
        // is not yet ready for ours.
        .with_answering_dtls_role(RTCDtlsRole::Server)
        .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
        .with_crypto_provider(provider)
        .with_srtp_protection_profiles(factory.profiles.clone())
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(MAX_MESSAGE))
        .with_sctp_max_receive_buffer_size(SCTP_RECEIVE_BUFFER)
        .build();
    let mut pc = RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().with_certificates(vec![factory.certificate.clone()]).build())
        .with_media_engine(engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(Registry::new().with(Slot::ReceiverReport, tap))
        .build(now)
        .map_err(refused)?;

    let mut tracks = Vec::with_capacity(chosen.len());
    for (section, codec) in &chosen {
        // From the worker's side: what the client sends is received.
        let receives = matches!(section.direction, Direction::SendRecv | Direction::SendOnly);
        let sends = matches!(section.direction, Direction::SendRecv | Direction::RecvOnly);
        let kind = if kind_of(codec) == RtpCodecKind::Audio { TrackKind::Audio } else { TrackKind::Video };
        let ssrc = rand::random();
        if sends {
            // FastRTC's clients read `event.streams[0]`, so both tracks belong to one stream.
            let label = if kind == TrackKind::Audio { "audio" } else { "video" };
            let encoding = RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
                codec: rtc_codec(codec),
                ..Default::default()
            };
            let track = MediaStreamTrack::new(
                "streamfleet".to_owned(),
                label.to_owned(),
                label.to_owned(),
                kind_of(codec),
                vec![encoding],
            );
            pc.add_track(track).map_err(refused)?;
        }
        tracks.push(NegotiatedTrack {
            kind,
            mid: section.mid.clone(),
            codec: codec.name,
            payload_type: codec.payload_type,
            ssrc,
            receives,
            sends,
        });
    }

    let offer = RTCSessionDescription::offer(normalised(request.offer, &sections)).map_err(refused)?;
    pc.set_remote_description(now, offer).map_err(refused)?;
    // m-lines that nothing was chosen for are answered, but nothing flows on them.
    let ids: Vec<_> = pc.get_transceivers().collect();
    for id in ids {
        if let Some(mut t) = pc.rtp_transceiver(id)
            && !t.mid().as_deref().is_some_and(|mid| tracks.iter().any(|n| n.mid == mid))
        {
            t.set_direction(RTCRtpTransceiverDirection::Inactive);
        }
    }

    let base = LocalAddresses::new(request.advertised);
    for address in [base.v4, base.v6].into_iter().flatten() {
        let candidate = RTCIceCandidateInit { candidate: host_candidate(0, address), ..Default::default() };
        pc.add_local_candidate(candidate).map_err(refused)?;
    }
    let local = pc.create_answer(None).map_err(refused)?;
    pc.set_local_description(now, local).map_err(refused)?;
    let answer = pc.local_description().ok_or_else(|| InvalidOffer::Refused("no answer came about".to_owned()))?.sdp;

    // What the core cannot use (an m-line outside of BUNDLE) it rejects without a word, and of an offer that contradicts
    // itself it may have understood something else than was chosen here.
    let answered = sdp::sections(&answer)?;
    for track in &tracks {
        let Some(section) = answered.iter().find(|s| s.mid == track.mid && !s.rejected) else {
            return Err(InvalidOffer::Refused("an m-line with media is not in the BUNDLE group".to_owned()));
        };
        if section.codecs.iter().map(|c| c.payload_type).ne([track.payload_type]) {
            return Err(InvalidOffer::Refused("an m-line's codecs contradict each other".to_owned()));
        }
    }

    let remote = remote_credentials(request.offer)
        .ok_or_else(|| InvalidOffer::Refused("the offer has no ICE credentials".to_owned()))?;
    let mut remote_candidates = 0;
    for candidate in offered_candidates(request.offer).iter().chain(request.early) {
        if remote_candidates < MAX_REMOTE_CANDIDATES && add_remote(&mut pc, &base, candidate) {
            remote_candidates += 1;
        }
    }
    Ok(Answered {
        sdp: with_candidates(&answer, request.advertised),
        pc: Box::new(pc),
        local: request.credentials,
        remote,
        keying,
        rtcp,
        tracks,
        base,
        remote_candidates,
    })
}

/// Gives the agent a candidate that it can use; false for families that are not served and what the core refuses.
pub(crate) fn add_remote(pc: &mut RTCPeerConnection, base: &LocalAddresses, candidate: &RemoteCandidate) -> bool {
    let Some(address) = candidate.socket_addr() else { return false };
    if base.for_peer(address).is_none() {
        return false;
    }
    pc.add_remote_candidate(RTCIceCandidateInit { candidate: candidate.line.clone(), ..Default::default() }).is_ok()
}

/// What would be answered and then never connect.
fn check_transport(offer: &str, sections: &[Section]) -> Result<(), InvalidOffer> {
    let refuse = |why: &str| Err(InvalidOffer::Refused(why.to_owned()));
    for (i, section) in sections.iter().enumerate() {
        if sections[..i].iter().any(|s| s.mid == section.mid) {
            return refuse("two m-lines have the same a=mid");
        }
    }
    // RFC 5763 5: an offer says actpass; active goes well with our passive, these two do not.
    if offer.lines().map(str::trim_end).any(|l| l == "a=setup:passive" || l == "a=setup:holdconn") {
        return refuse("the offer's a=setup leaves the worker no passive role");
    }
    Ok(())
}

/// At most one audio and one video m-line carry media; FastRTC's clients never offer more.
fn choose_tracks(sections: &[Section], wants: Wants) -> Result<Vec<(&Section, &OfferedCodec)>, InvalidOffer> {
    let first = |kind: TrackKind| {
        sections
            .iter()
            .filter(|s| s.kind == SectionKind::Media(kind) && s.direction != Direction::Inactive)
            .find_map(|s| sdp::choose(s).map(|c| (s, c)))
    };
    let mut chosen = Vec::with_capacity(2);
    if wants.audio {
        chosen.extend(first(TrackKind::Audio));
    }
    if wants.video {
        chosen.extend(first(TrackKind::Video));
    }
    if chosen.is_empty() { Err(InvalidOffer::NoUsableMedia) } else { Ok(chosen) }
}

fn kind_of(codec: &OfferedCodec) -> RtpCodecKind {
    match codec.name {
        CodecName::Opus | CodecName::Pcmu | CodecName::Pcma => RtpCodecKind::Audio,
        CodecName::Vp8 | CodecName::H264 => RtpCodecKind::Video,
    }
}

fn rtc_codec(codec: &OfferedCodec) -> RTCRtpCodec {
    let mime_type = match codec.name {
        CodecName::Opus => MIME_TYPE_OPUS,
        CodecName::Pcmu => MIME_TYPE_PCMU,
        CodecName::Pcma => MIME_TYPE_PCMA,
        CodecName::Vp8 => MIME_TYPE_VP8,
        CodecName::H264 => MIME_TYPE_H264,
    };
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    let (channels, fmtp, rtcp_feedback) = match codec.name {
        // In-band FEC both ways; what DTX a client does is its own choice.
        CodecName::Opus => (2, "minptime=10;useinbandfec=1".to_owned(), vec![]),
        CodecName::Pcmu | CodecName::Pcma => (1, String::new(), vec![]),
        CodecName::Vp8 | CodecName::H264 => {
            (0, codec.fmtp.clone(), vec![feedback("nack", "pli"), feedback("ccm", "fir")])
        }
    };
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate: codec.clock_rate,
        channels,
        sdp_fmtp_line: fmtp,
        rtcp_feedback,
    }
}

fn codec_parameters(codec: &OfferedCodec) -> RTCRtpCodecParameters {
    RTCRtpCodecParameters { rtp_codec: rtc_codec(codec), payload_type: codec.payload_type }
}

/// RFC 8839 5.1. Priority by RFC 8445 5.1.2.1: host candidates, the first of the list preferred.
fn host_candidate(index: usize, address: SocketAddr) -> String {
    let local_preference = 65_535u32.saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
    let priority = 126u32 << 24 | local_preference << 8 | 255;
    format!("candidate:{} 1 udp {priority} {} {} typ host", index + 1, address.ip(), address.port())
}

/// The answer with every advertised address as a candidate in each m-line that lives.
fn with_candidates(answer: &str, advertised: &[SocketAddr]) -> String {
    let mut out = String::with_capacity(answer.len() + 80 * advertised.len());
    let mut pending = false;
    let finish = |out: &mut String, pending: bool| {
        if pending {
            for (i, address) in advertised.iter().enumerate() {
                out.push_str("a=");
                out.push_str(&host_candidate(i, *address));
                out.push_str("\r\n");
            }
            out.push_str("a=end-of-candidates\r\n");
        }
    };
    for line in answer.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
        if line.starts_with("a=candidate:") || line == "a=end-of-candidates" {
            continue;
        }
        if let Some(m) = line.strip_prefix("m=") {
            finish(&mut out, pending);
            pending = m.split_ascii_whitespace().nth(1) != Some("0");
        }
        out.push_str(line);
        out.push_str("\r\n");
    }
    finish(&mut out, pending);
    out
}

/// The offer as the core reads it without surprises. Left out are the candidates: it would take `.local` names, TCP and
/// eight-token forms in ways of its own, so they are read here. Written out is what RFC 8866 and RFC 3551 imply and the core
/// wants to see: each m-line's direction, and the names of the static payload types.
fn normalised(offer: &str, sections: &[Section]) -> String {
    let mut out = String::with_capacity(offer.len() + 64);
    let mut rest = sections.iter();
    let mut current: Option<&Section> = None;
    let mut named: Vec<u8> = Vec::new();
    let finish = |out: &mut String, section: Option<&Section>, named: &[u8]| {
        let Some(section) = section else { return };
        for codec in section.codecs.iter().filter(|c| !named.contains(&c.payload_type)) {
            let name = codec.name.as_str();
            out.push_str(&format!("a=rtpmap:{} {name}/{}\r\n", codec.payload_type, codec.clock_rate));
        }
        if matches!(section.kind, SectionKind::Media(_)) {
            out.push_str("a=");
            out.push_str(section.direction.as_str());
            out.push_str("\r\n");
        }
    };
    for line in offer.lines().map(str::trim_end).filter(|l| !l.is_empty()) {
        if line.starts_with("m=") {
            finish(&mut out, current, &named);
            current = rest.next();
            named.clear();
        }
        if let Some(pt) = line.strip_prefix("a=rtpmap:").and_then(|map| map.split(' ').next()) {
            named.extend(pt.parse::<u8>());
        }
        let direction = line.strip_prefix("a=").is_some_and(|a| Direction::parse(a).is_some());
        let media = current.is_none_or(|s| matches!(s.kind, SectionKind::Media(_)));
        if line.starts_with("a=candidate:") || line == "a=end-of-candidates" || (direction && media) {
            continue;
        }
        out.push_str(line);
        out.push_str("\r\n");
    }
    finish(&mut out, current, &named);
    out
}

fn offered_candidates(offer: &str) -> Vec<RemoteCandidate> {
    let mut found: Vec<RemoteCandidate> = Vec::new();
    for line in offer.lines().filter_map(|l| l.trim_end().strip_prefix("a=candidate:")) {
        if found.len() == MAX_REMOTE_CANDIDATES {
            break;
        }
        // Bundled m-lines repeat the same candidates.
        let text = serde_json::json!({ "candidate": format!("candidate:{line}"), "sdpMLineIndex": 0 });
        if let Ok(ParsedCandidate::Candidate(c)) = RemoteCandidate::parse(&text)
            && !found.iter().any(|f| f.socket_addr() == c.socket_addr())
        {
            found.push(c);
        }
    }
    found
}

/// BUNDLE leaves one transport, so the first credentials are the session's (RFC 8843).
fn remote_credentials(offer: &str) -> Option<IceCredentials> {
    let value = |key: &str| offer.lines().find_map(|l| l.trim_end().strip_prefix(key)).map(|v| v.trim().to_owned());
    Some(IceCredentials { ufrag: value("a=ice-ufrag:")?, pwd: value("a=ice-pwd:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(media: &str) -> String {
        let fingerprint = ["AB"; 32].join(":");
        format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n{media}c=IN IP4 0.0.0.0\r\n\
             a=mid:0\r\na=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdefghijklmn\r\n\
             a=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\n"
        )
    }

    fn check(offer: &str) -> Result<(String, Vec<NegotiatedTrack>), InvalidOffer> {
        let factory = PeerFactory::new().unwrap();
        let advertised = [SocketAddr::from(([203, 0, 113, 1], 5000)), SocketAddr::from(([0u16; 8], 5000))];
        let request = AnswerRequest {
            offer,
            credentials: IceCredentials { ufrag: "serverufrag".into(), pwd: "0123456789abcdefghijklmn".into() },
            advertised: &advertised,
            wants: Wants { audio: true, video: true },
            early: &[],
        };
        answer(&factory, request, Instant::now()).map(|a| (a.sdp, a.tracks))
    }

    #[test]
    fn an_answer_has_what_clients_rely_on() {
        let (sdp, tracks) =
            check(&offer("m=audio 9 UDP/TLS/RTP/SAVPF 96 0\r\na=rtpmap:96 opus/48000/2\r\na=sendrecv\r\n")).unwrap();
        assert_eq!((tracks[0].payload_type, tracks[0].codec), (96, CodecName::Opus), "the offerer's payload type");
        for line in [
            "a=setup:passive",
            "a=rtcp-mux",
            "a=group:BUNDLE 0",
            "a=rtpmap:96 opus/48000/2",
            "a=candidate:1 1 udp 2130706431 203.0.113.1 5000 typ host",
            "a=end-of-candidates",
            "a=ice-ufrag:serverufrag",
            "a=sendrecv",
        ] {
            assert!(sdp.lines().any(|l| l == line), "no {line} in\n{sdp}");
        }
        assert!(sdp.contains("a=msid:streamfleet "), "clients read event.streams[0]\n{sdp}");
        assert_eq!(sdp.matches("a=candidate:").count(), 2, "one for each advertised address\n{sdp}");
    }

    #[test]
    fn what_is_implied_is_understood() {
        // No direction is sendrecv, a static payload type needs no name, and a direction may stand before the m-lines.
        let (sdp, tracks) = check(&offer("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n")).unwrap();
        assert_eq!(tracks[0].codec, CodecName::Pcmu);
        assert!(sdp.contains("a=sendrecv"), "{sdp}");
        let early = offer("m=audio 9 UDP/TLS/RTP/SAVPF 8\r\n").replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n");
        let (sdp, tracks) = check(&early).unwrap();
        assert!(tracks[0].sends && !tracks[0].receives, "{sdp}");
        assert!(sdp.contains("a=sendonly"), "{sdp}");
    }

    #[test]
    fn what_could_never_connect_is_refused() {
        let good = offer("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=sendrecv\r\n");
        assert!(check(&good).is_ok());
        for bad in [
            good.replace("BUNDLE 0", "BUNDLE 7"),
            good.replace("actpass", "passive"),
            good.replace("actpass", "holdconn"),
            good.replace("a=ice-ufrag:abcd\r\n", ""),
            good.replace("a=mid:0\r\n", ""),
            good.replace("m=audio 9", "m=audio 0"),
            good.replace("a=sendrecv", "a=inactive"),
            good.replace("SAVPF 0", "SAVPF 13"),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }
}
