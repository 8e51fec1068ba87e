//! What a call is made with: plain data, parsed once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use rand::Rng as _;
use reqwest::Url;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use streamfleet_audio::{DelayBounds, PcmFormat};
use streamfleet_session::{SessionId, UserId};
use thiserror::Error;

/// Length of a random session id. FastRTC's browser clients use up to 11 base-36 characters; 20 of them are 103 bits,
/// so that two clients never meet and nobody guesses one.
const RANDOM_ID_LEN: usize = 20;

/// The routes of a service, which people copy with its URL.
const ROUTES: [&str; 4] = ["/webrtc/offer", "/websocket/offer", "/telephone/handler", "/telephone/incoming"];

/// The base URL of one service, such as `http://127.0.0.1:8080/echo`.
///
/// The offer goes to `{url}/webrtc/offer`. A trailing slash, or the path of one of the service's routes, is accepted and
/// removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    base: Url,
}

/// Why a text is not a service's URL.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum InvalidUrl {
    /// Not a URL at all.
    #[error("`{text}` is not a URL ({reason}); write it like http://127.0.0.1:8080/echo")]
    Syntax {
        /// The text as given.
        text: String,
        /// What the parser said.
        reason: String,
    },
    /// A URL of a scheme other than HTTP.
    #[error("`{0}` does not start with http:// or https://; write it like http://127.0.0.1:8080/echo")]
    Scheme(String),
    /// A query or fragment, which the offer route has no use for.
    #[error("`{0}` has a query or a fragment; leave away everything from the `?` or `#` on")]
    Extra(String),
}

impl ServiceUrl {
    /// The URL which offers and candidates are posted to.
    pub fn offer_url(&self) -> Url {
        self.below("webrtc/offer")
    }

    /// The URL which names the service's STUN and TURN servers.
    pub fn configuration_url(&self) -> Url {
        self.below("rtc_configuration")
    }

    /// The URL which a WebSocket is opened at: `ws` or `wss`.
    pub fn socket_url(&self) -> Url {
        self.web_socket("websocket/offer")
    }

    /// The URL which a telephone company opens its media stream at: `ws` or `wss`.
    pub fn phone_url(&self) -> Url {
        self.web_socket("telephone/handler")
    }

    /// The URL which a telephone company posts an incoming call to.
    pub fn incoming_url(&self) -> Url {
        self.below("telephone/incoming")
    }

    fn web_socket(&self, path: &str) -> Url {
        let mut url = self.below(path);
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).expect("invariant: both schemes are special ones");
        url
    }

    /// The host and port of the server, the port by the scheme where the URL names none.
    pub fn authority(&self) -> (String, u16) {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        (host, self.base.port_or_known_default().unwrap_or(80))
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let joined = format!("{}/{path}", self.base.path().trim_end_matches('/'));
        url.set_path(&joined);
        url
    }
}

impl FromStr for ServiceUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let mut base = Url::parse(text.trim())
            .map_err(|error| InvalidUrl::Syntax { text: text.to_owned(), reason: error.to_string() })?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(InvalidUrl::Scheme(text.to_owned()));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(InvalidUrl::Extra(text.to_owned()));
        }
        let path = base.path().trim_end_matches('/');
        let path = ROUTES.iter().find_map(|route| path.strip_suffix(route)).unwrap_or(path).to_owned();
        base.set_path(&path);
        Ok(Self { base })
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

/// When the offer is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathering {
    /// Once every candidate is known, or at the deadline with those that are: one request, works with every server.
    Complete {
        /// The longest wait for STUN and TURN servers. Host candidates need a millisecond.
        deadline: Duration,
    },
    /// At once; candidates follow by more requests to the same URL, as they are found.
    Trickle,
}

impl Default for Gathering {
    fn default() -> Self {
        Self::Complete { deadline: Duration::from_secs(3) }
    }
}

/// Which media the offer has. Each kind that it has is sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// One audio track: Opus, else PCMU or PCMA.
    #[default]
    Audio,
    /// One audio track and one video track: VP8, else H.264 constrained baseline.
    AudioVideo,
    /// Only the data channel.
    None,
}

/// A STUN or TURN server. `Debug` shows no credential.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host:port` or `turn:host:port?transport=udp`.
    pub urls: Vec<String>,
    /// The TURN user; empty for STUN.
    pub username: String,
    /// The TURN password; empty for STUN.
    pub credential: String,
}

impl IceServer {
    /// A server that needs no credentials.
    pub fn stun(url: impl Into<String>) -> Self {
        Self { urls: vec![url.into()], ..Self::default() }
    }
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// Which STUN and TURN servers a call uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IceServers {
    /// Those that the service names (`GET {url}/rtc_configuration`), asked again for every connection because their credentials
    /// expire; none where it names none, or has no such route, as FastRTC.
    Told,
    /// These.
    Given(Vec<IceServer>),
}

impl Default for IceServers {
    fn default() -> Self {
        Self::Given(Vec::new())
    }
}

/// Which ways media may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ways {
    /// Any that works, the shortest first.
    #[default]
    Any,
    /// Through a TURN server only, as a browser's `iceTransportPolicy: "relay"`: nobody but that server learns this machine's
    /// addresses.
    Relayed,
}

/// Whom to trust over `https`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// Certificates that the system trusts.
    #[default]
    System,
    /// Any certificate: for a server's self-signed one on a network of one's own. Nothing protects the offer then.
    AcceptAny,
}

/// What to do when the server asks for a new offer, or vanishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// Offer again with the same id and the resume token.
    #[default]
    Follow,
    /// End the call.
    Never,
}

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One HTTP request, from connecting to the last byte of the answer; of a call's first offer, connecting alone.
    pub request: Duration,
    /// From a call's first offer, or its socket's `start`, until the service has answered: it may hold a call for a minute until a
    /// worker is there. A telephone waits for no answer.
    pub answer: Duration,
    /// The offer with all its repetitions while the server says `connection_already_exists` or has no capacity.
    pub admission: Duration,
    /// From the answer until ICE and DTLS are up.
    pub connect: Duration,
    /// Silence of the peer (neither media nor ICE consent) after which it counts as gone.
    pub liveness: Duration,
    /// Joining again after the server vanished or asked for it: long enough for a dead worker's lease to run out.
    pub rejoin: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            answer: Duration::from_secs(75),
            admission: Duration::from_secs(10),
            connect: Duration::from_secs(15),
            liveness: Duration::from_secs(10),
            rejoin: Duration::from_secs(30),
        }
    }
}

/// Everything that a call is made with. [`ClientOptions::new`] fills in what most calls want.
#[derive(Clone)]
pub struct ClientOptions {
    /// The service.
    pub url: ServiceUrl,
    /// The session's id: random unless an earlier session is resumed.
    pub webrtc_id: SessionId,
    /// Who calls: sent as `user_id` in the metadata.
    pub user_id: Option<UserId>,
    /// More metadata for the handler's context.
    pub metadata: Map<String, Value>,
    /// Headers of every request, such as `authorization`.
    pub headers: HeaderMap,
    /// STUN and TURN servers.
    pub ice_servers: IceServers,
    /// Which ways media may take.
    pub ways: Ways,
    /// Local addresses to offer; empty: every usable one, and loopback where the server is on this machine.
    pub local_addresses: Vec<IpAddr>,
    /// When the offer is posted.
    pub gathering: Gathering,
    /// Which media the offer has.
    pub media: Media,
    /// The data channel's label.
    pub data_channel: String,
    /// The format of received audio.
    pub playout: PcmFormat,
    /// Bounds of the jitter buffer.
    pub delay: DelayBounds,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// The token of the session which this call continues.
    pub resume: Option<Resume>,
    /// What to do when the server asks for a new offer, or vanishes.
    pub reconnect: Reconnect,
    /// Whom to trust over `https`.
    pub tls: Tls,
}

impl ClientOptions {
    /// An audio call with a random id, no ICE servers, complete gathering, mono playout at 48 kHz.
    pub fn new(url: ServiceUrl) -> Self {
        Self {
            url,
            webrtc_id: random_id(),
            user_id: None,
            metadata: Map::new(),
            headers: HeaderMap::new(),
            ice_servers: IceServers::default(),
            ways: Ways::default(),
            local_addresses: Vec::new(),
            gathering: Gathering::default(),
            media: Media::default(),
            data_channel: "text".to_owned(),
            playout: PcmFormat { rate: 48_000, channels: 1 },
            delay: DelayBounds::default(),
            timeouts: Timeouts::default(),
            resume: None,
            reconnect: Reconnect::default(),
            tls: Tls::default(),
        }
    }

    /// The `metadata` object of the offer, absent when there is nothing to say.
    pub(crate) fn offer_metadata(&self) -> Option<Map<String, Value>> {
        offer_metadata(&self.metadata, self.user_id.as_ref())
    }
}

/// What is said about a user, absent when there is nothing to say.
pub(crate) fn offer_metadata(metadata: &Map<String, Value>, user: Option<&UserId>) -> Option<Map<String, Value>> {
    let mut metadata = metadata.clone();
    if let Some(user) = user {
        metadata.insert("user_id".to_owned(), Value::from(user.as_str()));
    }
    (!metadata.is_empty()).then_some(metadata)
}

impl fmt::Debug for ClientOptions {
    /// Without headers, metadata and credentials: these may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("url", &self.url)
            .field("webrtc_id", &self.webrtc_id)
            .field("gathering", &self.gathering)
            .field("media", &self.media)
            .field("timeouts", &self.timeouts)
            .field("reconnect", &self.reconnect)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// A resume token as the server gave it: opaque to a client, and a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Resume(String);

impl Resume {
    /// Longest token that is kept; a longer one would only be refused by the server's body limit.
    const MAX_LEN: usize = 4096;

    /// The token, unless it is empty or longer than 4096 bytes.
    pub fn new(token: impl Into<String>) -> Option<Self> {
        let token = token.into();
        (!token.is_empty() && token.len() <= Self::MAX_LEN).then_some(Self(token))
    }

    /// The token's text, for the offer or for a file that only its owner can read.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resume(…)")
    }
}

/// A random session id of base-36 characters.
pub fn random_id() -> SessionId {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rng = rand::rng();
    let text: String = (0..RANDOM_ID_LEN).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
    text.parse().expect("invariant: base-36 characters are valid in a session id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_urls() {
        fn check(text: &str, expected: Result<(&str, &str, u16), &str>) {
            let found = text.parse::<ServiceUrl>();
            match (found, expected) {
                (Ok(url), Ok((offer, host, port))) => {
                    assert_eq!(url.offer_url().as_str(), offer, "{text}");
                    assert_eq!(url.authority(), (host.to_owned(), port), "{text}");
                }
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
        check("http://127.0.0.1:8080", Ok(("http://127.0.0.1:8080/webrtc/offer", "127.0.0.1", 8080)));
        check("http://127.0.0.1:8080/echo/", Ok(("http://127.0.0.1:8080/echo/webrtc/offer", "127.0.0.1", 8080)));
        check(" https://example.com/a/b ", Ok(("https://example.com/a/b/webrtc/offer", "example.com", 443)));
        check("http://h/echo/webrtc/offer", Ok(("http://h/echo/webrtc/offer", "h", 80)));
        check("http://[::1]:9/x", Ok(("http://[::1]:9/x/webrtc/offer", "::1", 9)));
        check("127.0.0.1:8080/echo", Err("write it like"));
        check("localhost:8080/echo", Err("does not start with http"));
        check("ftp://h/", Err("does not start with http"));
        check("http://h/?a=b", Err("query"));
        check("http://h/#top", Err("fragment"));
        check("", Err("is not a URL"));
    }

    #[test]
    fn routes_of_a_service() {
        fn check(text: &str, socket: &str, phone: &str, incoming: &str) {
            let url: ServiceUrl = text.parse().unwrap();
            let found = [url.socket_url(), url.phone_url(), url.incoming_url()].map(|url| url.to_string());
            assert_eq!(found, [socket, phone, incoming], "{text}");
        }
        check(
            "http://h:81/echo/",
            "ws://h:81/echo/websocket/offer",
            "ws://h:81/echo/telephone/handler",
            "http://h:81/echo/telephone/incoming",
        );
        check(
            "https://h/telephone/incoming",
            "wss://h/websocket/offer",
            "wss://h/telephone/handler",
            "https://h/telephone/incoming",
        );
    }

    #[test]
    fn random_ids_differ_and_parse() {
        let (a, b) = (random_id(), random_id());
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), RANDOM_ID_LEN);
    }

    #[test]
    fn the_user_is_part_of_the_metadata() {
        let mut options = ClientOptions::new("http://h".parse().unwrap());
        assert_eq!(options.offer_metadata(), None);
        options.user_id = Some("ada".parse().unwrap());
        options.metadata.insert("plan".into(), Value::from("gold"));
        let expected = serde_json::json!({"user_id": "ada", "plan": "gold"});
        assert_eq!(options.offer_metadata().map(Value::Object), Some(expected));
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let mut options = ClientOptions::new("http://h".parse().unwrap());
        options.resume = Resume::new("hush");
        options.headers.insert("authorization", "Bearer hush".parse().unwrap());
        let server = IceServer { credential: "hush".into(), ..IceServer::stun("stun:h") };
        options.ice_servers = IceServers::Given(vec![server]);
        assert!(!format!("{options:?} {:?} {:?}", options.resume, options.ice_servers).contains("hush"));
    }
}
