//! Peer connections: what all of a process share, and how one is made for what was taken of an offer.

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
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::shared::error::Error as CoreError;
use streamfleet_handler::{CodecName, TrackKind};
use streamfleet_rtp::keying::{KeyTap, Keying};
use streamfleet_rtp::rtcp::{RtcpInbox, RtcpTap};

use super::choice::Choice;
use super::description;
use super::{IceCredentials, NegotiatedTrack};
use crate::media::sdp::{Direction, OfferedCodec};

/// The longest data-channel message, either way, octets. Conversations send lines of JSON, not files; and the core keeps a
/// buffer of this size for every session.
pub(crate) const MAX_MESSAGE: u32 = 16 * 1024;
/// SCTP's receive window, octets: bounds what one client can make the worker hold.
const SCTP_RECEIVE_BUFFER: u32 = 256 * 1024;
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

/// A peer connection that knows its tracks and neither offer nor answer.
pub(super) struct Connection {
    pub(super) pc: RTCPeerConnection,
    pub(super) keying: Keying,
    pub(super) rtcp: RtcpInbox,
    pub(super) tracks: Vec<NegotiatedTrack>,
}

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

    /// A connection for these m-lines, under these credentials.
    pub(super) fn connection(
        &self,
        credentials: &IceCredentials,
        choice: &Choice<'_, '_>,
        now: Instant,
    ) -> Result<Connection, CoreError> {
        let mut engine = MediaEngine::default();
        for (_, kind, codec) in choice.tracks() {
            let parameters = RTCRtpCodecParameters { rtp_codec: rtc_codec(codec), payload_type: codec.payload_type };
            engine.register_codec(parameters, core_kind(kind))?;
        }
        let (provider, keying) = KeyTap::new(self.provider.clone());
        let (tap, rtcp) = RtcpTap::new();
        let settings = SettingEngineBuilder::new()
            .with_ice_credentials(credentials.ufrag.clone(), credentials.pwd.clone())
            .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
            // As DTLS server the worker waits for the client's first flight, which saves a retransmission when the client
            // is not yet ready for ours.
            .with_answering_dtls_role(RTCDtlsRole::Server)
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_crypto_provider(provider)
            .with_srtp_protection_profiles(self.profiles.clone())
            .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(MAX_MESSAGE))
            .with_sctp_max_receive_buffer_size(SCTP_RECEIVE_BUFFER)
            .build();
        let certificates = vec![self.certificate.clone()];
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().with_certificates(certificates).build())
            .with_media_engine(engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(Registry::new().with(Slot::ReceiverReport, tap))
            .build(now)?;

        let mut tracks = Vec::with_capacity(2);
        for (section, kind, codec) in choice.tracks() {
            // From the worker's side: what the client sends is received.
            let receives = matches!(section.direction, Direction::SendRecv | Direction::SendOnly);
            let sends = matches!(section.direction, Direction::SendRecv | Direction::RecvOnly);
            let ssrc = rand::random();
            if sends {
                pc.add_track(outgoing(kind, codec, ssrc))?;
            }
            tracks.push(NegotiatedTrack {
                kind,
                mid: section.mid.to_owned(),
                codec: codec.name,
                payload_type: codec.payload_type,
                ssrc,
                receives,
                sends,
            });
        }
        Ok(Connection { pc, keying, rtcp, tracks })
    }
}

/// FastRTC's clients read `event.streams[0]`, so both tracks belong to one stream.
fn outgoing(kind: TrackKind, codec: &OfferedCodec<'_>, ssrc: u32) -> MediaStreamTrack {
    let label = match kind {
        TrackKind::Audio => "audio",
        TrackKind::Video => "video",
    };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec: rtc_codec(codec),
        ..Default::default()
    };
    MediaStreamTrack::new("streamfleet".to_owned(), label.to_owned(), label.to_owned(), core_kind(kind), vec![encoding])
}

fn core_kind(kind: TrackKind) -> RtpCodecKind {
    match kind {
        TrackKind::Audio => RtpCodecKind::Audio,
        TrackKind::Video => RtpCodecKind::Video,
    }
}

fn rtc_codec(codec: &OfferedCodec<'_>) -> RTCRtpCodec {
    let mime_type = match codec.name {
        CodecName::Opus => MIME_TYPE_OPUS,
        CodecName::Pcmu => MIME_TYPE_PCMU,
        CodecName::Pcma => MIME_TYPE_PCMA,
        CodecName::Vp8 => MIME_TYPE_VP8,
        CodecName::H264 => MIME_TYPE_H264,
    };
    // A video codec has no channels to the core.
    let channels = match codec.name {
        CodecName::Opus | CodecName::Pcmu | CodecName::Pcma => codec.channels,
        CodecName::Vp8 | CodecName::H264 => 0,
    };
    let feedback = codec.feedback.iter().map(|feedback| {
        let (typ, parameter) = feedback.words();
        RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() }
    });
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate: codec.clock_rate,
        channels,
        sdp_fmtp_line: description::fmtp(codec),
        rtcp_feedback: feedback.collect(),
    }
}
