//! Several routers behind one address, as a load balancer has them that knows nothing of sessions.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::signalling::{read_request, without_candidates};

/// A client that does not send its request within this is not waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// Gives every request a connection of its own to the next replica. What an offer has of candidates is taken out of it and
/// sent before it, each with a request of its own.
pub struct Replicas {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    replicas: Vec<String>,
    requests: AtomicUsize,
    passed: Mutex<Vec<Passed>>,
    over: AtomicBool,
}

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Passed {
    /// The replica's number.
    pub replica: usize,
    /// Method and path.
    pub what: String,
    /// The answer's status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Replicas {
    /// Stands before servers (`http://host:port` each), on a port of its own.
    ///
    /// # Errors
    /// When there is no port.
    pub fn before(replicas: Vec<String>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (requests, passed, over) = (AtomicUsize::new(0), Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { replicas, requests, passed, over });
        let thread = thread::Builder::new().name("replicas".to_owned()).spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming() {
                    if shared.over.load(SeqCst) {
                        return;
                    }
                    let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
                    // A broken request gets no answer; its client says so.
                    thread::spawn(move || drop(shared.serve(stream)));
                }
            }
        })?;
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, in the order of their answers.
    pub fn passed(&self) -> Vec<Passed> {
        self.shared.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        // Wakes the thread, which waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(LIMIT))?;
        let (head, body) = read_request(&mut stream)?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().context("no method")?, words.next().context("no path")?);
        let header = |name: &str| {
            let named = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
            head.lines().find(named).map(|line| line[name.len() + 1..].trim())
        };
        let names = ["authorization", "content-type", "if-match"];
        let headers: Vec<_> = names.into_iter().filter_map(|name| Some((name, header(name)?))).collect();
        let body = match serde_json::from_slice::<Value>(&body) {
            Ok(offer) if offer["type"] == "offer" => self.candidates_first(path, &headers, offer)?.into_bytes(),
            _ => body,
        };
        let response = self.pass(method, path, &headers, &body)?;
        let kind = response.head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-type:"));
        let head = format!(
            "HTTP/1.1 {} .\r\n{}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            response.status,
            kind.unwrap_or("content-type: text/plain"),
            response.body.len()
        );
        Ok(stream.write_all(&[head.as_bytes(), &response.body].concat())?)
    }

    /// The offer that is left when its candidates have gone ahead.
    fn candidates_first(&self, path: &str, headers: &[(&str, &str)], mut offer: Value) -> Result<String> {
        let sdp = offer["sdp"].as_str().context("an offer without a description")?.to_owned();
        for (mid, line) in candidates(&sdp) {
            let candidate = json!({ "candidate": line, "sdpMid": mid });
            let body =
                json!({ "type": "ice-candidate", "webrtc_id": offer["webrtc_id"], "candidate": candidate }).to_string();
            self.pass("POST", path, headers, body.as_bytes())?;
        }
        offer["sdp"] = without_candidates(&sdp).into();
        Ok(offer.to_string())
    }

    fn pass(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let replica = self.requests.fetch_add(1, SeqCst) % self.replicas.len();
        let response = http::request(method, &format!("{}{path}", self.replicas[replica]), headers, body)?;
        let (what, body) = (format!("{method} {path}"), String::from_utf8_lossy(&response.body).into_owned());
        let passed = Passed { replica, what, status: response.status, body };
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).push(passed);
        Ok(response)
    }
}

/// The candidates of a description, each with the m-line that it is of.
fn candidates(sdp: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for section in sdp.split("\r\nm=").skip(1) {
        let Some(mid) = section.lines().find_map(|line| line.strip_prefix("a=mid:")) else { continue };
        let lines = section.lines().filter_map(|line| line.strip_prefix("a="));
        found.extend(lines.filter(|line| line.starts_with("candidate:")).map(|line| (mid.trim(), line.trim())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_of_their_m_lines() {
        let sdp = "v=0\r\nm=audio 9 x 0\r\na=mid:0\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n\
                   m=application 9 x y\r\na=candidate:2 1 udp 1 10.0.0.1 9 typ host\r\na=mid:d\r\n";
        let expected =
            [("0", "candidate:1 1 udp 1 10.0.0.1 9 typ host"), ("d", "candidate:2 1 udp 1 10.0.0.1 9 typ host")];
        assert_eq!(candidates(sdp), expected);
    }

    #[test]
    fn each_request_goes_to_the_next() {
        let replica = |name: &'static str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let thread = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                read_request(&mut stream).unwrap();
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()).unwrap();
            });
            (url, thread)
        };
        let ((a, first), (b, second)) = (replica("a"), replica("b"));
        let replicas = Replicas::before(vec![a, b]).unwrap();
        let url = format!("{}/X/webrtc/offer", replicas.url());
        let offer =
            json!({ "type": "offer", "webrtc_id": "x", "sdp": "v=0\r\nm=audio\r\na=mid:0\r\na=candidate:1\r\n" });
        let answer = http::request("POST", &url, &[], offer.to_string().as_bytes()).unwrap();
        assert_eq!(answer.text().unwrap(), "b", "the candidate went to the first");
        let passed: Vec<_> = replicas.passed().into_iter().map(|one| (one.replica, one.what, one.body)).collect();
        let what = || "POST /X/webrtc/offer".to_owned();
        assert_eq!(passed, [(0, what(), "a".to_owned()), (1, what(), "b".to_owned())]);
        first.join().unwrap();
        second.join().unwrap();
    }
}
