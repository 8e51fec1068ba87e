//! What an offer offers (RFC 8866, RFC 8829), read before the WebRTC core sees it.
//!
//! The worker answers with exactly one codec per m-line, chosen here, so a payload type means one thing for the whole
//! session. The core does the rest of the negotiation.

use streamfleet_handler::{CodecName, TrackKind};

/// Longest offer that is looked at, octets. Chromium's with audio, video and data is about 7 000.
pub(crate) const MAX_SDP: usize = 128 * 1024;
/// Most m-lines that an offer may have; browsers that talk to FastRTC send one to three.
const MAX_SECTIONS: usize = 16;
/// Most codecs remembered of one m-line.
const MAX_CODECS: usize = 64;

/// Which way media of an m-line flows, seen by whoever wrote the description (RFC 8866 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// What an m-line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionKind {
    Media(TrackKind),
    DataChannel,
    Other,
}

/// One `a=rtpmap` with its `a=fmtp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferedCodec {
    pub(crate) payload_type: u8,
    pub(crate) name: CodecName,
    /// Hz.
    pub(crate) clock_rate: u32,
    pub(crate) channels: u16,
    pub(crate) fmtp: String,
}

/// One m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) kind: SectionKind,
    pub(crate) mid: String,
    pub(crate) direction: Direction,
    pub(crate) rejected: bool,
    /// The payload types of the m-line in the offerer's order of preference, as far as the worker knows their codecs.
    pub(crate) codecs: Vec<OfferedCodec>,
}

/// Why an offer cannot be answered; becomes `invalid_offer` with this sentence.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidOffer {
    /// More than 128 KiB.
    #[error("the SDP is longer than {MAX_SDP} octets")]
    TooLong,
    /// It does not begin as RFC 8866 wants it.
    #[error("the SDP does not start with v=0")]
    NotSdp,
    /// More than 16 m-lines.
    #[error("the SDP has more than {MAX_SECTIONS} m-lines")]
    TooManySections,
    /// No audio or video m-line has a codec that the worker knows.
    #[error("the SDP offers no audio or video with a codec that is known here (Opus, PCMU, PCMA, VP8, H264)")]
    NoUsableMedia,
    /// The WebRTC core refused it.
    #[error("{0}")]
    Refused(String),
}

/// The m-lines of an offer.
pub(crate) fn sections(sdp: &str) -> Result<Vec<Section>, InvalidOffer> {
    if sdp.len() > MAX_SDP {
        return Err(InvalidOffer::TooLong);
    }
    let mut lines = sdp.lines().map(str::trim_end).filter(|l| !l.is_empty());
    if lines.next() != Some("v=0") {
        return Err(InvalidOffer::NotSdp);
    }
    let mut sections: Vec<Section> = Vec::new();
    // Payload types in the order of the m-line: that is the offerer's preference, not the order of the rtpmaps.
    let mut order: Vec<u8> = Vec::new();
    // A direction before the first m-line is the default of all (RFC 8866 6.7).
    let mut default_direction = Direction::SendRecv;
    for line in lines {
        if let Some(m) = line.strip_prefix("m=") {
            if sections.len() == MAX_SECTIONS {
                return Err(InvalidOffer::TooManySections);
            }
            if let Some(last) = sections.last_mut() {
                finish(last, &order);
            }
            let mut words = m.split_ascii_whitespace();
            let media = words.next().unwrap_or_default();
            let port = words.next().unwrap_or_default();
            let protocol = words.next().unwrap_or_default();
            let kind = match media {
                "audio" => SectionKind::Media(TrackKind::Audio),
                "video" => SectionKind::Media(TrackKind::Video),
                "application" if protocol.contains("SCTP") => SectionKind::DataChannel,
                _ => SectionKind::Other,
            };
            order = words.filter_map(|w| w.parse().ok()).take(MAX_CODECS).collect();
            sections.push(Section {
                kind,
                mid: String::new(),
                direction: default_direction,
                rejected: port == "0",
                codecs: static_codecs(kind, &order),
            });
            continue;
        }
        let Some(attribute) = line.strip_prefix("a=") else { continue };
        if let Some(d) = Direction::parse(attribute) {
            match sections.last_mut() {
                Some(s) => s.direction = d,
                None => default_direction = d,
            }
            continue;
        }
        let Some(section) = sections.last_mut() else { continue };
        if let Some(mid) = attribute.strip_prefix("mid:") {
            section.mid = mid.trim().to_owned();
        } else if let Some(map) = attribute.strip_prefix("rtpmap:") {
            if let Some(codec) = rtpmap(map) {
                section.codecs.retain(|c| c.payload_type != codec.payload_type);
                if section.codecs.len() < MAX_CODECS {
                    section.codecs.push(codec);
                }
            }
        } else if let Some(fmtp) = attribute.strip_prefix("fmtp:")
            && let Some((pt, parameters)) = fmtp.split_once(' ')
            && let Ok(pt) = pt.parse::<u8>()
            && let Some(codec) = section.codecs.iter_mut().find(|c| c.payload_type == pt)
        {
            codec.fmtp = parameters.trim().to_owned();
        }
    }
    if let Some(last) = sections.last_mut() {
        finish(last, &order);
    }
    Ok(sections)
}

fn finish(section: &mut Section, order: &[u8]) {
    section.codecs.retain(|c| order.contains(&c.payload_type));
    section.codecs.sort_by_key(|c| order.iter().position(|pt| *pt == c.payload_type));
}

impl Direction {
    pub(crate) fn parse(attribute: &str) -> Option<Self> {
        Some(match attribute {
            "sendrecv" => Direction::SendRecv,
            "sendonly" => Direction::SendOnly,
            "recvonly" => Direction::RecvOnly,
            "inactive" => Direction::Inactive,
            _ => return None,
        })
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// Payload types 0 and 8 need no rtpmap (RFC 3551).
fn static_codecs(kind: SectionKind, order: &[u8]) -> Vec<OfferedCodec> {
    if kind != SectionKind::Media(TrackKind::Audio) {
        return Vec::new();
    }
    order
        .iter()
        .filter_map(|pt| {
            let name = match pt {
                0 => CodecName::Pcmu,
                8 => CodecName::Pcma,
                _ => return None,
            };
            Some(OfferedCodec { payload_type: *pt, name, clock_rate: 8_000, channels: 1, fmtp: String::new() })
        })
        .collect()
}

fn rtpmap(map: &str) -> Option<OfferedCodec> {
    let (pt, encoding) = map.split_once(' ')?;
    let mut parts = encoding.trim().split('/');
    let name = parts.next()?;
    let clock_rate: u32 = parts.next()?.parse().ok()?;
    let channels: u16 = parts.next().map_or(Some(1), |c| c.parse().ok())?;
    let name = if name.eq_ignore_ascii_case("opus") && clock_rate == 48_000 && channels == 2 {
        CodecName::Opus
    } else if name.eq_ignore_ascii_case("pcmu") && clock_rate == 8_000 && channels == 1 {
        CodecName::Pcmu
    } else if name.eq_ignore_ascii_case("pcma") && clock_rate == 8_000 && channels == 1 {
        CodecName::Pcma
    } else if name.eq_ignore_ascii_case("vp8") && clock_rate == 90_000 {
        CodecName::Vp8
    } else if name.eq_ignore_ascii_case("h264") && clock_rate == 90_000 {
        CodecName::H264
    } else {
        return None;
    };
    let payload_type = pt.parse().ok().filter(|pt| *pt < 128)?;
    Some(OfferedCodec { payload_type, name, clock_rate, channels, fmtp: String::new() })
}

/// The one codec that the answer will name for this m-line.
///
/// Audio: Opus wherever it is offered, since it alone conceals losses; else the offerer's first. Video: the offerer's
/// first, but of H.264 only constrained baseline with packetization-mode 1, which every browser decodes.
pub(crate) fn choose(section: &Section) -> Option<&OfferedCodec> {
    let usable = |c: &&OfferedCodec| match (section.kind, c.name) {
        (SectionKind::Media(TrackKind::Audio), CodecName::Opus | CodecName::Pcmu | CodecName::Pcma) => true,
        (SectionKind::Media(TrackKind::Video), CodecName::Vp8) => true,
        (SectionKind::Media(TrackKind::Video), CodecName::H264) => is_baseline(&c.fmtp),
        _ => false,
    };
    if section.rejected {
        return None;
    }
    section
        .codecs
        .iter()
        .find(|c| c.name == CodecName::Opus && usable(c))
        .or_else(|| section.codecs.iter().find(usable))
}

/// RFC 6184 8.1: baseline (66 = 0x42), packetization-mode 1.
fn is_baseline(fmtp: &str) -> bool {
    let value = |key: &str| {
        fmtp.split(';').filter_map(|p| p.split_once('=')).find(|(k, _)| k.trim().eq_ignore_ascii_case(key)).map(|p| p.1)
    };
    value("packetization-mode").map(str::trim) == Some("1")
        && value("profile-level-id").is_none_or(|p| p.trim().get(..2).is_some_and(|p| p.eq_ignore_ascii_case("42")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROMIUM: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\na=mid:0\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\n\
        a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=rtpmap:9 G722/8000\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 103 96\r\na=mid:1\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";

    #[test]
    fn reads_what_a_browser_offers() {
        let s = sections(CHROMIUM).unwrap();
        assert_eq!(s.len(), 3);
        assert_eq!((s[0].mid.as_str(), s[0].direction), ("0", Direction::SendRecv));
        let audio = choose(&s[0]).unwrap();
        assert_eq!((audio.payload_type, audio.name), (111, CodecName::Opus));
        assert_eq!(audio.fmtp, "minptime=10;useinbandfec=1");
        // Payload types 0 and 8 are known without an rtpmap, and come after Opus as the m-line says.
        assert_eq!(s[0].codecs.iter().map(|c| c.payload_type).collect::<Vec<_>>(), [111, 0, 8]);
        assert_eq!((s[1].direction, choose(&s[1]).unwrap().payload_type), (Direction::RecvOnly, 103));
        assert_eq!(s[2].kind, SectionKind::DataChannel);
    }

    #[test]
    fn chooses_one_codec() {
        let check = |media: &str, attributes: &str, expected: Option<u8>| {
            let sdp = format!("v=0\r\n{media}\r\na=mid:0\r\n{attributes}");
            let s = sections(&sdp).unwrap();
            assert_eq!(choose(&s[0]).map(|c| c.payload_type), expected, "{sdp}");
        };
        check("m=audio 9 X 0 8", "", Some(0));
        check("m=audio 9 X 8 0", "", Some(8));
        check("m=audio 9 X 8 96", "a=rtpmap:96 OPUS/48000/2\r\n", Some(96));
        check("m=audio 0 X 8", "", None);
        check("m=audio 9 X 96", "a=rtpmap:96 opus/16000/1\r\n", None);
        check("m=audio 9 X 9", "a=rtpmap:9 G722/8000\r\n", None);
        check("m=video 9 X 98", "a=rtpmap:98 VP9/90000\r\n", None);
        let h264 = |fmtp: &str| format!("a=rtpmap:102 H264/90000\r\na=fmtp:102 {fmtp}\r\n");
        check("m=video 9 X 102", &h264("packetization-mode=1;profile-level-id=42001f"), Some(102));
        check("m=video 9 X 102", &h264("packetization-mode=0;profile-level-id=42001f"), None);
        check("m=video 9 X 102", &h264("packetization-mode=1;profile-level-id=640c1f"), None);
    }

    #[test]
    fn refuses_what_is_no_sdp() {
        assert_eq!(sections(""), Err(InvalidOffer::NotSdp));
        assert_eq!(sections("hello"), Err(InvalidOffer::NotSdp));
        assert_eq!(sections(&"v=0\n".repeat(40_000)), Err(InvalidOffer::TooLong));
        assert_eq!(sections(&format!("v=0\n{}", "m=audio 9 X 0\n".repeat(17))), Err(InvalidOffer::TooManySections));
    }
}
