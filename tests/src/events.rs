//! A reader of server-sent events, which waits no longer than it is told.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http;

/// No stream of these tests is longer; one that is ends the test instead of the machine's memory.
const MAX_STREAM: usize = 4 << 20;
/// For the connection and the head of the answer.
const LIMIT: Duration = Duration::from_secs(10);

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerEvent {
    /// Its `id`, empty if it has none.
    pub id: String,
    /// Its `event`.
    pub name: String,
    /// Its `data`.
    pub data: Value,
}

/// An open stream of events.
pub struct Events {
    stream: TcpStream,
    status: u16,
    /// What has come and is not decoded yet.
    raw: Vec<u8>,
    text: String,
    ready: VecDeque<ServerEvent>,
    over: bool,
}

impl Events {
    /// Opens the stream at `url`, as a client that has seen the event `last` already.
    ///
    /// # Errors
    /// When there is no HTTP answer within ten seconds.
    pub fn open(url: &str, last: Option<&str>) -> Result<Self> {
        let (host, path) = http::split(url)?;
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n{last}\r\n");
        stream.write_all(head.as_bytes())?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(end) = raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            ensure!(raw.len() < MAX_STREAM && read(&mut stream, &mut raw)? > 0, "no answer of {url}");
        };
        let head = String::from_utf8_lossy(&raw[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
        raw.drain(..end + 4);
        let chunked = head.contains("transfer-encoding: chunked");
        // What has no body ends at once; the events' length is not known beforehand.
        Ok(Self { stream, status, raw, text: String::new(), ready: VecDeque::new(), over: !chunked })
    }

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The next event; `None` when the stream is over.
    ///
    /// # Errors
    /// When neither has come within `limit`.
    pub fn next(&mut self, limit: Duration) -> Result<Option<ServerEvent>> {
        let deadline = Instant::now() + limit;
        loop {
            self.decode()?;
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no event within {limit:?}");
            self.stream.set_read_timeout(Some(left))?;
            match read(&mut self.stream, &mut self.raw) {
                Ok(0) => self.over = true,
                Ok(_) => ensure!(self.raw.len() < MAX_STREAM, "an endless event"),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the chunks that are complete apart, and the events in them.
    fn decode(&mut self) -> Result<()> {
        while let Some(line) = self.raw.windows(2).position(|window| window == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&self.raw[..line])?.trim(), 16)?;
            let end = line + 2 + size;
            if self.raw.len() < end + 2 {
                break;
            }
            self.over |= size == 0;
            self.text += std::str::from_utf8(&self.raw[line + 2..end])?;
            self.raw.drain(..end + 2);
        }
        while let Some(end) = self.text.find("\n\n") {
            let block: String = self.text.drain(..end + 2).collect();
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
            // A block of comments keeps the connection alive.
            if let Some(data) = field("data:") {
                let [id, name] = ["id:", "event:"].map(|name| field(name).unwrap_or_default().to_owned());
                self.ready.push_back(ServerEvent { id, name, data: serde_json::from_str(data)? });
            }
        }
        Ok(())
    }
}

fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut chunk = [0; 4096];
    let count = stream.read(&mut chunk)?;
    into.extend_from_slice(&chunk[..count]);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_read_across_chunks_and_comments_are_none() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/outputs", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            let parts = ["id: 1\nevent: out", "put\ndata: [1, 2]\n\n", ": alive\n\n", "data: \"x\"\n\n"];
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
            for part in parts {
                stream.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).unwrap();
            }
            stream.write_all(b"0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let mut events = Events::open(&url, Some("0")).unwrap();
        let limit = Duration::from_secs(5);
        let first = events.next(limit).unwrap().unwrap();
        assert_eq!((first.id.as_str(), first.name.as_str(), first.data), ("1", "output", json!([1, 2])));
        assert_eq!(events.next(limit).unwrap().unwrap().data, json!("x"));
        assert_eq!(events.next(limit).unwrap(), None);
        assert!(server.join().unwrap().contains("last-event-id: 0\r\n"));
    }
}
