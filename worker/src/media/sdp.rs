//! What a description says (RFC 8866, RFC 8829), as far as the worker has a use for it.
//!
//! Offers are read here and nowhere else: the WebRTC core is given a description that was written from this one, so that
//! both mean the same.

mod codec;

use streamfleet_handler::TrackKind;

use self::codec::Formats;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::codec::choose;
pub(crate) use self::codec::{Contradictions, H264, OfferedCodec, codec};

/// Longest offer that is looked at, octets. Chromium's with audio, video and data is about 7 000.
pub(crate) const MAX_SDP: usize = 128 * 1024;
/// Most m-lines that an offer may have; browsers that talk to FastRTC send one to three.
const MAX_SECTIONS: usize = 16;
/// Most fingerprints read of one m-line: aiortc writes three, one for each hash.
const MAX_FINGERPRINTS: usize = 8;
/// Most BUNDLE groups read; browsers write one.
const MAX_GROUPS: usize = MAX_SECTIONS;
/// Most candidates read of one m-line: those for the session are counted apart.
const MAX_CANDIDATES: usize = 64;

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

/// The words of an m-line, to be said again in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MediaLine<'a> {
    pub(crate) media: &'a str,
    pub(crate) protocol: &'a str,
    /// The first of its formats.
    pub(crate) format: &'a str,
}

/// What may be said of one m-line's transport, or of that of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TransportLines<'a> {
    pub(crate) ufrag: Option<&'a str>,
    pub(crate) pwd: Option<&'a str>,
    pub(crate) fingerprints: Vec<&'a str>,
    pub(crate) setup: Option<&'a str>,
}

/// One m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section<'a> {
    pub(crate) kind: SectionKind,
    pub(crate) line: MediaLine<'a>,
    /// Empty if there is none.
    pub(crate) mid: &'a str,
    pub(crate) direction: Direction,
    pub(crate) rejected: bool,
    /// RTP and RTCP may share a port (RFC 5761).
    pub(crate) rtcp_mux: bool,
    /// The payload types of the m-line in the offerer's order of preference, as far as the worker knows their codecs.
    pub(crate) codecs: Vec<OfferedCodec<'a>>,
    pub(crate) contradictions: Contradictions,
    pub(crate) transport: TransportLines<'a>,
    /// Without `candidate:`.
    pub(crate) candidates: Vec<&'a str>,
    /// RFC 8841.
    pub(crate) sctp_port: Option<u16>,
    pub(crate) max_message_size: Option<u32>,
}

/// A whole description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description<'a> {
    pub(crate) transport: TransportLines<'a>,
    /// The writer answers connectivity checks and makes none (RFC 8445 2.5).
    pub(crate) ice_lite: bool,
    /// The mids of each BUNDLE group.
    pub(crate) bundles: Vec<Vec<&'a str>>,
    pub(crate) sections: Vec<Section<'a>>,
}

/// Why an offer cannot be answered; becomes `invalid_offer` with this sentence.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
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
    /// Fewer words than RFC 8866 5.14 wants.
    #[error("an m-line must be m=MEDIA PORT PROTOCOL FORMAT")]
    MediaLine,
    /// No audio or video m-line has a codec that the worker knows.
    #[error("the SDP offers no audio or video with a codec that is known here (Opus, PCMU, PCMA, VP8, H264 baseline)")]
    NoUsableMedia,
    /// Nothing but payload types with two different rtpmaps.
    #[error("two a=rtpmap lines give one payload type different codecs")]
    ContradictoryCodecs,
    /// Nothing but payload types that another m-line of the transport uses.
    #[error("two m-lines use the same payload type, which must tell them apart")]
    SharedPayloadType,
    /// RFC 5761 4.
    #[error("payload types 64 to 95 cannot be told from RTCP when both share a port; use 96 to 127")]
    RtcpPayloadType,
    /// No `a=rtcp-mux`.
    #[error("media needs a=rtcp-mux: the worker has one port for RTP and RTCP")]
    NoRtcpMux,
    /// `RTP/AVP` and the like.
    #[error("media needs DTLS-SRTP (UDP/TLS/RTP/SAVPF); plain RTP is not served")]
    PlainRtp,
    /// No `a=mid`.
    #[error("an m-line with media needs a=mid")]
    NoMid,
    /// RFC 5888 9.1.
    #[error("two m-lines have the same a=mid")]
    SameMid,
    /// The m-line is in no BUNDLE group.
    #[error("an m-line with media must be in an a=group:BUNDLE: the worker has one transport for all of them")]
    NotBundled,
    /// `a=setup` is `passive` or `holdconn`.
    #[error("the offer's a=setup must be actpass or active: the worker waits for the client's DTLS")]
    Setup,
    /// Nothing to verify checks by.
    #[error("the offer has no a=ice-ufrag and a=ice-pwd")]
    NoIceCredentials,
    /// RFC 8839 5.4.
    #[error("a=ice-ufrag must have 4 to 256 and a=ice-pwd 22 to 256 letters, digits, + or /")]
    IceCredentials,
    /// Nothing to know the client's certificate by.
    #[error("the offer has no a=fingerprint for DTLS")]
    NoFingerprint,
    /// RFC 8122 5.
    #[error("a=fingerprint must be sha-256; no other hash is verified here")]
    FingerprintHash,
    /// Not 32 octets in hexadecimal.
    #[error("a=fingerprint:sha-256 must have 32 pairs of hexadecimal digits, with colons between them")]
    Fingerprint,
    /// Two certificates, of which the client may use either.
    #[error("a=fingerprint names two certificates with sha-256; the worker verifies one")]
    TwoFingerprints,
    /// It was understood and could not be answered; the log says more.
    #[error("the offer cannot be answered")]
    Unanswerable,
}

/// The m-lines of a description.
pub(crate) fn sections(sdp: &str) -> Result<Vec<Section<'_>>, InvalidOffer> {
    Description::parse(sdp).map(|description| description.sections)
}

impl<'a> Description<'a> {
    /// Reads a description. What it does not know it passes over, as RFC 8866 5.13 asks.
    ///
    /// # Errors
    /// It is no SDP, or beyond a bound.
    pub(crate) fn parse(sdp: &'a str) -> Result<Self, InvalidOffer> {
        if sdp.len() > MAX_SDP {
            return Err(InvalidOffer::TooLong);
        }
        let mut lines = sdp.lines().map(str::trim_end).filter(|l| !l.is_empty()).peekable();
        if lines.next() != Some("v=0") {
            return Err(InvalidOffer::NotSdp);
        }
        let mut description = Description::default();
        // A direction before the first m-line is the default of all (RFC 8866 6.7).
        let mut direction = Direction::SendRecv;
        while let Some(line) = lines.next_if(|line| !line.starts_with("m=")) {
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            if let Some(d) = Direction::parse(attribute) {
                direction = d;
            } else {
                description.attribute(attribute);
            }
        }
        while let Some(line) = lines.next() {
            if description.sections.len() == MAX_SECTIONS {
                return Err(InvalidOffer::TooManySections);
            }
            let (mut section, mut formats) = Section::open(line, direction).ok_or(InvalidOffer::MediaLine)?;
            while let Some(line) = lines.next_if(|line| !line.starts_with("m=")) {
                if let Some(attribute) = line.strip_prefix("a=") {
                    section.attribute(attribute, &mut formats);
                }
            }
            (section.codecs, section.contradictions) = formats.codecs();
            description.sections.push(section);
        }
        Ok(description)
    }

    fn attribute(&mut self, attribute: &'a str) {
        let (key, value) = key_and_value(attribute);
        match key {
            "ice-lite" => self.ice_lite = true,
            "group" if self.bundles.len() < MAX_GROUPS => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") {
                    // No m-line can be in it beyond the bound of those.
                    self.bundles.push(words.take(MAX_SECTIONS).collect());
                }
            }
            _ => self.transport.attribute(key, value),
        }
    }
}

impl<'a> Section<'a> {
    fn open(line: &'a str, direction: Direction) -> Option<(Self, Formats<'a>)> {
        let mut words = line.strip_prefix("m=")?.split_ascii_whitespace();
        let (media, port, protocol) = (words.next()?, words.next()?, words.next()?);
        let format = words.clone().next()?;
        let kind = match media {
            "audio" => SectionKind::Media(TrackKind::Audio),
            "video" => SectionKind::Media(TrackKind::Video),
            "application" if protocol.ends_with("DTLS/SCTP") && format == "webrtc-datachannel" => {
                SectionKind::DataChannel
            }
            _ => SectionKind::Other,
        };
        let formats = Formats::new(words);
        let formats = if kind == SectionKind::Media(TrackKind::Audio) { formats.with_static_audio() } else { formats };
        let section = Section {
            kind,
            line: MediaLine { media, protocol, format },
            mid: "",
            direction,
            rejected: port == "0",
            rtcp_mux: false,
            codecs: Vec::new(),
            contradictions: Contradictions::None,
            transport: TransportLines::default(),
            candidates: Vec::new(),
            sctp_port: None,
            max_message_size: None,
        };
        Some((section, formats))
    }

    fn attribute(&mut self, attribute: &'a str, formats: &mut Formats<'a>) {
        if let Some(direction) = Direction::parse(attribute) {
            self.direction = direction;
            return;
        }
        let (key, value) = key_and_value(attribute);
        match key {
            "mid" => self.mid = value,
            // Port 0 with this means "on the others' transport", and not "rejected" (RFC 8843 6).
            "bundle-only" => self.rejected = false,
            "rtcp-mux" => self.rtcp_mux = true,
            "rtpmap" => formats.rtpmap(value),
            "fmtp" => formats.fmtp(value),
            "rtcp-fb" => formats.rtcp_fb(value),
            "candidate" if self.candidates.len() < MAX_CANDIDATES => self.candidates.push(value),
            "sctp-port" => self.sctp_port = value.parse().ok(),
            "max-message-size" => self.max_message_size = value.parse().ok(),
            _ => self.transport.attribute(key, value),
        }
    }
}

impl<'a> TransportLines<'a> {
    fn attribute(&mut self, key: &str, value: &'a str) {
        match key {
            "ice-ufrag" => self.ufrag = Some(value),
            "ice-pwd" => self.pwd = Some(value),
            "setup" => self.setup = Some(value),
            "fingerprint" if self.fingerprints.len() < MAX_FINGERPRINTS => self.fingerprints.push(value),
            _ => {}
        }
    }
}

impl Direction {
    fn parse(attribute: &str) -> Option<Self> {
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

fn key_and_value(attribute: &str) -> (&str, &str) {
    attribute.split_once(':').map_or((attribute, ""), |(key, value)| (key, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use streamfleet_handler::CodecName;

    const CHROMIUM: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\na=ice-lite\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\na=mid:0\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\n\
        a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=rtpmap:9 G722/8000\r\na=rtcp-mux\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 103 96\r\na=mid:1\r\na=bundle-only\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtpmap:103 H264/90000\r\na=fmtp:103 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\na=max-message-size:262144\r\n";

    #[test]
    fn reads_what_a_browser_offers() {
        let offer = Description::parse(CHROMIUM).unwrap();
        assert_eq!((offer.bundles, offer.ice_lite), (vec![vec!["0", "1", "2"]], true));
        let s = offer.sections;
        assert_eq!(s.len(), 3);
        assert_eq!((s[0].mid, s[0].direction, s[0].rtcp_mux), ("0", Direction::SendRecv, true));
        assert_eq!(s[0].line, MediaLine { media: "audio", protocol: "UDP/TLS/RTP/SAVPF", format: "111" });
        let audio = choose(&s[0]).unwrap();
        assert_eq!((audio.payload_type, audio.name), (111, CodecName::Opus));
        assert_eq!(audio.fmtp, "minptime=10;useinbandfec=1");
        // Payload types 0 and 8 are known without an rtpmap, and come after Opus as the m-line says.
        assert_eq!(s[0].codecs.iter().map(|c| c.payload_type).collect::<Vec<_>>(), [111, 0, 8]);
        assert_eq!((s[1].direction, choose(&s[1]).unwrap().payload_type), (Direction::RecvOnly, 103));
        assert!(!s[1].rejected && !s[1].rtcp_mux, "port 0 is no rejection with bundle-only");
        assert_eq!(
            (s[2].kind, s[2].sctp_port, s[2].max_message_size),
            (SectionKind::DataChannel, Some(5000), Some(262_144))
        );
    }

    #[test]
    fn transports_are_the_sessions_or_an_m_lines() {
        let sdp = "v=0\r\na=ice-ufrag:all\r\na=setup:actpass\r\nm=audio 9 X 0\r\na=ice-ufrag: one \r\na=ice-pwd:two\r\n\
                   a=fingerprint:sha-256 AB\r\na=fingerprint:sha-1 CD\r\na=candidate:1 1 udp\r\nm=text 9 X 0\r\n";
        let read = Description::parse(sdp).unwrap();
        assert_eq!((read.transport.ufrag, read.transport.setup), (Some("all"), Some("actpass")));
        let one = &read.sections[0];
        assert_eq!((one.transport.ufrag, one.transport.pwd, one.transport.setup), (Some("one"), Some("two"), None));
        assert_eq!(
            (&one.transport.fingerprints[..], &one.candidates[..]),
            (&["sha-256 AB", "sha-1 CD"][..], &["1 1 udp"][..])
        );
        assert_eq!(read.sections[1].transport, TransportLines::default());
        assert_eq!(read.sections[1].kind, SectionKind::Other);
    }

    #[test]
    fn refuses_what_is_no_sdp() {
        let check = |sdp: &str, expected: InvalidOffer| {
            assert_eq!(sections(sdp), Err(expected), "{:.40}", sdp);
        };
        check("", InvalidOffer::NotSdp);
        check("hello", InvalidOffer::NotSdp);
        check(&"v=0\n".repeat(40_000), InvalidOffer::TooLong);
        check(&format!("v=0\n{}", "m=audio 9 X 0\n".repeat(17)), InvalidOffer::TooManySections);
        for line in ["m=", "m=audio", "m=audio 9", "m=audio 9 X", "m=audio 9 X "] {
            check(&format!("v=0\n{line}\n"), InvalidOffer::MediaLine);
        }
    }

    proptest! {
        /// Whatever is written, every list of ours stays within its bound.
        #[test]
        fn nothing_grows_with_the_offer(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("m=audio 9 UDP/TLS/RTP/SAVPF 0 8 96 97 111".to_owned()),
                    "a=(rtpmap|fmtp|rtcp-fb):[0-9]{1,3} (opus/48000/2|VP8/90000|nack pli|x=y)",
                    "a=(fingerprint|candidate|group|mid|setup):[A-Z0-9 ]{0,8}",
                    "[ -~]{0,20}",
                ],
                0..400,
            ),
        ) {
            let sdp = format!("v=0\r\n{}", lines.join("\r\n"));
            if let Ok(read) = Description::parse(&sdp) {
                prop_assert!(read.sections.len() <= MAX_SECTIONS && read.bundles.len() <= MAX_GROUPS);
                for section in &read.sections {
                    prop_assert!(section.transport.fingerprints.len() <= MAX_FINGERPRINTS);
                    prop_assert!(section.candidates.len() <= MAX_CANDIDATES);
                    prop_assert!(section.codecs.len() <= 5, "{section:?}");
                }
            }
        }
    }
}
