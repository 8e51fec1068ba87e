//! Asking a node whether it serves: what kube-proxy answers at a Service's health check port, and at its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A node that is there answers within this, also when its cores are busy.
pub(super) const LIMIT: Duration = Duration::from_millis(200);
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";

/// Whether it answers 200 in time.
pub(super) async fn is_healthy(at: SocketAddr) -> bool {
    let asks = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(REQUEST).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        std::io::Result::Ok(&status == b"HTTP/1.1 200")
    };
    matches!(timeout(LIMIT, asks).await, Ok(Ok(true)))
}
