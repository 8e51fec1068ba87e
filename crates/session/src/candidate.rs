//! Remote ICE candidates as clients send them (RFC 8839, 5.1; W3C `RTCIceCandidateInit`).
//!
//! [`RemoteCandidate::from_line`] is the grammar, [`RemoteCandidate::parse`] adds the JSON forms and the policy: what
//! a server without TCP, mDNS and name look-ups can use.

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde_json::{Map, Value};

/// The longest candidate line, in bytes. The longest that a browser makes (IPv6 relay with all extensions) is about
/// 250.
pub const MAX_LINE: usize = 512;

/// The longest JSON text of a candidate object, in bytes: a line and its few short keys.
const MAX_JSON: usize = 2 * MAX_LINE;

/// The longest media id, in bytes. Browsers send one or two digits; RFC 8843 (14.2) recommends at most 16.
const MAX_MID: usize = 64;

/// What a candidate message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParsedCandidate {
    /// A candidate to try.
    Candidate(RemoteCandidate),
    /// There will be no more.
    EndOfCandidates,
    /// Well-formed and of no use here; answered like a candidate.
    Ignored(IgnoredReason),
}

/// Why a well-formed candidate is not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IgnoredReason {
    /// A multicast DNS name (`.local`), which does not resolve beyond the client's own network.
    Mdns,
    /// Another host name. Looking names up for a stranger is not ours to do (RFC 8839, 5.1 lets it be ignored).
    HostName,
    /// A transport other than UDP.
    Transport,
    /// A component other than RTP: RTCP shares its port (RFC 5761).
    Component,
    /// Port 0, or an address that is no unicast address.
    Address,
    /// A candidate type that RFC 8445 does not name.
    Type,
}

impl IgnoredReason {
    /// The stable label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mdns => "mdns",
            Self::HostName => "host_name",
            Self::Transport => "transport",
            Self::Component => "component",
            Self::Address => "address",
            Self::Type => "type",
        }
    }
}

/// Why a candidate was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCandidate {
    /// The message is no candidate object.
    #[error("a candidate must be an object with a candidate string")]
    NotACandidate,
    /// The message is too long.
    #[error("a candidate must be at most {MAX_LINE} bytes long")]
    TooLong,
    /// A field of the line is missing or wrong.
    #[error("a candidate's {0} is missing or invalid")]
    Field(&'static str),
    /// Neither `sdpMid` nor `sdpMLineIndex` says which media section it belongs to.
    #[error("a candidate needs sdpMid or sdpMLineIndex")]
    NoMediaSection,
}

/// The transport of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateTransport {
    /// UDP.
    Udp,
    /// TCP (RFC 6544).
    Tcp,
    /// A transport extension.
    Other,
}

/// The address of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateAddress {
    /// An address and a port. IPv4-mapped IPv6 addresses are IPv4 here.
    Ip(SocketAddr),
    /// A multicast DNS name.
    Mdns,
    /// Any other host name.
    HostName,
}

/// The type of a candidate (RFC 8445, 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateType {
    /// An address of the client itself.
    Host,
    /// Seen by a STUN server.
    ServerReflexive,
    /// Seen by the peer.
    PeerReflexive,
    /// Of a TURN server.
    Relay,
    /// A type extension.
    Other,
}

impl CandidateType {
    /// The word in a candidate line; `None` for an extension.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Host => Some("host"),
            Self::ServerReflexive => Some("srflx"),
            Self::PeerReflexive => Some("prflx"),
            Self::Relay => Some("relay"),
            Self::Other => None,
        }
    }
}

/// One candidate of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteCandidate {
    /// 1 to 32 ice-chars.
    pub foundation: String,
    /// 1 for RTP, 2 for RTCP.
    pub component: u16,
    /// UDP or another.
    pub transport: CandidateTransport,
    /// As the client computed it.
    pub priority: u32,
    /// Where it is.
    pub address: CandidateAddress,
    /// What kind it is.
    pub typ: CandidateType,
    /// The media section's `a=mid`.
    pub sdp_mid: Option<String>,
    /// The media section's index, from 0.
    pub sdp_mline_index: Option<u16>,
    /// The ufrag of the ICE generation it belongs to.
    pub ufrag: Option<String>,
    /// The candidate as `candidate:…`, rebuilt from the parsed fields: single spaces, canonical addresses, `raddr` and
    /// `rport` if they were addresses, and no extension. Safe to put into SDP.
    pub line: String,
}

impl RemoteCandidate {
    /// Reads one message of a client. Accepted:
    ///
    /// - `RTCIceCandidate.toJSON()`: `{candidate, sdpMid, sdpMLineIndex, usernameFragment}`; the index may be a number
    ///   or its digits, and one of mid and index may be missing;
    /// - aiortc's signalling form: `{candidate, id, label, type}`;
    /// - either of them as a string of JSON;
    /// - `null`, `""`, and an object whose `candidate` is one of these: the end of candidates.
    ///
    /// # Errors
    /// When it is none of these, or longer than [`MAX_LINE`].
    pub fn parse(value: &Value) -> Result<ParsedCandidate, InvalidCandidate> {
        match value {
            Value::Null => Ok(ParsedCandidate::EndOfCandidates),
            Value::Object(object) => Self::from_object(object),
            Value::String(text) if text.trim().is_empty() => Ok(ParsedCandidate::EndOfCandidates),
            Value::String(text) if text.len() > MAX_JSON => Err(InvalidCandidate::TooLong),
            Value::String(text) => match serde_json::from_str(text) {
                Ok(Value::Object(object)) => Self::from_object(&object),
                _ => Err(InvalidCandidate::NotACandidate),
            },
            _ => Err(InvalidCandidate::NotACandidate),
        }
    }

    fn from_object(object: &Map<String, Value>) -> Result<ParsedCandidate, InvalidCandidate> {
        let line = match object.get("candidate") {
            Some(Value::Null) => "",
            Some(Value::String(line)) => line,
            _ => return Err(InvalidCandidate::NotACandidate),
        };
        if line.len() > MAX_LINE {
            return Err(InvalidCandidate::TooLong);
        }
        if matches!(line.trim().trim_start_matches("a="), "" | "end-of-candidates") {
            return Ok(ParsedCandidate::EndOfCandidates);
        }
        let mut candidate = Self::from_line(line)?;
        candidate.sdp_mid = mid(first_of(object, ["sdpMid", "id"]))?;
        candidate.sdp_mline_index = index(first_of(object, ["sdpMLineIndex", "label"]))?;
        if candidate.sdp_mid.is_none() && candidate.sdp_mline_index.is_none() {
            return Err(InvalidCandidate::NoMediaSection);
        }
        match first_of(object, ["usernameFragment"]) {
            None => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) => candidate.ufrag = Some(ufrag(text)?),
            Some(_) => return Err(InvalidCandidate::Field("usernameFragment")),
        }
        Ok(candidate.triage())
    }

    /// Reads one candidate line, with `candidate:`, `a=candidate:` or nothing before its foundation. Media section
    /// and policy are not its matter: `sdp_mid` and `sdp_mline_index` are `None`.
    ///
    /// # Errors
    /// Names the first field that is missing or wrong.
    pub fn from_line(line: &str) -> Result<Self, InvalidCandidate> {
        if line.len() > MAX_LINE {
            return Err(InvalidCandidate::TooLong);
        }
        let line = line.trim();
        let line = line.strip_prefix("a=").unwrap_or(line);
        let line = line.strip_prefix("candidate:").unwrap_or(line);
        let mut tokens = line.split_ascii_whitespace();
        let mut field = |name| tokens.next().ok_or(InvalidCandidate::Field(name));

        let foundation = field("foundation")?;
        if foundation.len() > 32 || !foundation.bytes().all(is_ice_char) {
            return Err(InvalidCandidate::Field("foundation"));
        }
        let component: u16 = number(field("component")?).ok_or(InvalidCandidate::Field("component"))?;
        if !(1..=256).contains(&component) {
            return Err(InvalidCandidate::Field("component"));
        }
        let transport_text = field("transport")?;
        let transport = transport(transport_text)?;
        let priority: u32 = number(field("priority")?).ok_or(InvalidCandidate::Field("priority"))?;
        let host = host(field("address")?)?;
        let port: u16 = number(field("port")?).ok_or(InvalidCandidate::Field("port"))?;
        if field("typ")? != "typ" {
            return Err(InvalidCandidate::Field("typ"));
        }
        let type_text = field("type")?;
        let typ = candidate_type(type_text)?;

        let extensions = Extensions::read(tokens);
        let mut candidate = Self {
            foundation: foundation.to_owned(),
            component,
            transport,
            priority,
            address: match host {
                Host::Ip(ip) => CandidateAddress::Ip(SocketAddr::new(ip, port)),
                Host::Mdns(_) => CandidateAddress::Mdns,
                Host::Name(_) => CandidateAddress::HostName,
            },
            typ,
            sdp_mid: None,
            sdp_mline_index: None,
            ufrag: extensions.ufrag.map(ufrag).transpose()?,
            line: format!("candidate:{foundation} {component} "),
        };
        let transport_text = transport_text.to_ascii_lowercase();
        // Writing to a `String` cannot fail.
        let _ = write!(candidate.line, "{transport_text} {priority} {host} {port} typ {type_text}");
        if let Some((address, port)) = extensions.related {
            let _ = write!(candidate.line, " raddr {address} rport {port}");
        }
        Ok(candidate)
    }

    /// The address, if it is one and not a name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.address {
            CandidateAddress::Ip(address) => Some(address),
            CandidateAddress::Mdns | CandidateAddress::HostName => None,
        }
    }

    /// Sorts out what cannot be used.
    fn triage(self) -> ParsedCandidate {
        let reason = match (&self.address, self.transport, self.typ) {
            (_, CandidateTransport::Tcp | CandidateTransport::Other, _) => IgnoredReason::Transport,
            (CandidateAddress::Mdns, ..) => IgnoredReason::Mdns,
            (CandidateAddress::HostName, ..) => IgnoredReason::HostName,
            (CandidateAddress::Ip(address), ..) if !is_unicast(address) => IgnoredReason::Address,
            (_, _, CandidateType::Other) => IgnoredReason::Type,
            _ if self.component != 1 => IgnoredReason::Component,
            _ => return ParsedCandidate::Candidate(self),
        };
        ParsedCandidate::Ignored(reason)
    }
}

/// The first of the keys that is there and not null.
fn first_of<'a, const N: usize>(object: &'a Map<String, Value>, keys: [&str; N]) -> Option<&'a Value> {
    keys.into_iter().find_map(|key| object.get(key).filter(|value| !value.is_null()))
}

fn mid(value: Option<&Value>) -> Result<Option<String>, InvalidCandidate> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_MID && text.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(InvalidCandidate::Field("sdpMid")),
    }
}

fn index(value: Option<&Value>) -> Result<Option<u16>, InvalidCandidate> {
    let index = match value {
        None => return Ok(None),
        Some(Value::String(text)) => number(text.trim()),
        Some(Value::Number(index)) => index.as_u64().and_then(|index| index.try_into().ok()),
        Some(_) => None,
    };
    index.map(Some).ok_or(InvalidCandidate::Field("sdpMLineIndex"))
}

/// A ufrag: 4 to 256 ice-chars (RFC 8839, 5.4).
fn ufrag(text: &str) -> Result<String, InvalidCandidate> {
    if (4..=256).contains(&text.len()) && text.bytes().all(is_ice_char) {
        Ok(text.to_owned())
    } else {
        Err(InvalidCandidate::Field("usernameFragment"))
    }
}

/// `ice-char` of RFC 8839 (5.1).
fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// A number of digits only: `FromStr` alone would take a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_token(text: &str) -> bool {
    text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn transport(text: &str) -> Result<CandidateTransport, InvalidCandidate> {
    if text.eq_ignore_ascii_case("udp") {
        Ok(CandidateTransport::Udp)
    } else if text.eq_ignore_ascii_case("tcp") {
        Ok(CandidateTransport::Tcp)
    } else if is_token(text) {
        Ok(CandidateTransport::Other)
    } else {
        Err(InvalidCandidate::Field("transport"))
    }
}

fn candidate_type(text: &str) -> Result<CandidateType, InvalidCandidate> {
    match text {
        "host" => Ok(CandidateType::Host),
        "srflx" => Ok(CandidateType::ServerReflexive),
        "prflx" => Ok(CandidateType::PeerReflexive),
        "relay" => Ok(CandidateType::Relay),
        _ if is_token(text) => Ok(CandidateType::Other),
        _ => Err(InvalidCandidate::Field("type")),
    }
}

/// The connection address of a line.
enum Host<'a> {
    Ip(IpAddr),
    Mdns(&'a str),
    Name(&'a str),
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Mdns(name) | Self::Name(name) => f.write_str(name),
        }
    }
}

fn host(text: &str) -> Result<Host<'_>, InvalidCandidate> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Host::Ip(ip.to_canonical()));
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // A name's last label is never a number (RFC 3696, 2): `300.1.1.1` is a broken address and not a name.
    let last = text.rsplit('.').next().unwrap_or(text);
    if text.len() > 253 || !text.split('.').all(label) || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidCandidate::Field("address"));
    }
    Ok(if last.eq_ignore_ascii_case("local") { Host::Mdns(text) } else { Host::Name(text) })
}

/// Whether packets to the address reach one host: nobody's offer may point us at a multicast group.
fn is_unicast(address: &SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// What is read of the name-value pairs behind the type.
#[derive(Default)]
struct Extensions<'a> {
    related: Option<(IpAddr, u16)>,
    ufrag: Option<&'a str>,
}

impl<'a> Extensions<'a> {
    fn read(mut tokens: impl Iterator<Item = &'a str>) -> Self {
        let (mut address, mut port, mut ufrag) = (None, None, None);
        while let (Some(name), Some(value)) = (tokens.next(), tokens.next()) {
            match name {
                "raddr" => address = value.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
                "rport" => port = number(value),
                "ufrag" => ufrag = Some(value),
                _ => {}
            }
        }
        Self { related: address.zip(port), ufrag }
    }
}

#[cfg(test)]
#[path = "candidate_tests.rs"]
mod tests;
