//! The codecs of an offer.

use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MIME_TYPE_PCMA, MIME_TYPE_PCMU, MIME_TYPE_VP8,
};
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use streamfleet_audio::Codec;
use webrtc::peer_connection::MediaEngine;

use crate::error::ClientError;
use crate::options::Media;

/// The audio codec of this encoding name.
pub(crate) fn named(name: &str) -> Option<Codec> {
    Codec::from_mime(&format!("audio/{name}"))
}

pub(crate) fn opus() -> RTCRtpCodec {
    rtp_codec(MIME_TYPE_OPUS, 48_000, 2, "minptime=10;useinbandfec=1")
}

pub(crate) fn vp8() -> RTCRtpCodec {
    rtp_codec(MIME_TYPE_VP8, 90_000, 0, "")
}

fn rtp_codec(mime_type: &str, clock_rate: u32, channels: u16, sdp_fmtp_line: &str) -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: sdp_fmtp_line.to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

/// The codecs of the offer, in order of preference, with the payload types that browsers use.
pub(crate) fn register(engine: &mut MediaEngine, media: Media) -> Result<(), ClientError> {
    let mut add =
        |rtp_codec, payload_type, kind| engine.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind);
    if media != Media::None {
        add(opus(), 111, RtpCodecKind::Audio)?;
        add(rtp_codec(MIME_TYPE_PCMU, 8_000, 0, ""), 0, RtpCodecKind::Audio)?;
        add(rtp_codec(MIME_TYPE_PCMA, 8_000, 0, ""), 8, RtpCodecKind::Audio)?;
    }
    if media == Media::AudioVideo {
        add(vp8(), 96, RtpCodecKind::Video)?;
        let baseline = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        add(rtp_codec(MIME_TYPE_H264, 90_000, 0, baseline), 102, RtpCodecKind::Video)?;
    }
    Ok(())
}
