//! The socket itself: TCP, TLS, the upgrade, messages, the close.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};
use rustls::pki_types::ServerName;
use streamfleet_session::CloseReason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

use super::words::Frame;
use crate::error::ClientError;
use crate::options::Tls;
use crate::signal::{self, Reply};

/// Longest message taken: FastRTC sends what a handler emits in one frame, and a minute of 16-bit sound at 48 kHz in
/// base64 has 7.7 MB.
const MAX_MESSAGE: usize = 8 << 20;
/// Read buffer. Frames of 20 ms have 1.3 kB.
const READ_BUFFER: usize = 16 << 10;
/// How long a message may take to be given to the kernel. A server that reads nothing for so long is not there.
const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// How long the closing handshake may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// A byte stream, encrypted or not.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// An open socket.
pub(crate) struct Socket {
    stream: WebSocketStream<Box<dyn Io>>,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Frame(Frame),
    /// A ping or pong: the other side is there.
    Alive,
    Ended(End),
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The server closed it as it should.
    Closed,
    /// The server closed it and says what is wrong.
    Fault(String),
    /// It broke, or the server wants the client to come back.
    Vanished(String),
}

/// When each step was done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenTimes {
    /// TCP and TLS stood.
    pub(crate) connected: Instant,
    /// The server had upgraded.
    pub(crate) upgraded: Instant,
}

impl Socket {
    /// Opens a `ws` or `wss` URL within `limit`.
    pub(crate) async fn open(
        url: &Url,
        headers: &HeaderMap,
        tls: Tls,
        limit: Duration,
    ) -> Result<(Self, OpenTimes), ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable { url: url.to_string(), reason };
        match timeout(limit, upgrade(url, headers, tls)).await {
            Ok(opened) => opened,
            Err(_) => Err(unreachable(format!("no answer within {limit:.1?}"))),
        }
    }

    /// The next message. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Received {
        match self.stream.next().await {
            Some(Ok(Message::Text(text))) => Received::Frame(Frame::Text(text.to_string())),
            Some(Ok(Message::Binary(bytes))) => Received::Frame(Frame::Binary(bytes.to_vec())),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Received::Alive,
            Some(Ok(Message::Close(frame))) => Received::Ended(end(frame.as_ref())),
            Some(Err(WsError::Capacity(error))) => Received::Ended(End::Fault(error.to_string())),
            Some(Err(error)) => Received::Ended(End::Vanished(error.to_string())),
            None => Received::Ended(End::Vanished("the connection ended".to_owned())),
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The socket is broken, or nobody reads at its other end.
    pub(crate) async fn send(&mut self, frame: Frame) -> io::Result<()> {
        self.send_message(match frame {
            Frame::Text(text) => Message::Text(text.into()),
            Frame::Binary(bytes) => Message::Binary(bytes.into()),
        })
        .await
    }

    /// Asks whether the other side is there, below the words of the protocol.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn probe(&mut self) -> io::Result<()> {
        self.send_message(Message::Ping(Bytes::new())).await
    }

    async fn send_message(&mut self, message: Message) -> io::Result<()> {
        match timeout(SEND_PATIENCE, self.stream.send(message)).await {
            Ok(sent) => sent.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not read")),
        }
    }

    /// Says goodbye on the socket and waits a moment for the answer.
    pub(crate) async fn close(mut self) {
        let goodbye = async {
            // A socket that is broken is closed.
            if self.stream.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.stream.next().await {}
            }
        };
        let _ = timeout(CLOSE_PATIENCE, goodbye).await;
    }
}

/// What a close says. 1012 and 1013 are a server that restarts or is overloaded: it may be tried again (IANA's registry of
/// close codes). So may a router whose worker has died: there are others, and the token has the session's data at each.
fn end(frame: Option<&CloseFrame>) -> End {
    let Some(frame) = frame else { return End::Closed };
    let code = u16::from(frame.code);
    let words = || format!("{code} {}", signal::bounded(&frame.reason)).trim_end().to_owned();
    match code {
        1000 | 1001 | 1005 => End::Closed,
        1012 | 1013 => End::Vanished(words()),
        1011 if frame.reason.as_str() == CloseReason::WorkerLost.as_str() => End::Vanished(words()),
        _ => End::Fault(words()),
    }
}

async fn upgrade(url: &Url, headers: &HeaderMap, tls: Tls) -> Result<(Socket, OpenTimes), ClientError> {
    let unreachable =
        |error: &dyn std::error::Error| ClientError::Unreachable { url: url.to_string(), reason: signal::chain(error) };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|error| unreachable(&error))?;
    // Frames are small and must not wait for each other.
    tcp.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let io: Box<dyn Io> = if url.scheme() == "wss" {
        let name = ServerName::try_from(host).map_err(|error| unreachable(&error))?;
        let connector = TlsConnector::from(Arc::new(signal::tls(tls)?));
        Box::new(connector.connect(name, tcp).await.map_err(|error| unreachable(&error))?)
    } else {
        Box::new(tcp)
    };
    let connected = Instant::now();
    let mut request = url.as_str().into_client_request().map_err(|error| ClientError::Request(error.to_string()))?;
    let agent = HeaderValue::from_static(concat!("streamfleet-client/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(USER_AGENT, agent);
    request.headers_mut().extend(headers.clone());
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    match tokio_tungstenite::client_async_with_config(request, io, Some(config)).await {
        Ok((stream, _)) => Ok((Socket { stream }, OpenTimes { connected, upgraded: Instant::now() })),
        Err(WsError::Http(response)) => {
            let status = response.status().as_u16();
            let body = response.body().clone().unwrap_or_default();
            let reply = Reply { status, retry_after: signal::retry_after(response.headers()), body };
            Err(signal::refusal(&reply).map_or_else(
                || {
                    let reason = "not with an upgrade to a WebSocket".to_owned();
                    ClientError::NotAnAnswer { url: url.to_string(), status, reason }
                },
                ClientError::Refused,
            ))
        }
        Err(error) => Err(unreachable(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes() {
        #[track_caller]
        fn check(code: u16, reason: &'static str, expected: End) {
            assert_eq!(end(Some(&CloseFrame { code: code.into(), reason: reason.into() })), expected);
        }
        assert_eq!(end(None), End::Closed);
        check(1000, "", End::Closed);
        check(1001, "going away", End::Closed);
        check(1012, "", End::Vanished("1012".into()));
        check(1011, "", End::Fault("1011".into()));
        check(1011, "internal_error", End::Fault("1011 internal_error".into()));
        check(1011, "worker_lost", End::Vanished("1011 worker_lost".into()));
        check(1008, "no start\u{1b}[2J", End::Fault("1008 no start[2J".into()));
    }
}
