//! A WebSocket client small enough to send what no library would (RFC 6455).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::http;

/// For the handshake and for each write: a server that does not read what is not more than a message is broken.
const LIMIT: Duration = Duration::from_secs(20);
/// No message of the product is longer.
const MAX_MESSAGE: usize = 1 << 20;

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The server closes, with this code; 1005 if it gave none.
    Close(u16),
    /// The connection is gone without a close frame.
    Gone,
}

/// An open connection. Dropping it says no goodbye.
pub struct WebSocket {
    stream: TcpStream,
    /// What has come and is no whole frame yet.
    unread: Vec<u8>,
}

impl WebSocket {
    /// Opens `url` (`http://…`).
    ///
    /// # Errors
    /// When the server does not switch protocols.
    pub fn open(url: &str) -> Result<Self> {
        let (host, path) = http::split(url)?;
        Self::shake_hands(TcpStream::connect(host)?, host, path)
    }

    /// The same with as small a receive buffer as the system allows: who does not read is soon noticed.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn open_narrow(url: &str) -> Result<Self> {
        let (host, path) = http::split(url)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(1)?;
        socket.connect(&host.parse::<SocketAddr>()?.into())?;
        Self::shake_hands(socket.into(), host, path)
    }

    fn shake_hands(mut stream: TcpStream, host: &str, path: &str) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        // The key is a constant: what comes back of it is not looked at.
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        let mut socket = Self { stream, unread: Vec::new() };
        let end = loop {
            if let Some(end) = socket.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            ensure!(socket.unread.len() < MAX_MESSAGE && socket.read()? > 0, "no handshake");
        };
        let head = String::from_utf8_lossy(&socket.unread[..end]).into_owned();
        ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
        socket.unread.drain(..end + 4);
        Ok(socket)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.frame(1, text.len() as u64, text.as_bytes())
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.frame(2, bytes.len() as u64, bytes)
    }

    /// Sends a frame that announces `length` octets and has `payload`, which may be less.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn frame(&mut self, opcode: u8, length: u64, payload: &[u8]) -> Result<()> {
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(0x80 | length as u8),
            126..0x1_0000 => frame.extend([&[0xfe][..], &(length as u16).to_be_bytes()].concat()),
            _ => frame.extend([&[0xff][..], &length.to_be_bytes()].concat()),
        }
        // A mask of zeros is a mask, and leaves the payload as it is.
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.raw(&frame)
    }

    /// Sends octets, whatever they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn raw(&mut self, octets: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(octets)?)
    }

    /// The next message, or how the connection ended; `None` if nothing has come within `limit`.
    ///
    /// # Errors
    /// When the server breaks the protocol.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Received>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some((opcode, payload)) = self.take()? {
                match opcode {
                    1 => return Ok(Some(Received::Text(String::from_utf8(payload)?))),
                    2 => return Ok(Some(Received::Binary(payload))),
                    8 => {
                        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                        return Ok(Some(Received::Close(code)));
                    }
                    // Pings are not answered: not doing so is a client's worst.
                    _ => continue,
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.read() {
                Ok(0) => return Ok(Some(Received::Gone)),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(_) => return Ok(Some(Received::Gone)),
            }
        }
    }

    /// Reads until the server closes, at most `limit`: the close code, `None` if the connection just broke or is still open.
    ///
    /// # Errors
    /// As of [`Self::next`].
    pub fn closed(&mut self, limit: Duration) -> Result<Option<u16>> {
        let deadline = Instant::now() + limit;
        while let Some(received) = self.next(deadline.saturating_duration_since(Instant::now()))? {
            match received {
                Received::Close(code) => return Ok(Some(code)),
                Received::Gone => return Ok(None),
                Received::Text(_) | Received::Binary(_) => {}
            }
        }
        Ok(None)
    }

    /// Opcode and payload of the first frame that is complete.
    fn take(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let [first, second, rest @ ..] = self.unread.as_slice() else { return Ok(None) };
        ensure!(first & 0x80 != 0 && second & 0x80 == 0, "a fragment, or a masked frame, from a server");
        let (length, head) = match second {
            126 => (rest.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))), 4),
            127 => (rest.first_chunk().map(|length| u64::from_be_bytes(*length)), 10),
            short => (Some(u64::from(*short)), 2),
        };
        let Some(length) = length else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE).context("too long")?;
        if self.unread.len() < head + length {
            return Ok(None);
        }
        let (opcode, payload) = (first & 15, self.unread[head..head + length].to_vec());
        self.unread.drain(..head + length);
        Ok(Some((opcode, payload)))
    }

    fn read(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 4096];
        let count = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn frames_of_every_length_and_the_close_code() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            let long = [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 65_536]].concat();
            for part in
                [&b"HTTP/1.1 101 x\r\n\r\n\x81\x02hi\x82\x7e\x01\x00"[..], &[5; 256], &long, b"\x88\x02\x03\xf0"]
            {
                stream.write_all(part).unwrap();
            }
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).unwrap();
            frame
        });
        let mut socket = WebSocket::open(&url).unwrap();
        let limit = Duration::from_secs(5);
        assert_eq!(socket.next(limit).unwrap(), Some(Received::Text("hi".into())));
        assert_eq!(socket.next(limit).unwrap(), Some(Received::Binary(vec![5; 256])));
        assert_eq!(socket.next(limit).unwrap(), Some(Received::Binary(vec![7; 65_536])));
        assert_eq!(socket.next(limit).unwrap(), Some(Received::Close(1008)));
        socket.text("abc").unwrap();
        assert_eq!(server.join().unwrap(), *b"\x81\x83\0\0\0\0abc");
    }
}
