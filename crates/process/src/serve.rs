//! HTTP listeners that bound what a stranger can hold: connections, header time and size, handshake time, and the time
//! that a response may wait for a reader.
//!
//! HTTP/1.1 only: WebSocket upgrades need it, the messages are small and few, and multiplexing would put a second set
//! of limits (streams, resets, window sizes) between a connection and its cost. A load balancer in front may speak
//! anything to its clients.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Connections that the kernel may keep for us while we are busy or full.
const BACKLOG: i32 = 1024;

/// Pause after a failed accept. Running out of file descriptors is the usual cause, and it does not pass in a spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one listener grants its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections at the same time. Further ones wait in the kernel's queue.
    pub connections: NonZeroUsize,
    /// From the first wait for a request to the end of its header; also how long an idle connection is kept.
    pub header_time: Duration,
    /// Size of a request's header, in bytes.
    pub header_bytes: usize,
    /// For the TLS handshake.
    pub handshake_time: Duration,
    /// How long bytes may stay unacknowledged by the client (TCP_USER_TIMEOUT), so that one that never reads its
    /// response does not keep it for ever.
    pub write_time: Duration,
    /// Bytes of a connection that may wait in the kernel before it takes no more (TCP_NOTSENT_LOWAT). Without a bound the
    /// kernel takes megabytes for a client that has stopped reading: half a minute of audio, in which nobody notices.
    pub unsent_bytes: u32,
}

impl Default for ServeLimits {
    /// 4 096 connections (an idle one costs about 20 kB), 10 s per header of at most 32 KiB (twice what browsers send
    /// at worst), 10 s per handshake, 30 s per write, 64 KiB unsent (about a second of audio as JSON, many packets of it on
    /// a long line).
    fn default() -> Self {
        Self {
            connections: NonZeroUsize::new(4096).expect("invariant: 4096 is not zero"),
            header_time: Duration::from_secs(10),
            header_bytes: 32 << 10,
            handshake_time: Duration::from_secs(10),
            write_time: Duration::from_secs(30),
            unsent_bytes: 64 << 10,
        }
    }
}

/// A bound socket that nobody serves yet: binding is done early, so that a taken port is known before work starts.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
}

impl Listener {
    /// Binds; port 0 takes any free port. An IPv6 wildcard takes IPv4 clients too.
    ///
    /// # Errors
    /// The operating system's, for an address that is taken or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // A restarted server finds connections of its predecessor in TIME_WAIT on the same port.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let socket = std::net::TcpListener::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket, address, tls: None })
    }

    /// Serves TLS instead of plain HTTP.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The address that was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves `router` until `stop`; then takes no more connections, lets requests under way finish for up to
    /// `grace`, and drops the rest. Requests carry their peer as `ConnectInfo<SocketAddr>`.
    ///
    /// # Errors
    /// If the socket cannot be handed to the runtime. Failures of single connections end only those.
    pub async fn serve(
        self,
        router: Router,
        limits: ServeLimits,
        stop: CancellationToken,
        grace: Duration,
    ) -> io::Result<()> {
        let socket = TcpListener::from_std(self.socket)?;
        let tls = self.tls.map(TlsAcceptor::from);
        let places = Arc::new(Semaphore::new(limits.connections.get().min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        loop {
            while let Some(ended) = connections.try_join_next() {
                report(ended);
            }
            let accepted = tokio::select! {
                accepted = accept(&socket, &places) => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, peer, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
            connections.spawn(async move {
                let _place = place;
                if let Err(error) = connection(stream, peer, tls, router, limits, stop).await {
                    // Strangers decide how often this happens, so it must not be visible by default.
                    tracing::debug!(%peer, error, "connection ended early");
                }
            });
        }
        drop(socket);
        let finish = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if timeout(grace, finish).await.is_err() {
            tracing::info!(left = connections.len(), "connections were cut off at the end of the grace period");
        }
        Ok(())
    }
}

/// The next connection, once there is a place for it: a full server leaves the rest to the kernel's queue.
async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("invariant: the semaphore is never closed");
    let (stream, peer) = socket.accept().await?;
    Ok((stream, peer, place))
}

/// A router without a net under it panics here; the other connections go on, but somebody has to hear of it.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: ServeLimits,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_user_timeout(Some(limits.write_time))?;
        socket.set_tcp_notsent_lowat(limits.unsent_bytes)?;
    }
    match tls {
        None => requests(stream, peer, router, limits, stop).await,
        Some(tls) => {
            let stream = timeout(limits.handshake_time, tls.accept(stream)).await??;
            requests(stream, peer, router, limits, stop).await
        }
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    limits: ServeLimits,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    let service = router.map_request(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_header_size(limits.header_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut serving = pin!(serving);
    tokio::select! {
        result = serving.as_mut() => result?,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::future::pending;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        task: JoinSet<io::Result<()>>,
    }

    fn serve(limits: ServeLimits, tls: Option<Arc<ServerConfig>>) -> Served {
        let mut listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        if let Some(tls) = tls {
            listener = listener.with_tls(tls);
        }
        let address = listener.address();
        let stop = CancellationToken::new();
        let router = Router::new()
            .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }))
            .route("/never", get(pending::<String>));
        let mut task = JoinSet::new();
        task.spawn(listener.serve(router, limits, stop.clone(), Duration::from_millis(200)));
        Served { address, stop, task }
    }

    async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) -> String {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A reset instead of an orderly end still leaves what came before it.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    const PEER: &str = "GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn requests_know_their_peer() {
        let served = serve(ServeLimits::default(), None);
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let answer = say(&mut stream, PEER).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
    }

    #[tokio::test]
    async fn a_header_that_trickles_in_ends_the_connection() {
        let served = serve(ServeLimits { header_time: Duration::from_millis(50), ..Default::default() }, None);
        for start in ["", "GET /peer HTTP/1.1\r\nhost: x\r\n"] {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            let answer = say(&mut stream, start).await;
            assert!(!answer.contains("200"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_header_beyond_the_limit_is_refused() {
        let served = serve(ServeLimits { header_bytes: 8192, ..Default::default() }, None);
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let long = format!("GET /peer HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(16 << 10));
        let answer = say(&mut stream, &long).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn a_full_server_makes_the_next_one_wait() {
        let connections = NonZeroUsize::MIN;
        let served =
            serve(ServeLimits { connections, header_time: Duration::from_millis(100), ..Default::default() }, None);
        let _idle = TcpStream::connect(served.address).await.unwrap();
        let mut second = TcpStream::connect(served.address).await.unwrap();
        let begun = std::time::Instant::now();
        let answer = say(&mut second, PEER).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(begun.elapsed() >= Duration::from_millis(80), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections_at_once_and_busy_ones_after_the_grace_period() {
        let mut served = serve(ServeLimits::default(), None);
        let mut idle = TcpStream::connect(served.address).await.unwrap();
        let mut busy = TcpStream::connect(served.address).await.unwrap();
        busy.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        // The first answered request shows that the connections before it have been accepted.
        say(&mut TcpStream::connect(served.address).await.unwrap(), PEER).await;
        let begun = std::time::Instant::now();
        served.stop.cancel();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert!(begun.elapsed() < Duration::from_millis(150), "{:?}", begun.elapsed());
        served.task.join_next().await.unwrap().unwrap().unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
        assert_eq!(busy.read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(served.address).await.is_err());
    }

    #[tokio::test]
    async fn tls_with_a_self_signed_certificate() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = std::env::temp_dir().join(format!("streamfleet-serve-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let config = crate::tls::server_config(&crate::tls::Certificate::Files { chain, key }).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        let limits = ServeLimits { handshake_time: Duration::from_millis(100), ..Default::default() };
        let served = serve(limits, Some(config));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = TcpStream::connect(served.address).await.unwrap();
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        let answer = say(&mut stream, PEER).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        let mut silent = TcpStream::connect(served.address).await.unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "a handshake that never starts is cut off");
    }
}
