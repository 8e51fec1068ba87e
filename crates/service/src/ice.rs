//! The STUN and TURN servers that clients of a service are told of: `RTCConfiguration`.

use std::net::Ipv6Addr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use streamfleet_process::config::{Mistakes, Secret};

use crate::turn::{Asker, TurnSecret};

/// The shortest time for which credentials are made: clocks of two machines differ, and a call takes its time to begin.
pub const MIN_TTL: Duration = Duration::from_secs(60);
/// The longest: whoever has credentials is served until then, whatever becomes of the user that they were made for.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What is usual: longer than any call, short enough that credentials that somebody else gets are soon worthless.
pub const DEFAULT_TTL_SECONDS: u32 = 24 * 60 * 60;

/// `HOST` or `HOST:PORT` in a regular expression.
macro_rules! authority {
    () => {
        concat!(
            r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])",
            "(:[1-9][0-9]{0,3}|:[1-5][0-9]{4}|:6[0-4][0-9]{3}|:65[0-4][0-9]{2}|:655[0-2][0-9]|:6553[0-5])?",
        )
    };
}

/// `turn:` and `turns:` URLs, as the API server reads them; [`IceUrl`] is stricter with addresses in brackets.
pub(crate) const TURN_URL: &str = concat!("^turns?:", authority!(), r"(\?transport=(udp|tcp))?$");
/// Likewise with `stun:` and `stuns:`.
const URL: &str = concat!("^(stuns?:", authority!(), "|turns?:", authority!(), r"(\?transport=(udp|tcp))?)$");

/// One entry of `RTCConfiguration.iceServers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct IceServer {
    /// `stun:`, `stuns:`, `turn:` or `turns:` URLs (RFC 7064, RFC 7065).
    #[schemars(with = "Vec<String>", length(min = 1, max = 8), inner(length(max = 512), regex(pattern = URL)))]
    pub urls: Vec<IceUrl>,
    /// For TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub username: Option<String>,
    /// For TURN. Every client sees it, so it guards nothing; still no reason to log it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 512))]
    pub credential: Option<Secret>,
}

/// A URL of a STUN or TURN server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IceUrl(String);

/// A text that is no URL of a STUN or TURN server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URL such as \"stun:stun.example.com:3478\" or \"turn:turn.example.com?transport=udp\"")]
pub struct InvalidIceUrl;

impl IceUrl {
    /// Whether it names a TURN server.
    #[must_use]
    pub fn is_turn(&self) -> bool {
        self.0.starts_with("turn")
    }
}

impl TryFrom<String> for IceUrl {
    type Error = InvalidIceUrl;

    fn try_from(text: String) -> Result<Self, InvalidIceUrl> {
        let (scheme, rest) = text.split_once(':').ok_or(InvalidIceUrl)?;
        let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
        let is_whole = match (scheme, query) {
            ("stun" | "stuns" | "turn" | "turns", None) => true,
            ("turn" | "turns", Some(query)) => matches!(query, "transport=udp" | "transport=tcp"),
            _ => false,
        };
        if is_whole && is_authority(address) { Ok(Self(text)) } else { Err(InvalidIceUrl) }
    }
}

impl From<IceUrl> for String {
    fn from(url: IceUrl) -> Self {
        url.0
    }
}

/// `HOST` or `HOST:PORT`, the host a name, an IPv4 address or an IPv6 address in brackets (RFC 3986, 3.2.2).
fn is_authority(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            ((1..=253).contains(&host.len()) && host.bytes().all(is_name), port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n != 0);
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// What clients are told, ready to be told.
#[derive(Debug, Clone, Default)]
pub struct IceServers {
    /// As they stand.
    pub fixed: Vec<IceServer>,
    /// With credentials that are made for each client.
    pub turn: Option<Turn>,
}

/// TURN servers that share a secret with us.
#[derive(Debug, Clone)]
pub struct Turn {
    /// `turn:` or `turns:` URLs.
    pub urls: Vec<IceUrl>,
    /// What the servers know.
    pub secret: TurnSecret,
    /// How long credentials are good.
    pub ttl: Duration,
}

/// `RTCConfiguration` as `RTCPeerConnection`'s constructor takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RtcConfiguration {
    ice_servers: Vec<IceServer>,
}

impl IceServers {
    /// What a client is told that asks at `now`, the time since the Unix epoch.
    #[must_use]
    pub fn configuration(&self, asker: Asker<'_>, now: Duration) -> RtcConfiguration {
        let made = self.turn.as_ref().map(|turn| {
            let credentials = turn.secret.credentials(asker, now + turn.ttl);
            IceServer {
                urls: turn.urls.clone(),
                username: Some(credentials.username),
                credential: Some(credentials.credential),
            }
        });
        RtcConfiguration { ice_servers: self.fixed.iter().cloned().chain(made).collect() }
    }
}

/// Notes what is wrong with servers that are listed at `key`.
pub fn check_servers(key: &str, servers: &[IceServer], mistakes: &mut Mistakes) {
    for (n, server) in servers.iter().enumerate() {
        if server.urls.is_empty() {
            mistakes.push(format!("{key}[{n}].urls"), "a server needs at least one URL");
        }
        // RTCPeerConnection throws for a TURN server without them, on every client.
        if server.urls.iter().any(IceUrl::is_turn) && (server.username.is_none() || server.credential.is_none()) {
            mistakes.push(format!("{key}[{n}].credential"), "a TURN server needs a username and a credential");
        }
    }
}

/// Notes what is wrong with TURN servers whose keys are below `key`, but for the secret's own text. Returns for how long their
/// credentials are good; `None` where there are no such servers.
pub fn check_turn<S>(
    key: &str,
    urls: &[IceUrl],
    secret: Option<&S>,
    ttl_seconds: u32,
    mistakes: &mut Mistakes,
) -> Option<Duration> {
    let ttl = Duration::from_secs(ttl_seconds.into());
    if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
        let (least, most) = (MIN_TTL.as_secs(), MAX_TTL.as_secs());
        mistakes.push(format!("{key}.ttlSeconds"), format!("{ttl_seconds} is not between {least} and {most}"));
    }
    for (n, url) in urls.iter().enumerate() {
        if !url.is_turn() {
            mistakes.push(format!("{key}.urls[{n}]"), "not a turn: or turns: URL");
        }
    }
    match (urls, secret) {
        ([], None) => None,
        ([], Some(_)) => {
            mistakes.push(format!("{key}.urls"), "a secret is given, but no TURN server");
            None
        }
        ([_, ..], None) => {
            mistakes.push(format!("{key}.secret"), "TURN servers are given, but not their secret");
            None
        }
        ([_, ..], Some(_)) => Some(ttl),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn url(text: &str) -> IceUrl {
        IceUrl::try_from(text.to_owned()).unwrap()
    }

    fn told(servers: &IceServers, asker: Asker<'_>, now: u64) -> Value {
        serde_json::to_value(servers.configuration(asker, Duration::from_secs(now))).unwrap()
    }

    #[test]
    fn what_a_browser_is_told() {
        assert_eq!(told(&IceServers::default(), Asker::Somebody(1), 0), json!({ "iceServers": [] }));
        let fixed = json!([
            { "urls": ["stun:stun.example.com"] },
            { "urls": ["turn:turn.example.com:3478?transport=udp"], "username": "u", "credential": "c" },
        ]);
        let turn = Turn {
            urls: vec![url("turn:turn.example.com"), url("turns:turn.example.com?transport=tcp")],
            secret: TurnSecret::new(b"north-by-north-west").unwrap(),
            ttl: MIN_TTL,
        };
        let mut servers = IceServers { fixed: serde_json::from_value(fixed.clone()).unwrap(), turn: None };
        assert_eq!(told(&servers, Asker::Somebody(1), 0), json!({ "iceServers": fixed }));
        servers.turn = Some(turn);
        let mut expected = fixed;
        expected.as_array_mut().unwrap().push(json!({
            "urls": ["turn:turn.example.com", "turns:turn.example.com?transport=tcp"],
            "username": "1060:0000000000000abc",
            "credential": "OdK6Hmeppa0mMer+g6eEhQwwCU4=",
        }));
        assert_eq!(told(&servers, Asker::Somebody(0xabc), 1_000), json!({ "iceServers": expected }));
        let mia = "mia".parse().unwrap();
        assert_eq!(told(&servers, Asker::User(&mia), 1_000)["iceServers"][2]["username"], "1060:mia");
        assert!(!format!("{servers:?}").contains("north"));
    }

    #[test]
    fn urls_are_checked() {
        #[track_caller]
        fn check(text: &str, expected: Result<(), InvalidIceUrl>) {
            assert_eq!(IceUrl::try_from(text.to_owned()).map(|_| ()), expected, "{text:?}");
        }
        check("stun:stun.example.com", Ok(()));
        check("stuns:stun.example.com:5349", Ok(()));
        check("turn:192.0.2.1:3478?transport=tcp", Ok(()));
        check("turns:[2001:db8::1]:5349", Ok(()));
        check("turn:[::1]", Ok(()));
        for wrong in [
            "stun:stun.example.com?transport=udp",
            "turn:host?transport=sctp",
            "turn:host?",
            "http://host",
            "stun:",
            "stun://host",
            "turn:user@host",
            "turn:host:",
            "turn:host:0",
            "turn:host:65536",
            "turn:host:+1",
            "turn:2001:db8::1",
            "turn:[2001:db8::1",
            "turn:[host]",
            "turn:[::1]3478",
            "turn:a b",
            "host",
            "",
        ] {
            check(wrong, Err(InvalidIceUrl));
        }
    }

    #[test]
    fn mistakes_name_their_key() {
        #[track_caller]
        fn check(urls: &[&str], secret: Option<&str>, ttl: u32, expected: &[&str]) {
            let mut mistakes = Mistakes::new();
            let urls: Vec<IceUrl> = urls.iter().map(|text| url(text)).collect();
            let found = check_turn("turn", &urls, secret.as_ref(), ttl, &mut mistakes);
            assert_eq!(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
            assert!(found.is_none() || !urls.is_empty());
        }
        check(&[], None, 600, &[]);
        check(&["turn:t"], Some("s"), 600, &[]);
        check(&["turn:t"], None, 600, &["turn.secret: TURN servers are given, but not their secret"]);
        check(&[], Some("s"), 600, &["turn.urls: a secret is given, but no TURN server"]);
        check(&["turn:t", "stun:s"], Some("s"), 600, &["turn.urls[1]: not a turn: or turns: URL"]);
        check(&["turn:t"], Some("s"), 59, &["turn.ttlSeconds: 59 is not between 60 and 604800"]);
        check(&["turn:t"], Some("s"), 604_801, &["turn.ttlSeconds: 604801 is not between 60 and 604800"]);
        let mut mistakes = Mistakes::new();
        let servers = [IceServer::default(), IceServer { urls: vec![url("turn:t")], ..IceServer::default() }];
        check_servers("ice.servers", &servers, &mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        assert_eq!(keys, ["ice.servers[0].urls", "ice.servers[1].credential"]);
    }

    proptest! {
        #[test]
        fn no_text_is_more_than_refused(text in "(stun|turns?):[\\[\\]:a-z0-9.?=@ ]{0,40}") {
            if let Ok(url) = IceUrl::try_from(text.clone()) {
                prop_assert_eq!(String::from(url), text);
            }
        }
    }
}
