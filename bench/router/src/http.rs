//! HTTP/1.1 as plainly as hyper has it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// As many as the router keeps to a worker, so that what is compared differs in nothing else.
const IDLE: usize = 32;
const IDLE_TIME: Duration = Duration::from_secs(8);
/// A session's place stands in a header; hyper's own limit is larger.
const BUFFER: usize = 400 << 10;

pub(crate) type Answer = Response<BoxBody<Bytes, hyper::Error>>;

pub(crate) fn whole(text: impl Into<Bytes>) -> BoxBody<Bytes, hyper::Error> {
    use http_body_util::BodyExt as _;
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

pub(crate) fn client<B>() -> Client<HttpConnector, B>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(IDLE)
        .build(connector)
}

/// Serves for ever.
pub(crate) async fn serve<F, A>(listen: SocketAddr, answer: F) -> anyhow::Result<()>
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await?;
    let connections = TaskTracker::new();
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answered = answer(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        connections.spawn(async move {
            // A client that goes is none of ours.
            let _ = http1::Builder::new().max_buf_size(BUFFER).serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// A text of about that length whose lines, and so escapes, are as long as those of an SDP: 37 bytes on average.
pub(crate) fn sdp(bytes: usize) -> String {
    let pair = "a=rtpmap:111 opus/48000/2\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
    pair.repeat(bytes / pair.len() + 1)
}
