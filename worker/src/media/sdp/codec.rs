//! The codecs of an m-line: what was offered, and what of it the worker can use.

use std::borrow::Cow;

use streamfleet_handler::{CodecName, TrackKind};

use super::{InvalidOffer, Section, SectionKind};

/// Most payload types remembered of one m-line; Chromium's video has about fifty.
const MAX_FORMATS: usize = 64;

/// One payload type with the codec that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferedCodec<'a> {
    pub(crate) payload_type: u8,
    pub(crate) name: CodecName,
    /// Hz.
    pub(crate) clock_rate: u32,
    pub(crate) channels: u16,
    pub(crate) fmtp: &'a str,
    /// How the client's encoder takes requests for a key frame.
    pub(crate) feedback: Vec<Feedback>,
}

/// One `a=rtcp-fb` (RFC 4585, RFC 5104) that the worker has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feedback {
    /// `nack pli`
    Pli,
    /// `ccm fir`
    Fir,
}

impl Feedback {
    pub(crate) const ALL: [Self; 2] = [Self::Pli, Self::Fir];

    /// Type and parameter.
    pub(crate) const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Pli => ("nack", "pli"),
            Self::Fir => ("ccm", "fir"),
        }
    }
}

/// What the lines of one m-line say about its payload types, while they are read.
#[derive(Debug, Default)]
pub(super) struct Formats<'a> {
    /// In the order of the m-line: that is the offerer's preference, not the order of the rtpmaps.
    order: Vec<u8>,
    /// Payload type and encoding, the first of each payload type.
    maps: Vec<(u8, Cow<'a, str>)>,
    fmtps: Vec<(u8, &'a str)>,
    /// `None` stands for all payload types.
    feedback: Vec<(Option<u8>, Feedback)>,
    contradicting: Vec<u8>,
}

impl<'a> Formats<'a> {
    /// `words` are those of the m-line, after the protocol.
    pub(super) fn new(words: impl Iterator<Item = &'a str>) -> Self {
        let mut formats = Formats::default();
        for pt in words.filter_map(|word| word.parse().ok()).filter(|pt| *pt < 128) {
            if formats.order.len() < MAX_FORMATS && !formats.order.contains(&pt) {
                formats.order.push(pt);
            }
        }
        formats
    }

    /// Payload types 0 and 8 need no rtpmap (RFC 3551), and cannot have another one.
    pub(super) fn with_static_audio(mut self) -> Self {
        for (pt, encoding) in [(0, "pcmu/8000"), (8, "pcma/8000")] {
            if self.order.contains(&pt) {
                self.maps.push((pt, Cow::Borrowed(encoding)));
            }
        }
        self
    }

    pub(super) fn rtpmap(&mut self, value: &'a str) {
        let Some((pt, encoding)) = self.split(value) else { return };
        let encoding = encoding.to_ascii_lowercase();
        // One channel need not be said (RFC 8866 6.6).
        let encoding = encoding.strip_suffix("/1").unwrap_or(&encoding);
        match self.maps.iter().find(|(known, _)| *known == pt) {
            None => self.maps.push((pt, Cow::Owned(encoding.to_owned()))),
            Some((_, first)) if *first == encoding => {}
            Some(_) if self.contradicting.contains(&pt) => {}
            Some(_) => self.contradicting.push(pt),
        }
    }

    pub(super) fn fmtp(&mut self, value: &'a str) {
        let Some((pt, parameters)) = self.split(value) else { return };
        match self.fmtps.iter_mut().find(|(known, _)| *known == pt) {
            Some(known) => known.1 = parameters,
            None => self.fmtps.push((pt, parameters)),
        }
    }

    pub(super) fn rtcp_fb(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        let (pt, said) = (words.next(), (words.next().unwrap_or_default(), words.next().unwrap_or_default()));
        let pt = match pt {
            Some("*") => None,
            Some(pt) => match pt.parse() {
                Ok(pt) if self.order.contains(&pt) => Some(pt),
                _ => return,
            },
            None => return,
        };
        let Some(feedback) = Feedback::ALL.into_iter().find(|feedback| feedback.words() == said) else { return };
        if !self.feedback.contains(&(pt, feedback)) {
            self.feedback.push((pt, feedback));
        }
    }

    /// A payload type of this m-line, and what is said about it.
    fn split(&self, value: &'a str) -> Option<(u8, &'a str)> {
        let (pt, rest) = value.split_once(' ')?;
        let pt = pt.parse().ok().filter(|pt| self.order.contains(pt))?;
        Some((pt, rest.trim()))
    }

    /// The codecs that the worker knows, as the offerer prefers them, and whether others were left out for naming two
    /// things with one payload type.
    pub(super) fn codecs(self) -> (Vec<OfferedCodec<'a>>, Contradictions) {
        let unique = self.order.iter().filter(|pt| !self.contradicting.contains(pt));
        let codecs = unique
            .filter_map(|pt| {
                let (_, encoding) = self.maps.iter().find(|(known, _)| known == pt)?;
                let (name, clock_rate, channels) = known(encoding)?;
                let fmtp = self.fmtps.iter().find(|(known, _)| known == pt).map_or("", |(_, fmtp)| *fmtp);
                let meant = |of: &Option<u8>| of.is_none_or(|of| of == *pt);
                let feedback =
                    Feedback::ALL.into_iter().filter(|f| self.feedback.iter().any(|(of, s)| meant(of) && s == f));
                Some(OfferedCodec { payload_type: *pt, name, clock_rate, channels, fmtp, feedback: feedback.collect() })
            })
            .collect();
        let contradictions = if self.contradicting.is_empty() { Contradictions::None } else { Contradictions::Some };
        (codecs, contradictions)
    }
}

/// Whether payload types of an m-line were passed over because they stand for two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contradictions {
    None,
    Some,
}

/// Name, clock rate and channels of an encoding in lower case, if the worker has a use for it.
fn known(encoding: &str) -> Option<(CodecName, u32, u16)> {
    Some(match encoding {
        "opus/48000/2" => (CodecName::Opus, 48_000, 2),
        "pcmu/8000" => (CodecName::Pcmu, 8_000, 1),
        "pcma/8000" => (CodecName::Pcma, 8_000, 1),
        "vp8/90000" => (CodecName::Vp8, 90_000, 1),
        "h264/90000" => (CodecName::H264, 90_000, 1),
        _ => return None,
    })
}

/// What an H.264 stream is like (RFC 6184 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct H264 {
    pub(crate) packetization_mode: u8,
    /// Profile, constraints, level.
    pub(crate) profile_level_id: [u8; 3],
}

impl H264 {
    /// Baseline, level 1, single NAL units: what the RFC says of an offer that says nothing.
    const IMPLIED: Self = Self { packetization_mode: 0, profile_level_id: [0x42, 0x00, 0x0a] };
    const BASELINE: u8 = 0x42;

    /// `None` if a parameter cannot be read.
    pub(crate) fn parse(fmtp: &str) -> Option<Self> {
        let mut read = Self::IMPLIED;
        for (key, value) in fmtp.split(';').filter_map(|parameter| parameter.split_once('=')) {
            let (key, value) = (key.trim(), value.trim());
            if key.eq_ignore_ascii_case("packetization-mode") {
                read.packetization_mode = value.parse().ok()?;
            } else if key.eq_ignore_ascii_case("profile-level-id") {
                let well_formed = value.len() == 6 && value.bytes().all(|b| b.is_ascii_hexdigit());
                let [_, id @ ..] = u32::from_str_radix(value, 16).ok().filter(|_| well_formed)?.to_be_bytes();
                read.profile_level_id = id;
            }
        }
        Some(read)
    }

    /// Both parameters in full, which is how the answer and the WebRTC core have them.
    pub(crate) fn to_fmtp(self) -> String {
        let [profile, constraints, level] = self.profile_level_id;
        format!(
            "level-asymmetry-allowed=1;packetization-mode={};profile-level-id={profile:02x}{constraints:02x}{level:02x}",
            self.packetization_mode
        )
    }

    /// Baseline and constrained baseline are what every browser decodes.
    fn is_usable(self) -> bool {
        self.profile_level_id[0] == Self::BASELINE && self.packetization_mode <= 1
    }
}

/// How gladly a codec is taken; the offerer's order decides among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Opus: it alone conceals losses.
    First,
    Good,
    /// H.264 whose pictures must fit into packets by the slice: small ones, at some cost.
    Last,
}

fn rank(kind: TrackKind, codec: &OfferedCodec<'_>) -> Option<Rank> {
    match (kind, codec.name) {
        (TrackKind::Audio, CodecName::Opus) => Some(Rank::First),
        (TrackKind::Audio, CodecName::Pcmu | CodecName::Pcma) | (TrackKind::Video, CodecName::Vp8) => Some(Rank::Good),
        (TrackKind::Video, CodecName::H264) => {
            let h264 = H264::parse(codec.fmtp).filter(|h264| h264.is_usable())?;
            Some(if h264.packetization_mode == 1 { Rank::Good } else { Rank::Last })
        }
        _ => None,
    }
}

/// RFC 5761 4: with RTP and RTCP on one port, these cannot be told from RTCP's packet types.
const TAKEN_BY_RTCP: std::ops::RangeInclusive<u8> = 64..=95;

/// The one codec that the answer will name for this m-line, beside `taken` payload types of other m-lines on the same
/// transport: a payload type names its track (RFC 8843 9.1).
///
/// # Errors
/// Why there is none.
pub(crate) fn codec<'s, 'a>(section: &'s Section<'a>, taken: &[u8]) -> Result<&'s OfferedCodec<'a>, InvalidOffer> {
    let SectionKind::Media(kind) = section.kind else { return Err(InvalidOffer::NoUsableMedia) };
    let ranked: Vec<_> = section.codecs.iter().filter_map(|codec| Some((rank(kind, codec)?, codec))).collect();
    if ranked.is_empty() {
        return Err(match section.contradictions {
            Contradictions::None => InvalidOffer::NoUsableMedia,
            Contradictions::Some => InvalidOffer::ContradictoryCodecs,
        });
    }
    let clear = ranked.iter().filter(|(_, codec)| !TAKEN_BY_RTCP.contains(&codec.payload_type));
    if clear.clone().next().is_none() {
        return Err(InvalidOffer::RtcpPayloadType);
    }
    // The first of the best: min_by_key keeps the offerer's order among equals.
    let free = clear.filter(|(_, codec)| !taken.contains(&codec.payload_type)).min_by_key(|(rank, _)| *rank);
    free.map(|(_, codec)| *codec).ok_or(InvalidOffer::SharedPayloadType)
}

/// The codec of an m-line that has its transport to itself.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn choose<'s, 'a>(section: &'s Section<'a>) -> Option<&'s OfferedCodec<'a>> {
    if section.rejected { None } else { codec(section, &[]).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sdp::sections;

    #[test]
    fn one_codec_is_chosen() {
        let check = |media: &str, attributes: &str, expected: Result<u8, InvalidOffer>| {
            let sdp = format!("v=0\r\n{media}\r\na=mid:0\r\n{attributes}");
            let read = sections(&sdp).unwrap();
            assert_eq!(codec(&read[0], &[]).map(|c| c.payload_type), expected, "{sdp}");
        };
        check("m=audio 9 X 0 8", "", Ok(0));
        check("m=audio 9 X 8 0", "", Ok(8));
        check("m=audio 9 X 8 96", "a=rtpmap:96 OPUS/48000/2\r\n", Ok(96));
        check("m=audio 9 X 96", "a=rtpmap:96 opus/16000/1\r\n", Err(InvalidOffer::NoUsableMedia));
        check("m=audio 9 X 9", "a=rtpmap:9 G722/8000\r\n", Err(InvalidOffer::NoUsableMedia));
        check("m=audio 9 X 96", "a=rtpmap:96 VP8/90000\r\n", Err(InvalidOffer::NoUsableMedia));
        check("m=video 9 X 98", "a=rtpmap:98 VP9/90000\r\n", Err(InvalidOffer::NoUsableMedia));
        // RTP and RTCP share a port: 64 to 95 look like RTCP there.
        for pt in [63, 96] {
            check(&format!("m=audio 9 X {pt}"), &format!("a=rtpmap:{pt} opus/48000/2\r\n"), Ok(pt));
        }
        for pt in [64, 72, 95] {
            let map = format!("a=rtpmap:{pt} opus/48000/2\r\n");
            check(&format!("m=audio 9 X {pt}"), &map, Err(InvalidOffer::RtcpPayloadType));
            check(&format!("m=audio 9 X {pt} 0"), &map, Ok(0));
        }
    }

    #[test]
    fn h264_is_baseline_and_says_so_or_nothing() {
        let check = |fmtp: Option<&str>, expected: Option<(u8, [u8; 3])>| {
            let fmtp = fmtp.map(|fmtp| format!("a=fmtp:102 {fmtp}\r\n")).unwrap_or_default();
            let sdp = format!("v=0\r\nm=video 9 X 102\r\na=rtpmap:102 H264/90000\r\n{fmtp}");
            let read = sections(&sdp).unwrap();
            let h264 = codec(&read[0], &[]).ok().map(|codec| H264::parse(codec.fmtp).unwrap());
            let found = h264.map(|h264| (h264.packetization_mode, h264.profile_level_id));
            assert_eq!(found, expected, "{sdp}");
        };
        check(Some("packetization-mode=1;profile-level-id=42e01f"), Some((1, [0x42, 0xe0, 0x1f])));
        check(Some("profile-level-id=42001F; packetization-mode=1"), Some((1, [0x42, 0, 0x1f])));
        check(Some("packetization-mode=1"), Some((1, [0x42, 0, 0x0a])));
        check(Some("profile-level-id=42e01f"), Some((0, [0x42, 0xe0, 0x1f])));
        check(Some("PACKETIZATION-MODE=1;x;=;sprop-parameter-sets=Z0LAH9o="), Some((1, [0x42, 0, 0x0a])));
        check(None, Some((0, [0x42, 0, 0x0a])));
        check(Some("packetization-mode=2;profile-level-id=42e01f"), None);
        check(Some("packetization-mode=1;profile-level-id=640c1f"), None);
        check(Some("packetization-mode=1;profile-level-id=4d001f"), None);
        for broken in ["", "42", "42e01", "42e01f0", "zzzzzz", "+2e01f", "42é1f"] {
            check(Some(&format!("packetization-mode=1;profile-level-id={broken}")), None);
        }
        check(Some("packetization-mode=one;profile-level-id=42e01f"), None);
    }

    #[test]
    fn another_codec_is_better_than_none() {
        let check = |formats: &str, maps: &[(u8, &str, &str)], expected: u8| {
            let lines: String = maps
                .iter()
                .map(|(pt, encoding, fmtp)| format!("a=rtpmap:{pt} {encoding}\r\na=fmtp:{pt} {fmtp}\r\n"))
                .collect();
            let sdp = format!("v=0\r\nm=video 9 X {formats}\r\n{lines}");
            assert_eq!(codec(&sections(&sdp).unwrap()[0], &[]).map(|c| c.payload_type), Ok(expected), "{sdp}");
        };
        let h264 = "H264/90000";
        let (high, single) = ("packetization-mode=1;profile-level-id=640c1f", "profile-level-id=42e01f");
        let baseline = "packetization-mode=1;profile-level-id=42e01f";
        check("100 101", &[(100, h264, high), (101, "VP8/90000", "")], 101);
        check("100 101", &[(100, h264, "profile-level-id=?"), (101, h264, baseline)], 101);
        check("100 101", &[(100, h264, baseline), (101, "VP8/90000", "")], 100);
        check("100 101", &[(100, h264, single), (101, h264, baseline)], 101);
        check("100 101", &[(100, h264, single), (101, "VP8/90000", "")], 101);
    }

    #[test]
    fn a_payload_type_that_is_two_things_is_none() {
        let check = |formats: &str, maps: &[&str], expected: Result<u8, InvalidOffer>| {
            let lines: String = maps.iter().map(|map| format!("a=rtpmap:{map}\r\n")).collect();
            let sdp = format!("v=0\r\nm=audio 9 X {formats}\r\n{lines}");
            let read = sections(&sdp).unwrap();
            assert_eq!(codec(&read[0], &[]).map(|c| c.payload_type), expected, "{sdp}");
        };
        let two = Err(InvalidOffer::ContradictoryCodecs);
        check("96", &["96 opus/48000/2", "96 OPUS/48000/2"], Ok(96));
        check("97", &["97 PCMU/8000", "97 PCMU/8000/1"], Ok(97));
        check("96", &["96 opus/48000/2", "96 PCMU/8000"], two);
        check("96", &["96 opus/48000/2", "96 PCMU/8000", "96 opus/48000/2"], two);
        check("96", &["96 opus/48000/2", "96 VP9/90000"], two);
        check("96", &["96 telephone-event/8000", "96 opus/48000/2"], two);
        check("96 8", &["96 opus/48000/2", "96 PCMU/8000"], Ok(8));
        check("0", &["0 opus/48000/2"], two);
        check("0 8", &["0 opus/48000/2"], Ok(8));
        check("96 96", &["96 opus/48000/2"], Ok(96));
        // What is not on the m-line means nothing.
        check("96", &["96 opus/48000/2", "97 opus/48000/2", "97 PCMU/8000"], Ok(96));
    }

    #[test]
    fn what_another_m_line_took_is_taken() {
        let sdp = "v=0\r\nm=video 9 X 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 VP8/90000\r\n";
        let read = sections(sdp).unwrap();
        let chosen = |taken: &[u8]| codec(&read[0], taken).map(|codec| codec.payload_type);
        assert_eq!(chosen(&[]), Ok(96));
        assert_eq!(chosen(&[96]), Ok(97));
        assert_eq!(chosen(&[96, 97]), Err(InvalidOffer::SharedPayloadType));
    }

    #[test]
    fn feedback_is_for_one_payload_type_or_all() {
        let check = |lines: &str, expected: &[Feedback]| {
            let sdp = format!("v=0\r\nm=video 9 X 96 97\r\na=rtpmap:96 VP8/90000\r\n{lines}");
            assert_eq!(sections(&sdp).unwrap()[0].codecs[0].feedback, expected, "{sdp}");
        };
        check("", &[]);
        check("a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 ccm fir\r\na=rtcp-fb:96 nack\r\n", &Feedback::ALL);
        check("a=rtcp-fb:97 nack pli\r\na=rtcp-fb:96 goog-remb\r\n", &[]);
        check("a=rtcp-fb:* ccm fir\r\na=rtcp-fb:* ccm fir\r\n", &[Feedback::Fir]);
        check("a=rtcp-fb:\r\na=rtcp-fb:x nack pli\r\na=rtcp-fb:300 nack pli\r\n", &[]);
    }
}
