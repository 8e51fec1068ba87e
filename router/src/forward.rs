//! Requests to workers: over pooled connections, with the key of the service that is asked for, within a deadline.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::body::Bytes;
use axum::http::response::Parts;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use streamfleet_session::fleet::{CLIENT_HEADER, PATH_HEADER, SECRET_HEADER, is_reserved};
use streamfleet_session::{ServiceKey, ServiceName};
use tokio::time::timeout;

use crate::sockets::handshake::Asked;

/// For a connection in one network: a worker that has not taken it by then is gone.
const CONNECT_TIME: Duration = Duration::from_secs(1);
/// For an answer to an offer: after this the claim is void.
pub const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Connections kept to a worker that is not asked anything: a burst of offers finds them open.
const IDLE: usize = 32;
/// Shorter than a worker keeps an idle connection, so that a request rarely meets one that is being closed.
const IDLE_TIME: Duration = Duration::from_secs(8);
/// The longest answer that is taken in whole: an SDP with its candidates has 10 kB.
const MAX_ANSWER: usize = 256 << 10;

/// Bytes that may wait here for a client's socket that does not take them, in the kernel: what a worker believes to be sent, and
/// no client has. Two seconds of audio, where the kernel's own bound would be minutes.
const SOCKET_BUFFER: usize = 64 << 10;
/// For a worker's end of a socket to acknowledge what it was sent: one whose machine is gone does not say so.
const SOCKET_TIME: Duration = Duration::from_secs(20);

/// What a proxy does not pass on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// No answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The connection could not be made, or has ended.
    Gone,
    /// Nothing came in time.
    TimedOut,
}

/// A worker's answer to a handshake.
#[derive(Debug)]
pub enum Opened {
    /// It takes it.
    Yes(Upgraded),
    /// It does not.
    No(Parts),
}

/// The way to workers.
#[derive(Debug, Clone)]
pub struct Upstream {
    client: Client<HttpConnector, Body>,
    /// For what becomes a socket.
    sockets: Client<HttpConnector, Body>,
}

impl Default for Upstream {
    fn default() -> Self {
        Self::new()
    }
}

impl Upstream {
    /// Without any connection yet.
    #[must_use]
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIME));
        connector.set_nodelay(true);
        let mut for_sockets = connector.clone();
        for_sockets.set_recv_buffer_size(Some(SOCKET_BUFFER));
        #[cfg(target_os = "linux")]
        for_sockets.set_tcp_user_timeout(Some(SOCKET_TIME));
        for_sockets.set_keepalive(Some(SOCKET_TIME));
        let client = |connector| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIME)
                .pool_max_idle_per_host(IDLE)
                .build(connector)
        };
        Self { client: client(connector), sockets: client(for_sockets) }
    }

    /// Asks a worker. Waits for the head of its answer for `time`; the body comes as it comes.
    ///
    /// # Errors
    /// [`Silence`].
    pub async fn ask(&self, at: &str, request: Request<Body>, time: Duration) -> Result<Response<Incoming>, Silence> {
        self.ask_by(&self.client, at, request, time).await
    }

    /// Asks a worker for a socket, with a handshake: the connection, if it takes it, else its answer.
    ///
    /// # Errors
    /// [`Silence`].
    pub async fn open(&self, at: &str, mut request: Request<Body>, time: Duration) -> Result<Opened, Silence> {
        let asked = Asked::of(request.headers_mut(), rand::random());
        let opened = async {
            let response = self.ask_by(&self.sockets, at, request, time).await?;
            if !asked.is_taken(response.status(), response.headers()) {
                return Ok(Opened::No(response.into_parts().0));
            }
            hyper::upgrade::on(response).await.map(Opened::Yes).map_err(|_| Silence::Gone)
        };
        timeout(time, opened).await.unwrap_or(Err(Silence::TimedOut))
    }

    async fn ask_by(
        &self,
        client: &Client<HttpConnector, Body>,
        at: &str,
        mut request: Request<Body>,
        time: Duration,
    ) -> Result<Response<Incoming>, Silence> {
        let authority: Authority = at.parse().map_err(|_| Silence::Gone)?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Silence::Gone)?;
        match timeout(time, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                tracing::debug!(at, %error, "a worker does not answer");
                Err(Silence::Gone)
            }
            Err(_) => Err(Silence::TimedOut),
        }
    }

    /// Asks a worker and takes its answer in whole.
    ///
    /// # Errors
    /// [`Silence`].
    pub async fn ask_whole(
        &self,
        at: &str,
        request: Request<Body>,
        time: Duration,
    ) -> Result<Response<Bytes>, Silence> {
        let whole = async {
            let (parts, body) = self.ask(at, request, time).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| Silence::Gone)?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        timeout(time, whole).await.unwrap_or(Err(Silence::TimedOut))
    }
}

/// What a request is for: as its client put it, and as a worker knows it.
#[derive(Debug, Clone)]
pub struct Target {
    inner: Uri,
    shown: HeaderValue,
    key: HeaderValue,
}

impl Target {
    /// What `rest`, below one of its public paths, is to `service`, whose workers are shown `key`.
    #[must_use]
    pub fn new(service: &ServiceName, key: &ServiceKey, rest: &str, public: &Uri) -> Self {
        let query = public.query().map_or_else(String::new, |query| format!("?{query}"));
        let inner = format!("/{service}{rest}{query}");
        // Of what has been a URI's, each part is one's again.
        let inner = inner.parse().unwrap_or_else(|_| Uri::from_static("/"));
        let shown = public.path_and_query().map_or("/", PathAndQuery::as_str);
        let shown = HeaderValue::from_str(shown).unwrap_or_else(|_| HeaderValue::from_static("/"));
        let mut key = HeaderValue::from_str(key.reveal()).expect("invariant: a key is visible ASCII characters");
        key.set_sensitive(true);
        Self { inner, shown, key }
    }
}

/// A request of a client's, for a worker: its headers without those that end here, and that a router asks.
#[must_use]
pub fn onward(method: Method, target: &Target, headers: &HeaderMap, client: SocketAddr, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target.inner.clone();
    *request.headers_mut() = passed_on(headers);
    request.headers_mut().insert(HeaderName::from_static(SECRET_HEADER), target.key.clone());
    request.headers_mut().insert(HeaderName::from_static(PATH_HEADER), target.shown.clone());
    // Whoever the worker believes, it is us: what stood here has been judged.
    let client = client.ip().to_canonical().to_string();
    if let Ok(client) = HeaderValue::try_from(client) {
        request.headers_mut().insert(HeaderName::from_static(CLIENT_HEADER), client);
    }
    request
}

/// What goes through a proxy: neither what is meant for the next hop alone (RFC 9110, 7.6.1) nor what only we write.
#[must_use]
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<&str> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let ends_here = |name: &HeaderName| {
        let name = name.as_str();
        HOP_BY_HOP.contains(&name)
            || is_reserved(name)
            || named.iter().any(|listed| listed.eq_ignore_ascii_case(name))
            // The body may be another one; its length is written anew.
            || name == header::CONTENT_LENGTH.as_str()
    };
    headers.iter().filter(|(name, _)| !ends_here(name)).map(|(name, value)| (name.clone(), value.clone())).fold(
        HeaderMap::with_capacity(headers.len()),
        |mut kept, (name, value)| {
            kept.append(name, value);
            kept
        },
    )
}

#[cfg(test)]
mod tests {
    use streamfleet_session::FleetSecret;

    use super::*;

    #[test]
    fn a_worker_is_asked_by_the_name_of_the_service() {
        let check = |service: &str, rest: &str, public: &str| {
            let service = service.parse().unwrap();
            let key = "a-secret-of-the-fleet".parse::<FleetSecret>().unwrap().of_service(&service);
            let target = Target::new(&service, &key, rest, &public.parse().unwrap());
            assert!(target.key.is_sensitive() && target.key == key.reveal());
            (target.inner.to_string(), target.shown.to_str().unwrap().to_owned())
        };
        let expected = |inner: &str, shown: &str| (inner.to_owned(), shown.to_owned());
        let (inner, shown) = ("/voice/bot/sessions/a%7Eb?x=%20y", "/rooms/7/sessions/a%7Eb?x=%20y");
        assert_eq!(check("voice/bot", "/sessions/a%7Eb", &format!("http://h{shown}")), expected(inner, shown));
        assert_eq!(check("a", "/webrtc/offer", "/webrtc/offer"), expected("/a/webrtc/offer", "/webrtc/offer"));
    }

    #[test]
    fn headers_that_end_here() {
        let pairs = [
            ("host", "voice.example.com"),
            ("authorization", "Bearer a"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("content-length", "7"),
            ("streamfleet-placed", "forged"),
            ("streamfleet-secret", "guessed"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        let kept: Vec<_> = passed_on(&headers).iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
        assert_eq!(kept, ["host=voice.example.com", "authorization=Bearer a", "cookie=a=1", "cookie=b=2"]);
    }
}
