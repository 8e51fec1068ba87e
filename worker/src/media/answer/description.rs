//! The two descriptions that are written here: the offer as the WebRTC core is given it, and the answer as the client gets
//! it.
//!
//! The core reads nothing that a client wrote. It is told of the m-lines that were taken, one codec each, and of one
//! transport; what it cannot use it would reject without a word, and a contradiction it might resolve in another way.

use std::fmt::Write as _;
use std::net::SocketAddr;

use streamfleet_handler::CodecName;

use super::candidates::host_candidate;
use super::choice::{Choice, Role, Taken};
use super::transport::{Ice, Transport};
use crate::media::sdp::{self, H264, InvalidOffer, MediaLine, OfferedCodec, Section};

/// RFC 8841: where an offer names none.
const SCTP_PORT: u16 = 5000;

/// The offer for the core.
pub(super) fn for_core(choice: &Choice<'_, '_>, transport: &Transport<'_>) -> String {
    let mut out = String::with_capacity(1024);
    let mids: Vec<&str> = choice.taken().iter().map(|taken| taken.section.mid).collect();
    out.push_str("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
    line(&mut out, format_args!("a=group:BUNDLE {}", mids.join(" ")));
    if transport.ice == Ice::Lite {
        line(&mut out, format_args!("a=ice-lite"));
    }
    for taken in choice.taken() {
        let section = taken.section;
        match &taken.role {
            Role::Track(_, codec) => {
                line(&mut out, format_args!("m={} 9 UDP/TLS/RTP/SAVPF {}", section.line.media, codec.payload_type));
                common(&mut out, section, transport);
                line(&mut out, format_args!("a=rtcp-mux"));
                line(&mut out, format_args!("a={}", section.direction.as_str()));
                encoding(&mut out, codec);
            }
            Role::DataChannel => {
                line(&mut out, format_args!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel"));
                common(&mut out, section, transport);
                line(&mut out, format_args!("a=sctp-port:{}", section.sctp_port.unwrap_or(SCTP_PORT)));
                if let Some(size) = section.max_message_size {
                    line(&mut out, format_args!("a=max-message-size:{size}"));
                }
            }
        }
    }
    out
}

fn common(out: &mut String, section: &Section<'_>, transport: &Transport<'_>) {
    line(out, format_args!("c=IN IP4 0.0.0.0"));
    line(out, format_args!("a=mid:{}", section.mid));
    line(out, format_args!("a=ice-ufrag:{}", transport.credentials.ufrag));
    line(out, format_args!("a=ice-pwd:{}", transport.credentials.pwd));
    line(out, format_args!("a=fingerprint:{}", transport.fingerprint));
    line(out, format_args!("a=setup:actpass"));
}

fn encoding(out: &mut String, codec: &OfferedCodec<'_>) {
    let pt = codec.payload_type;
    let channels = if codec.channels > 1 { format!("/{}", codec.channels) } else { String::new() };
    line(out, format_args!("a=rtpmap:{pt} {}/{}{channels}", codec.name.as_str(), codec.clock_rate));
    let fmtp = fmtp(codec);
    if !fmtp.is_empty() {
        line(out, format_args!("a=fmtp:{pt} {fmtp}"));
    }
    for feedback in &codec.feedback {
        let (kind, parameter) = feedback.words();
        line(out, format_args!("a=rtcp-fb:{pt} {kind} {parameter}"));
    }
}

/// The format's parameters in the answer, and on both sides of the core.
pub(super) fn fmtp(codec: &OfferedCodec<'_>) -> String {
    match codec.name {
        // In-band FEC both ways; what DTX a client does is its own choice.
        CodecName::Opus => "minptime=10;useinbandfec=1".to_owned(),
        CodecName::Pcmu | CodecName::Pcma => String::new(),
        CodecName::Vp8 => codec.fmtp.to_owned(),
        // An answer must repeat mode and profile (RFC 6184 8.2.2); the core compares nothing that is only implied.
        CodecName::H264 => H264::parse(codec.fmtp).map_or_else(String::new, H264::to_fmtp),
    }
}

/// The answer for the client, from the core's: an m-line for each of the offer's, in its order and with its protocol (RFC
/// 8829 5.3.1), and every advertised address as a candidate in each one that lives.
///
/// # Errors
/// The core did not take what it was told to.
pub(super) fn for_client(
    core: &str,
    choice: &Choice<'_, '_>,
    advertised: &[SocketAddr],
) -> Result<String, InvalidOffer> {
    let agreed = sdp::sections(core).map_err(|_| InvalidOffer::Unanswerable)?;
    if agreed.len() != choice.taken().len() {
        return Err(InvalidOffer::Unanswerable);
    }
    for (ours, taken) in agreed.iter().zip(choice.taken()) {
        check(ours, taken)?;
    }
    let mut out = String::with_capacity(core.len() + 80 * advertised.len());
    let mut lines = core.lines().map(str::trim_end).filter(|l| !l.is_empty() && !is_candidate(l)).peekable();
    while let Some(text) = lines.next_if(|l| !l.starts_with("m=")) {
        line(&mut out, format_args!("{text}"));
    }
    for (section, taken) in choice.answers() {
        let MediaLine { media, protocol, format } = section.line;
        let Some(taken) = taken else {
            line(&mut out, format_args!("m={media} 0 {protocol} {format}"));
            line(&mut out, format_args!("c=IN IP4 0.0.0.0"));
            if !section.mid.is_empty() {
                line(&mut out, format_args!("a=mid:{}", section.mid));
            }
            continue;
        };
        lines.next();
        match taken.role {
            Role::Track(_, codec) => line(&mut out, format_args!("m={media} 9 {protocol} {}", codec.payload_type)),
            Role::DataChannel => line(&mut out, format_args!("m={media} 9 {protocol} {format}")),
        }
        while let Some(text) = lines.next_if(|l| !l.starts_with("m=")) {
            line(&mut out, format_args!("{text}"));
        }
        for (i, address) in advertised.iter().enumerate() {
            line(&mut out, format_args!("a={}", host_candidate(i, *address)));
        }
        line(&mut out, format_args!("a=end-of-candidates"));
    }
    Ok(out)
}

/// The core's m-line is the one that was taken, with its one codec.
fn check(ours: &Section<'_>, taken: &Taken<'_, '_>) -> Result<(), InvalidOffer> {
    let expected = match taken.role {
        Role::Track(_, codec) => Some(codec.payload_type),
        Role::DataChannel => None,
    };
    let agrees = ours.mid == taken.section.mid
        && !ours.rejected
        && ours.codecs.iter().map(|codec| codec.payload_type).eq(expected);
    if agrees { Ok(()) } else { Err(InvalidOffer::Unanswerable) }
}

fn is_candidate(line: &str) -> bool {
    line.starts_with("a=candidate:") || line == "a=end-of-candidates"
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
    out.push_str("\r\n");
}
