//! Under which URL the world reaches us, from what a request says.

use std::fmt;
use std::net::Ipv6Addr;

/// The longest name of a host, in characters (RFC 1035, 2.3.4).
const MAX_HOST: usize = 253;

/// The headers that name our origin. A deployment that no proxy stands in front of leaves the forwarded ones out, or
/// anybody could write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forwarded<'a> {
    /// `X-Forwarded-Proto`.
    pub proto: Option<&'a str>,
    /// `X-Forwarded-Host`.
    pub forwarded_host: Option<&'a str>,
    /// `X-Forwarded-Port`.
    pub port: Option<&'a str>,
    /// `Host`, or `:authority`.
    pub host: Option<&'a str>,
}

/// A scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    const fn own_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a request says about our origin cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// No header names a host.
    #[error("no header names the host")]
    NoHost,
    /// The host is neither a name nor an address.
    #[error("the host is neither a name nor an address")]
    Host,
    /// The port is none.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// The scheme is none of ours.
    #[error("the forwarded protocol is neither http nor https")]
    Proto,
}

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicOrigin {
    scheme: Scheme,
    host: String,
    port: Option<u16>,
}

impl PublicOrigin {
    /// Reads the headers. Of a list the first entry counts: the proxy next to the client wrote it. A port in the host
    /// is what the client typed and comes before `X-Forwarded-Port`. `scheme` is what this connection has.
    ///
    /// # Errors
    /// [`InvalidOrigin`]: nothing that is refused here may be guessed around, as it ends up in TwiML and signatures.
    pub fn parse(headers: Forwarded<'_>, scheme: Scheme) -> Result<Self, InvalidOrigin> {
        let scheme = match headers.proto.map(first) {
            None => scheme,
            Some(proto) if ["https", "wss"].iter().any(|name| proto.eq_ignore_ascii_case(name)) => Scheme::Https,
            Some(proto) if ["http", "ws"].iter().any(|name| proto.eq_ignore_ascii_case(name)) => Scheme::Http,
            Some(_) => return Err(InvalidOrigin::Proto),
        };
        let authority = headers.forwarded_host.map(first).or(headers.host).ok_or(InvalidOrigin::NoHost)?;
        let (host, port) = split_port(authority);
        check_host(host)?;
        let port = match port.or(headers.port.map(first)) {
            Some(port) => Some(parse_port(port)?),
            None => None,
        };
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port: port.filter(|&port| port != scheme.own_port()) })
    }

    /// The URL of a path (and query) for HTTP requests.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{self}{path}")
    }

    /// The URL of a path for a media stream. Always `wss`: Twilio takes no other.
    #[must_use]
    pub fn stream_url(&self, path: &str) -> String {
        format!("wss://{self}{path}")
    }
}

/// Host and port as in a URL.
impl fmt::Display for PublicOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn first(list: &str) -> &str {
    list.split(',').next().unwrap_or_default().trim()
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The last colon of a bare IPv6 address is within its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidOrigin> {
    // `parse` would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| digits && port > 0).ok_or(InvalidOrigin::Port)
}

fn check_host(host: &str) -> Result<(), InvalidOrigin> {
    let is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            (1..=MAX_HOST).contains(&host.len()) && host.bytes().all(is_name)
        }
    };
    if is_valid { Ok(()) } else { Err(InvalidOrigin::Host) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: Forwarded<'_> = Forwarded { proto: None, forwarded_host: None, port: None, host: None };

    #[track_caller]
    fn check(headers: Forwarded<'_>, expected: Result<&str, InvalidOrigin>) {
        let url = PublicOrigin::parse(headers, Scheme::Http).map(|origin| origin.url("/x"));
        assert_eq!(url.as_deref().map_err(|&error| error), expected, "{headers:?}");
    }

    #[test]
    fn headers_become_an_origin() {
        let host = |host| Forwarded { host: Some(host), ..NONE };
        check(host("localhost:8000"), Ok("http://localhost:8000/x"));
        check(host("Example.COM"), Ok("http://example.com/x"));
        check(host("example.com:80"), Ok("http://example.com/x"));
        check(host("[::1]"), Ok("http://[::1]/x"));
        check(host("[::1]:8000"), Ok("http://[::1]:8000/x"));
        let behind = |proto, host, port| Forwarded {
            proto: Some(proto),
            forwarded_host: Some(host),
            port: Some(port),
            host: Some("10.0.0.7:8000"),
        };
        check(behind("https", "a.example", "443"), Ok("https://a.example/x"));
        check(behind("https", "a.example", "8443"), Ok("https://a.example:8443/x"));
        check(behind("https", "a.example:444", "8443"), Ok("https://a.example:444/x"));
        check(behind("HTTPS, http", "a.example, b.example", "443, 80"), Ok("https://a.example/x"));
        check(behind("wss", "a.example", "443"), Ok("https://a.example/x"));
        check(behind("http", "a.example", "443"), Ok("http://a.example:443/x"));
        check(Forwarded { proto: Some("https"), ..host("a.example") }, Ok("https://a.example/x"));
        let origin = PublicOrigin::parse(host("a.example:8000"), Scheme::Http).unwrap();
        assert_eq!(origin.stream_url("/telephone/handler"), "wss://a.example:8000/telephone/handler");
    }

    #[test]
    fn hostile_values_are_refused() {
        check(NONE, Err(InvalidOrigin::NoHost));
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "a\"b",
            "a\r\nb",
            "<a>",
            "a&b",
            "é",
            "::1",
            "[::1",
            "[a]",
            "a:b:80",
            "a?b",
            "a#b",
            "a\\b",
            "user:pass@a",
        ] {
            let headers = Forwarded { host: Some(host), ..NONE };
            assert!(PublicOrigin::parse(headers, Scheme::Http).is_err(), "{host:?}");
            let headers = Forwarded { forwarded_host: Some(host), host: Some("a.example"), ..NONE };
            assert!(PublicOrigin::parse(headers, Scheme::Http).is_err(), "{host:?}");
        }
        check(Forwarded { host: Some(&"a".repeat(254)), ..NONE }, Err(InvalidOrigin::Host));
        for port in ["", "0", "65536", "+80", "-1", "8 0", "80;"] {
            check(Forwarded { port: Some(port), host: Some("a"), ..NONE }, Err(InvalidOrigin::Port));
        }
        check(Forwarded { proto: Some("javascript"), host: Some("a"), ..NONE }, Err(InvalidOrigin::Proto));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_safe_in_a_url(host in "\\PC{0,20}", port in "\\PC{0,6}") {
            let headers = Forwarded { forwarded_host: Some(&host), port: Some(&port), ..NONE };
            if let Ok(origin) = PublicOrigin::parse(headers, Scheme::Https) {
                prop_assert!(origin.to_string().bytes().all(|b| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b)));
            }
        }
    }
}
