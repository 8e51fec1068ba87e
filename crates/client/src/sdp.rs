//! The few facts that a client needs of a session description (RFC 8866): which m-lines there are, what was chosen
//! for each, and which of them has a transport of its own.

use thiserror::Error;

/// More m-lines than any call has; a description with more is refused before it costs memory.
const MAX_LINES: usize = 64;
/// More payload types than RTP has room for in one m-line.
const MAX_FORMATS: usize = 128;

/// Why a description cannot be used.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum InvalidSdp {
    /// Not a session description.
    #[error("the server's answer is not SDP: it does not start with `v=0`")]
    NotSdp,
    /// An m-line that cannot be read, or too many.
    #[error("the server's answer has a malformed m-line, or more than {MAX_LINES}")]
    MediaLine,
}

/// The kind of an m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    Video,
    Data,
    Other,
}

/// One payload type of an m-line: `a=rtpmap` (RFC 8866, 6.6), or its static meaning (RFC 3551, 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) payload_type: u8,
    /// Upper case, such as `OPUS`.
    pub(crate) name: String,
}

/// One m-line with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaLine {
    pub(crate) kind: Kind,
    pub(crate) mid: Option<String>,
    /// Port 0 without `a=bundle-only`: the peer does not want this m-line (RFC 3264, 6).
    pub(crate) rejected: bool,
    /// In the peer's order of preference.
    pub(crate) formats: Vec<Format>,
}

/// A description, reduced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) lines: Vec<MediaLine>,
    bundle: Vec<String>,
}

/// Where a candidate belongs: the `sdpMid` and `sdpMLineIndex` of a trickled one (RFC 8840, 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) mid: Option<String>,
    pub(crate) index: u16,
}

impl Description {
    pub(crate) fn parse(sdp: &str) -> Result<Self, InvalidSdp> {
        let mut description = Self::default();
        let mut lines = sdp.lines().map(str::trim_end);
        if lines.next() != Some("v=0") {
            return Err(InvalidSdp::NotSdp);
        }
        for line in lines {
            if let Some(rest) = line.strip_prefix("m=") {
                if description.lines.len() == MAX_LINES {
                    return Err(InvalidSdp::MediaLine);
                }
                description.lines.push(MediaLine::parse(rest).ok_or(InvalidSdp::MediaLine)?);
            } else if let Some(rest) = line.strip_prefix("a=group:BUNDLE") {
                description.bundle = rest.split_ascii_whitespace().take(MAX_LINES).map(str::to_owned).collect();
            } else if let Some(media) = description.lines.last_mut() {
                media.attribute(line);
            }
        }
        Ok(description)
    }

    /// The m-lines that candidates are sent for: all accepted ones, less those that share the transport of the first
    /// of their bundle (RFC 9143, 7.1.1). An answer that refuses BUNDLE gets each candidate once per m-line.
    pub(crate) fn candidate_targets(&self) -> Vec<Target> {
        let live = |mid: &str| self.lines.iter().any(|line| !line.rejected && line.mid.as_deref() == Some(mid));
        let tagged = self.bundle.iter().find(|mid| live(mid));
        (0u16..)
            .zip(&self.lines)
            .filter(|(_, line)| !line.rejected)
            .filter(|(_, line)| match &line.mid {
                Some(mid) => !self.bundle.contains(mid) || Some(mid) == tagged,
                None => true,
            })
            .map(|(index, line)| Target { mid: line.mid.clone(), index })
            .collect()
    }

    /// The first accepted m-line of this kind.
    pub(crate) fn line(&self, kind: Kind) -> Option<&MediaLine> {
        self.lines.iter().find(|line| line.kind == kind && !line.rejected)
    }
}

impl MediaLine {
    fn parse(rest: &str) -> Option<Self> {
        let mut words = rest.split_ascii_whitespace();
        let kind = match words.next()? {
            "audio" => Kind::Audio,
            "video" => Kind::Video,
            "application" => Kind::Data,
            _ => Kind::Other,
        };
        let port: u16 = words.next()?.split('/').next()?.parse().ok()?;
        let protocol = words.next()?;
        let payload_types = words.filter(|_| protocol.contains("RTP")).take(MAX_FORMATS);
        let formats = payload_types
            .filter_map(|word| word.parse().ok())
            .map(|payload_type| Format { payload_type, name: static_name(payload_type).to_owned() })
            .collect();
        Some(Self { kind, mid: None, rejected: port == 0, formats })
    }

    fn attribute(&mut self, line: &str) {
        if let Some(mid) = line.strip_prefix("a=mid:") {
            self.mid = Some(mid.to_owned());
        } else if line == "a=bundle-only" {
            self.rejected = false;
        } else if let Some(map) = line.strip_prefix("a=rtpmap:")
            && let Some((payload_type, encoding)) = map.split_once(' ')
            && let Ok(payload_type) = payload_type.parse::<u8>()
            && let Some(format) = self.formats.iter_mut().find(|format| format.payload_type == payload_type)
        {
            format.name = encoding.split('/').next().unwrap_or_default().to_ascii_uppercase();
        }
    }

    /// The name of a payload type.
    pub(crate) fn name_of(&self, payload_type: u8) -> Option<&str> {
        self.formats.iter().find(|format| format.payload_type == payload_type).map(|format| format.name.as_str())
    }
}

/// Payload types that need no `a=rtpmap`.
fn static_name(payload_type: u8) -> &'static str {
    match payload_type {
        0 => "PCMU",
        8 => "PCMA",
        9 => "G722",
        _ => "",
    }
}

/// The description without candidates of component 2: with RTCP multiplexed (RFC 5761) there is no such component, and
/// each would double the checks of a server that reads them.
pub(crate) fn without_rtcp_candidates(sdp: &str) -> String {
    sdp.split_inclusive('\n')
        .filter(|line| {
            let candidate = line.strip_prefix("a=candidate:");
            candidate.and_then(|rest| rest.split_ascii_whitespace().nth(1)) != Some("2")
        })
        .collect()
}

/// How many candidates a description has.
pub(crate) fn candidates(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("a=candidate:")).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 96 0\r\na=mid:0\r\na=rtpmap:96 opus/48000/2\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 97\r\na=mid:1\r\na=bundle-only\r\na=rtpmap:97 VP8/90000\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";

    #[test]
    fn an_answer_is_reduced() {
        let answer = Description::parse(ANSWER).unwrap();
        let audio = answer.line(Kind::Audio).unwrap();
        let names: Vec<_> = audio.formats.iter().map(|f| (f.payload_type, f.name.as_str())).collect();
        assert_eq!(names, [(96, "OPUS"), (0, "PCMU")]);
        assert_eq!(audio.name_of(0), Some("PCMU"));
        assert_eq!(audio.name_of(111), None);
        assert!(answer.line(Kind::Video).is_some(), "bundle-only is not a rejection");
        assert!(answer.line(Kind::Data).unwrap().formats.is_empty());
    }

    #[test]
    fn candidates_belong_to_each_transport_once() {
        fn check(sdp: &str, expected: &[(Option<&str>, u16)]) {
            let targets = Description::parse(sdp).unwrap().candidate_targets();
            let found: Vec<_> = targets.iter().map(|t| (t.mid.as_deref(), t.index)).collect();
            assert_eq!(found, expected, "{sdp}");
        }
        check(ANSWER, &[(Some("0"), 0)]);
        check(&ANSWER.replace("a=group:BUNDLE 0 1 2\r\n", ""), &[(Some("0"), 0), (Some("1"), 1), (Some("2"), 2)]);
        check(&ANSWER.replace("BUNDLE 0 1 2", "BUNDLE 1 2"), &[(Some("0"), 0), (Some("1"), 1)]);
        // The first m-line is refused, so the second one carries the bundle's transport.
        check(&ANSWER.replace("m=audio 9", "m=audio 0"), &[(Some("1"), 1)]);
        check("v=0\nm=audio 9 RTP/AVP 0\n", &[(None, 0)]);
        check("v=0\n", &[]);
    }

    #[test]
    fn descriptions_that_are_refused() {
        fn check(sdp: &str, expected: InvalidSdp) {
            assert_eq!(Description::parse(sdp), Err(expected), "{sdp}");
        }
        check("", InvalidSdp::NotSdp);
        check("<html>", InvalidSdp::NotSdp);
        check("v=0\nm=audio\n", InvalidSdp::MediaLine);
        check("v=0\nm=audio x RTP/AVP 0\n", InvalidSdp::MediaLine);
        check(&format!("v=0\n{}", "m=audio 9 RTP/AVP 0\n".repeat(MAX_LINES + 1)), InvalidSdp::MediaLine);
    }

    #[test]
    fn component_two_is_left_away() {
        let sdp = "v=0\r\na=candidate:1 1 udp 5 127.0.0.1 9 typ host\r\na=candidate:1 2 udp 5 127.0.0.1 9 typ host\r\n";
        assert_eq!(candidates(sdp), 2);
        let kept = without_rtcp_candidates(sdp);
        assert_eq!(kept, "v=0\r\na=candidate:1 1 udp 5 127.0.0.1 9 typ host\r\n");
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "(v=0\n)?([am]=(audio|mid:|group:BUNDLE|rtpmap:)?[ -~]{0,40}\n){0,20}") {
            let _ = Description::parse(&text).map(|d| d.candidate_targets());
            prop_assert!(without_rtcp_candidates(&text).len() <= text.len());
        }
    }
}
