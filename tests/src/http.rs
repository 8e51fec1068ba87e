//! An HTTP/1.1 client of one request per connection, which sends the bytes it is given, well-formed or not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A server that does not answer within this is broken, however busy the machine.
const LIMIT: Duration = Duration::from_secs(30);
/// No answer of the product is larger; a longer one is cut off and then fails to parse.
const MAX_RESPONSE: u64 = 4 << 20;

/// A complete response.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines as sent.
    pub head: String,
    /// Body with the transfer coding removed.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The body as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<String> {
        Ok(String::from_utf8(self.body.clone())?)
    }

    /// `meta.error` of a refusal, empty when there is none.
    pub fn refusal(&self) -> String {
        self.json().ok().and_then(|body| body["meta"]["error"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    fn parse(raw: &[u8]) -> Result<Self> {
        let end = raw
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .with_context(|| format!("no HTTP response: {:?}", String::from_utf8_lossy(raw)))?;
        let head = String::from_utf8_lossy(&raw[..end]).into_owned();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .with_context(|| format!("no status: {head}"))?;
        let body = &raw[end + 4..];
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            unchunk(body)?
        } else {
            body.to_vec()
        };
        Ok(Self { status, head, body })
    }
}

/// Sends a request with a `Host`, a `Content-Length` and `Connection: close`, and reads the whole response.
///
/// # Errors
/// When the URL is not `http://host:port/path`, on a connection error and when the answer is not HTTP.
pub fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
    let (host, path) = split(url)?;
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    raw(host, &[head.as_bytes(), body].concat())
}

/// Sends bytes as they are and reads until the server closes.
///
/// # Errors
/// On a connection error before the first byte of the answer, and when the answer is not HTTP.
pub fn raw(host: &str, bytes: &[u8]) -> Result<Response> {
    let mut stream = TcpStream::connect(host).with_context(|| host.to_owned())?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    // A server may refuse a body before it has read all of it and close: what it said before counts.
    let sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    let received = stream.take(MAX_RESPONSE).read_to_end(&mut answer);
    if answer.is_empty() {
        sent?;
        received?;
    }
    Response::parse(&answer)
}

/// Opens a connection, sends `bytes` and leaves without waiting for an answer.
///
/// # Errors
/// On a connection error.
pub fn abandon(host: &str, bytes: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Both)?;
    Ok(())
}

/// `host:port` and path of an `http://` URL.
///
/// # Errors
/// When it has another scheme.
pub fn split(url: &str) -> Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("not an http URL: {url}"))?;
    Ok(rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash)))
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line])?.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        ensure!(rest.len() >= line + 2 + size + 2, "a chunk is cut off");
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_read_whole_and_chunked() {
        #[track_caller]
        fn check(raw: &str, status: u16, body: &str) {
            let response = Response::parse(raw.as_bytes()).unwrap();
            assert_eq!((response.status, response.text().unwrap().as_str()), (status, body));
        }
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok");
        check(
            "HTTP/1.1 422 Unprocessable Entity\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            422,
            "abcd",
        );
        check("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
        assert!(Response::parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc").is_err());
        assert!(Response::parse(b"").is_err());
    }

    #[test]
    fn urls_split_into_host_and_path() {
        assert_eq!(split("http://127.0.0.1:80/a/b").unwrap(), ("127.0.0.1:80", "/a/b"));
        assert_eq!(split("http://127.0.0.1:80").unwrap(), ("127.0.0.1:80", "/"));
        assert!(split("https://127.0.0.1:80").is_err());
    }
}
