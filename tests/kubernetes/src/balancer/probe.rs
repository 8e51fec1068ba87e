//! Asking a node whether it serves: what kube-proxy answers at a Service's health check port, and at its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A node that is there answers within this, also when its cores are busy. One that says that it does not serve says so at once.
pub(super) const LIMIT: Duration = Duration::from_millis(500);
/// Whoever is woken later than this after the limit has had no core, and says nothing of the node.
const LATE: Duration = Duration::from_millis(100);
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";

/// Whether it answers 200 in time; `None` if that is not known.
pub(super) async fn is_healthy(at: SocketAddr) -> Option<bool> {
    let began = Instant::now();
    judge(asked(at).await, began.elapsed())
}

/// What an answer means that was there after so long, or `None` that there was none.
fn judge(answer: Option<bool>, after: Duration) -> Option<bool> {
    answer.or_else(|| (after <= LIMIT + LATE).then_some(false))
}

/// What it answers in time.
async fn asked(at: SocketAddr) -> Option<bool> {
    let asks = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.write_all(REQUEST).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        std::io::Result::Ok(&status == b"HTTP/1.1 200")
    };
    timeout(LIMIT, asks).await.ok().map(|said| said.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_blamed_for_a_core_that_was_away() {
        let late = LIMIT + LATE * 2;
        assert_eq!([judge(None, LIMIT), judge(None, late)], [Some(false), None]);
        assert_eq!([judge(Some(true), late), judge(Some(false), late)], [Some(true), Some(false)]);
    }
}
