//! Signalling between a client and the server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http;

/// No offer of a client is larger.
const MAX_REQUEST: usize = 256 << 10;
/// A client that does not send its request within this is not waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// An HTTP server that passes offers on without their candidates. The other side then knows of the client only what reaches it
/// from there, and cannot go around a network that a test has put between the two.
pub struct WithoutCandidates {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WithoutCandidates {
    /// Stands before the server at `url` (`http://host:port`), on a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub fn before(url: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let (until, server) = (over.clone(), url.to_owned());
        let thread = thread::Builder::new().name("signalling".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if until.load(Relaxed) {
                    return;
                }
                // A broken request gets no answer; its client says so.
                let _ = stream.map_err(anyhow::Error::new).and_then(|stream| pass_on(stream, &server));
            }
        })?;
        Ok(Self { address, over, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for WithoutCandidates {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

/// One request and its response; the connection is closed after it.
fn pass_on(mut stream: TcpStream, server: &str) -> Result<()> {
    stream.set_read_timeout(Some(LIMIT))?;
    let (head, body) = read_request(&mut stream)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().context("no method")?, words.next().context("no path")?);
    // Whoever only asks says nothing of itself.
    let body = if body.is_empty() { body } else { offer(&body)?.into_bytes() };
    let headers = [("content-type", "application/json")];
    let response = http::request(method, &format!("{server}{path}"), &headers, &body)?;
    let head = format!(
        "HTTP/1.1 {} .\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        response.status,
        response.body.len()
    );
    Ok(stream.write_all(&[head.as_bytes(), &response.body].concat())?)
}

/// The offer in a request's body, without candidates.
fn offer(body: &[u8]) -> Result<String> {
    let mut offer: Value = serde_json::from_slice(body)?;
    if let Some(sdp) = offer["sdp"].as_str() {
        offer["sdp"] = without_candidates(sdp).into();
    }
    Ok(offer.to_string())
}

/// A request's head, as it was sent, and its body.
pub(crate) fn read_request(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).into_owned();
            let lower = head.to_ascii_lowercase();
            // Without a body nothing need be said of its length.
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
            if request.len() >= end + 4 + length.trim().parse::<usize>()? {
                return Ok((head, request.split_off(end + 4)));
            }
        }
        ensure!(request.len() < MAX_REQUEST, "too large");
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the request is cut off");
        request.extend_from_slice(&chunk[..count]);
    }
}

pub(crate) fn without_candidates(sdp: &str) -> String {
    let candidate = |line: &&str| line.starts_with("a=candidate:") || line.starts_with("a=end-of-candidates");
    sdp.split_inclusive('\n').filter(|line| !candidate(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_taken_out_and_nothing_else() {
        let sdp = "v=0\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\na=mid:0\r\na=end-of-candidates\r\n";
        assert_eq!(without_candidates(sdp), "v=0\r\na=mid:0\r\n");
    }

    #[test]
    fn an_offer_and_its_answer_pass() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let between = WithoutCandidates::before(&url).unwrap();
        let serve = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let (head, body) = read_request(&mut stream).unwrap();
            stream.write_all(b"HTTP/1.1 503 x\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            (head, String::from_utf8(body).unwrap())
        });
        let body = r#"{"sdp":"v=0\r\na=candidate:1\r\n"}"#;
        let response = http::request("POST", &format!("{}/echo", between.url()), &[], body.as_bytes()).unwrap();
        assert_eq!((response.status, response.body.as_slice()), (503, &b"{}"[..]));
        let (head, body) = serve.join().unwrap();
        assert!(head.starts_with("POST /echo HTTP/1.1"), "{head}");
        assert_eq!(body, r#"{"sdp":"v=0\r\n"}"#);
    }
}
