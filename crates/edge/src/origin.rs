//! Who may ask from a browser: origins for the public routes, `Origin` and `Host` for the control routes.
//!
//! The public routes answer any page, as FastRTC's users set them up; no cookie or other ambient authority is ever
//! read, so the answer needs no credentials and the wildcard is safe. The control routes answer programs and pages of
//! our own: a request with a foreign `Origin` is another site's script, and one with a foreign `Host` has been led
//! here by a name that somebody else controls (DNS rebinding).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Uri, Version, header};

/// Why a text is no origin or host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// Not `scheme://host[:port]`.
    #[error("must be \"*\" or an origin such as \"https://app.example.com\", without a path")]
    Origin,
    /// Not `host[:port]`.
    #[error("must be \"*\" or a host such as \"voice.example.com\" or \"voice.example.com:8443\"")]
    Host,
}

/// The pages that may call the public routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Every page.
    Any,
    /// Pages of these origins, serialised as browsers do (RFC 6454, 6.2).
    Only(BTreeSet<String>),
}

impl Origins {
    /// Those of a configuration; `wrong` is told of each text that is none, by its place.
    pub fn read(texts: &[String], wrong: impl FnMut(usize, InvalidOrigin)) -> Self {
        if is_all(texts) { Self::Any } else { Self::Only(each(texts, parse_origin, wrong)) }
    }

    /// Whether a script of `origin` may read our answer.
    fn allow(&self, origin: &str) -> bool {
        match self {
            Origins::Any => true,
            Origins::Only(origins) => origins.contains(origin),
        }
    }

    /// What `Access-Control-Allow-Origin` says to a request with this `Origin`; nothing to one that may not read.
    #[must_use]
    pub fn answer(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Only(_) => origin.filter(|origin| origin.to_str().is_ok_and(|text| self.allow(text))).cloned(),
        }
    }
}

/// One configured origin, normalised.
pub fn parse_origin(text: &str) -> Result<String, InvalidOrigin> {
    let uri: Uri = text.parse().map_err(|_| InvalidOrigin::Origin)?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority))
            if text.len() == scheme.len() + "://".len() + authority.as_str().len()
                && !authority.as_str().contains('@') =>
        {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err(InvalidOrigin::Origin),
    }
}

/// The names under which the control routes may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Every name: for a server behind something that checks it already.
    Any,
    /// These, `localhost`, and every IP address. (A name is what an attacker can point at us; an address is not.)
    Only(BTreeSet<HostName>),
}

/// A configured host, with a port or for all ports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName {
    host: String,
    port: Option<u16>,
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

impl FromStr for HostName {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let authority: Authority = text.parse().map_err(|_| InvalidOrigin::Host)?;
        let host = authority.host();
        let plain = text.len() == host.len() + authority.port().map_or(0, |port| port.as_str().len() + 1);
        if !plain || host.is_empty() || host.contains('*') || (authority.port().is_none() && text.ends_with(':')) {
            return Err(InvalidOrigin::Host);
        }
        Ok(Self { host: host.to_ascii_lowercase(), port: authority.port_u16() })
    }
}

/// Whether a configured list is the one that stands for everything.
fn is_all(texts: &[String]) -> bool {
    texts.iter().any(|text| text == "*")
}

fn each<T: Ord>(
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, InvalidOrigin>,
    mut wrong: impl FnMut(usize, InvalidOrigin),
) -> BTreeSet<T> {
    let parsed = texts.iter().enumerate();
    parsed.filter_map(|(n, text)| parse(text).map_err(|error| wrong(n, error)).ok()).collect()
}

impl Hosts {
    /// Those of a configuration; `wrong` is told of each text that is none, by its place.
    pub fn read(texts: &[String], wrong: impl FnMut(usize, InvalidOrigin)) -> Self {
        if is_all(texts) { Self::Any } else { Self::Only(each(texts, str::parse, wrong)) }
    }

    fn allow(&self, authority: &Authority) -> bool {
        let Hosts::Only(names) = self else { return true };
        let host = authority.host().to_ascii_lowercase();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        address.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || names.iter().any(|name| name.host == host && (name.port.is_none() || name.port == authority.port_u16()))
    }
}

/// What is wrong with where a request to a control route comes from, or with the name that it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strange {
    /// No `Host`, several, or one that cannot be read: a proxy in front may have understood another name than we would.
    Malformed,
    /// Another site's script.
    Origin,
    /// A name that is not ours, or none.
    Host,
}

/// The name that a request was sent to (RFC 9112, 3.2).
pub fn requested_host(version: Version, headers: &HeaderMap, uri: &Uri) -> Result<Authority, Strange> {
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => Some(host.to_str().map_err(|_| Strange::Malformed)?),
        (None, _) if version < Version::HTTP_11 => None,
        (None, _) | (Some(_), Some(_)) => return Err(Strange::Malformed),
    };
    let host = match host {
        // Empty is well-formed, and a name of nobody's.
        None | Some("") => None,
        Some(host) => Some(host.parse::<Authority>().map_err(|_| Strange::Malformed)?),
    };
    // HTTP/1.1 allows the absolute form, whose authority then takes the place of Host (RFC 9112, 3.2.2).
    uri.authority().cloned().or(host).ok_or(Strange::Host)
}

/// Checks a request to a control route. A page of our own has the `Host` it was loaded from as its origin; the
/// configured origins count too, if they are named one by one.
pub fn check(headers: &HeaderMap, host: &Authority, hosts: &Hosts, origins: &Origins) -> Result<(), Strange> {
    if !hosts.allow(host) {
        return Err(Strange::Host);
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().map_err(|_| Strange::Origin)?;
    let same = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.as_str()));
    let named = matches!(origins, Origins::Only(_)) && origins.allow(origin);
    if same || named { Ok(()) } else { Err(Strange::Origin) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse_origin(text).ok().as_deref(), expected, "{text:?}");
        };
        check("https://app.example.com", Some("https://app.example.com"));
        check("http://LOCALHOST:3000", Some("http://localhost:3000"));
        check("https://[::1]:8443", Some("https://[::1]:8443"));
        check("https://app.example.com/", None);
        check("https://app.example.com/page", None);
        check("https://user@app.example.com", None);
        check("app.example.com", None);
        check("ftp://app.example.com", None);
        check("", None);
        check("null", None);
    }

    #[test]
    fn hosts_are_names_with_or_without_a_port() {
        let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
            let parsed = text.parse::<HostName>().ok();
            assert_eq!(parsed.as_ref().map(|name| (name.host.as_str(), name.port)), expected, "{text:?}");
        };
        check("Voice.example.com", Some(("voice.example.com", None)));
        check("voice.example.com:8443", Some(("voice.example.com", Some(8443))));
        check("[::1]:80", Some(("[::1]", Some(80))));
        check("", None);
        check("a b", None);
        check("user@host", None);
        check("host:", None);
        check("host:99999", None);
        check("*.example.com", None);
        check("https://host", None);
    }

    #[test]
    fn control_requests() {
        let only = Hosts::Only(["voice.example.com".parse().unwrap(), "ops:8081".parse().unwrap()].into());
        let pages = Origins::Only(["https://console.example.com".to_owned()].into());
        let run = |host: Option<&str>, origin: Option<&str>, hosts: &Hosts, origins: &Origins| {
            let mut headers = HeaderMap::new();
            host.map(|host| headers.insert(header::HOST, host.parse().unwrap()));
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            let named = requested_host(Version::HTTP_11, &headers, &Uri::from_static("/sessions"))?;
            check(&headers, &named, hosts, origins)
        };
        let check = |host: Option<&str>, origin: Option<&str>, expected: Result<(), Strange>| {
            assert_eq!(run(host, origin, &only, &pages), expected, "{host:?} {origin:?}");
        };
        check(Some("localhost:8081"), None, Ok(()));
        check(Some("127.0.0.1:8081"), None, Ok(()));
        check(Some("[::1]:8081"), None, Ok(()));
        check(Some("voice.example.com"), None, Ok(()));
        check(Some("VOICE.example.com:444"), None, Ok(()));
        check(Some("ops:8081"), None, Ok(()));
        check(Some("ops:8082"), None, Err(Strange::Host));
        check(Some("evil.example"), None, Err(Strange::Host));
        check(Some("localhost.evil.example"), None, Err(Strange::Host));
        check(Some("127.0.0.1.evil.example"), None, Err(Strange::Host));
        check(Some("a b"), None, Err(Strange::Malformed));
        check(Some(""), None, Err(Strange::Host));
        check(None, None, Err(Strange::Malformed));
        check(Some("localhost:8081"), Some("http://localhost:8081"), Ok(()));
        check(Some("localhost:8081"), Some("http://localhost:3000"), Err(Strange::Origin));
        check(Some("localhost:8081"), Some("https://console.example.com"), Ok(()));
        check(Some("localhost:8081"), Some("https://evil.example"), Err(Strange::Origin));
        check(Some("localhost:8081"), Some("null"), Err(Strange::Origin));
        assert_eq!(run(Some("evil.example"), None, &Hosts::Any, &Origins::Any), Ok(()));
        let any_page = run(Some("localhost"), Some("https://evil.example"), &Hosts::Any, &Origins::Any);
        assert_eq!(any_page, Err(Strange::Origin), "the public wildcard does not open the control routes");
    }
    #[test]
    fn a_request_names_one_host() {
        let check = |version: Version, hosts: &[&[u8]], uri: &'static str, expected: Result<&str, Strange>| {
            let values = hosts.iter().map(|host| HeaderValue::from_bytes(host).unwrap());
            let headers: HeaderMap =
                values.map(|value| (header::HOST, value)).fold(HeaderMap::new(), |mut all, one| {
                    all.append(one.0, one.1);
                    all
                });
            let named = requested_host(version, &headers, &Uri::from_static(uri));
            assert_eq!(named.as_ref().map(Authority::as_str).map_err(|e| *e), expected, "{version:?} {hosts:?} {uri}");
        };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        check(new, &[b"a:1"], "/sessions", Ok("a:1"));
        check(new, &[], "/sessions", Err(Strange::Malformed));
        check(old, &[], "/sessions", Err(Strange::Host));
        check(new, &[b""], "/sessions", Err(Strange::Host));
        check(new, &[b"a", b"b"], "/sessions", Err(Strange::Malformed));
        check(old, &[b"a", b"a"], "/sessions", Err(Strange::Malformed));
        check(new, &[b"a b"], "/sessions", Err(Strange::Malformed));
        check(new, &[b"\xff"], "/sessions", Err(Strange::Malformed));
        check(new, &[b"a"], "http://b/sessions", Ok("b"));
        check(new, &[], "http://b/sessions", Err(Strange::Malformed));
        check(old, &[], "http://b/sessions", Ok("b"));
    }
}
