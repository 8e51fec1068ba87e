//! Sockets of broken and hostile clients: each is told what is wrong and closed, and a thousand of them leave nothing.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use streamfleet_tests::{Received, Server, WebSocket, http};

use crate::{MACHINE, PATIENCE, plain, service};

/// Clients at a time: each row of the table meets each other.
const CLIENTS: usize = 24;
/// A session that may come back is kept so long, and this is how long the last of a round is waited for.
const REATTACH: Duration = Duration::from_secs(45);
/// How far the heap may be above what it was after an earlier round. What a thousand sessions leave each would be far more:
/// a session on a socket has 20 kB and more. Thread caches of the allocator and idle connections come and go with less.
const HEAP_GROWTH: u64 = 1 << 20;

/// How a client's connection ends.
#[derive(Clone, Copy)]
enum Ends {
    /// The server closes with this code.
    Closed(u16),
    /// The client leaves without a word, whatever the server thinks of it.
    Leaves,
}

struct Row {
    name: &'static str,
    /// The last part of the path.
    route: &'static str,
    service: &'static str,
    act: fn(&mut WebSocket, &str) -> Result<()>,
    ends: Ends,
}

pub(crate) const SOCKET: &str = "websocket/offer";
pub(crate) const PHONE: &str = "telephone/handler";

pub(crate) fn start(socket: &mut WebSocket, id: &str, extra: Value) -> Result<()> {
    let mut start = json!({ "event": "start", "websocket_id": id });
    if let (Some(start), Value::Object(extra)) = (start.as_object_mut(), extra) {
        start.extend(extra);
    }
    socket.text(&start.to_string())
}

fn media(payload: &str) -> String {
    json!({ "event": "media", "media": { "payload": payload } }).to_string()
}

/// So many octets of mu-law silence.
fn silence(octets: usize) -> String {
    media(&BASE64_STANDARD.encode(vec![0xff_u8; octets]))
}

pub(crate) fn call(socket: &mut WebSocket, id: &str, format: Value) -> Result<()> {
    socket.text(&json!({ "event": "connected", "protocol": "Call", "version": "1.0.0" }).to_string())?;
    let about = json!({ "accountSid": "AC0", "streamSid": id, "callSid": "CA0", "tracks": ["inbound"], "mediaFormat": format, "customParameters": {} });
    socket.text(&json!({ "event": "start", "sequenceNumber": "1", "start": about, "streamSid": id }).to_string())
}

pub(crate) fn mulaw() -> Value {
    json!({ "encoding": "audio/x-mulaw", "sampleRate": 8_000, "channels": 1 })
}

const ROWS: &[Row] = &[
    Row { name: "never sends", route: SOCKET, service: "echo", ends: Ends::Leaves, act: |_, _| Ok(()) },
    Row {
        name: "media before the start",
        route: SOCKET,
        service: "echo",
        ends: Ends::Leaves,
        act: |socket, _| (0..20).try_for_each(|_| socket.text(&silence(960))),
    },
    Row {
        name: "media before the start, and then one",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1000),
        act: |socket, id| {
            socket.text(&silence(960))?;
            start(socket, id, json!({}))?;
            socket.text(r#"{"event":"stop"}"#)
        },
    },
    Row {
        name: "a wrong rate",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1000),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            for octets in [160, 1, 441, 7_999, 0] {
                socket.text(&silence(octets))?;
            }
            socket.text(r#"{"event":"stop"}"#)
        },
    },
    Row {
        name: "half a sample",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            start(socket, id, json!({ "codec": "pcm16" }))?;
            socket.text(&silence(961))
        },
    },
    Row {
        name: "half a sample in binary",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            start(socket, id, json!({ "codec": "pcm16", "framing": "binary" }))?;
            socket.binary(&[0; 961])
        },
    },
    Row {
        name: "no base64",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            socket.text(&media("not base64!"))
        },
    },
    Row {
        name: "no JSON",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            socket.text("{\"event\":")
        },
    },
    Row {
        name: "no event",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1008),
        act: |socket, _| socket.text("{}"),
    },
    Row {
        name: "no id",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1008),
        act: |socket, _| socket.text(r#"{"event":"start"}"#),
    },
    Row {
        name: "a second start",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1008),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            start(socket, id, json!({}))
        },
    },
    Row {
        name: "a message of 100 MB",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1009),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            // Announced; what is refused need not be sent.
            socket.frame(1, 100_000_000, &[b' '; 1024])
        },
    },
    Row {
        name: "reserved bits",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1002),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            // The first of the three, as of a compressed message, which nobody has agreed on.
            socket.frame(0x41, 2, b"{}")
        },
    },
    Row {
        name: "a reserved opcode",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1002),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            socket.frame(3, 2, b"{}")
        },
    },
    Row {
        name: "a reserved opcode before the start",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1002),
        act: |socket, _| socket.frame(11, 0, b""),
    },
    Row {
        name: "a ping in pieces",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1002),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            socket.raw(&[0x09, 0x80, 0, 0, 0, 0])
        },
    },
    Row {
        name: "no mask",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1002),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            socket.raw(b"\x81\x02{}")
        },
    },
    Row {
        name: "a text that is no UTF-8",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            socket.frame(1, 3, b"\xff{}")
        },
    },
    Row {
        name: "an end in the middle of a character",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            socket.frame(1, 2, b"a\xc3")
        },
    },
    Row {
        name: "does not read",
        route: SOCKET,
        service: "plain-tone",
        ends: Ends::Leaves,
        act: |socket, id| {
            start(socket, id, json!({}))?;
            thread::sleep(Duration::from_millis(300));
            Ok(())
        },
    },
    Row {
        name: "ten times real time",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1000),
        act: |socket, id| {
            start(socket, id, json!({}))?;
            (0..500).try_for_each(|_| socket.text(&silence(960)))?;
            socket.text(r#"{"event":"stop"}"#)
        },
    },
    Row {
        name: "an Opus packet that is none",
        route: SOCKET,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            start(socket, id, json!({ "codec": "opus" }))?;
            // A packet of several frames that does not say of how many (RFC 6716, 3.2.5).
            socket.text(&media(&BASE64_STANDARD.encode([3])))
        },
    },
    Row {
        name: "vanishes and may come back",
        route: SOCKET,
        service: "echo",
        ends: Ends::Leaves,
        act: |socket, id| start(socket, id, json!({ "resume": true })),
    },
    Row {
        name: "vanishes",
        route: SOCKET,
        service: "echo",
        ends: Ends::Leaves,
        act: |socket, id| {
            start(socket, id, json!({}))?;
            (0..5).try_for_each(|_| socket.text(&silence(960)))
        },
    },
    Row {
        name: "a call of another format",
        route: PHONE,
        service: "echo",
        ends: Ends::Closed(1008),
        act: |socket, id| call(socket, id, json!({ "encoding": "audio/pcm", "sampleRate": 16_000, "channels": 2 })),
    },
    Row {
        name: "a call that begins with its audio",
        route: PHONE,
        service: "echo",
        ends: Ends::Leaves,
        act: |socket, _| socket.text(&silence(160)),
    },
    Row {
        name: "a call that vanishes",
        route: PHONE,
        service: "echo",
        ends: Ends::Leaves,
        act: |socket, id| {
            call(socket, id, mulaw())?;
            socket.text(&silence(160))
        },
    },
    Row {
        name: "a call with reserved bits",
        route: PHONE,
        service: "echo",
        ends: Ends::Closed(1002),
        act: |socket, id| {
            call(socket, id, mulaw())?;
            socket.frame(0x41, 2, b"{}")
        },
    },
    Row {
        name: "a call whose text is no UTF-8",
        route: PHONE,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            call(socket, id, mulaw())?;
            socket.frame(1, 3, b"\xff{}")
        },
    },
    Row {
        name: "a call whose audio is no base64",
        route: PHONE,
        service: "echo",
        ends: Ends::Closed(1007),
        act: |socket, id| {
            call(socket, id, mulaw())?;
            let payload = json!({ "track": "inbound", "chunk": "1", "timestamp": "0", "payload": "%" });
            socket.text(
                &json!({ "event": "media", "sequenceNumber": "2", "media": payload, "streamSid": id }).to_string(),
            )
        },
    },
];

fn one(server: &Server, row: &Row, n: usize) -> Result<()> {
    let url = format!("{}/{}/{}", server.url(), row.service, row.route);
    if n % 97 == 1 {
        // Gone in the middle of the handshake.
        let (host, path) = http::split(&url)?;
        return http::abandon(host, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: webso").as_bytes());
    }
    let mut socket = WebSocket::open(&url)?;
    let acted = (row.act)(&mut socket, &format!("h{n}"));
    match row.ends {
        Ends::Leaves => acted,
        // Who is closed while it still sends may not get to the end of it.
        Ends::Closed(code) => {
            let closed = socket.closed(PATIENCE)?;
            ensure!(closed == Some(code), "closed with {closed:?} and not {code} ({acted:?})");
            Ok(())
        }
    }
}

fn round(server: &Server, first: usize, count: usize) -> Result<()> {
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let failures = &failures;
            scope.spawn(move || {
                for n in (first + client..first + count).step_by(CLIENTS) {
                    let row = &ROWS[n % ROWS.len()];
                    if let Err(error) = one(server, row, n).with_context(|| format!("{} ({n})", row.name)) {
                        failures.lock().expect("invariant: no thread panics with the lock").push(error);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner()?;
    ensure!(failures.is_empty(), "{failures:#?}");
    server.await_no_sessions(&["/echo", "/plain-tone"], REATTACH)?;
    Ok(())
}

pub(crate) fn server() -> Result<Server> {
    let mut services = plain(&["plain-tone"]);
    services.push(service("echo", "plain-echo", json!({})));
    Server::start_services(&services.into(), &[])
}

#[test]
fn a_thousand_hostile_sockets_leave_nothing() -> Result<()> {
    let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let server = server()?;
    // Each row once, alone, so that a wrong answer is not one of a crowd.
    for (n, row) in ROWS.iter().enumerate() {
        one(&server, row, n * 97 + 2).with_context(|| row.name)?;
    }
    round(&server, 100_000, 500)?;
    let (heap, descriptors) =
        (lowest(&server, Server::heap)?, lowest(&server, |server| Ok(server.descriptors()? as u64))?);
    round(&server, 200_000, 1_000)?;
    let began = Instant::now();
    loop {
        let (now, open) = (server.heap()?, server.descriptors()? as u64);
        if now <= heap + HEAP_GROWTH && open <= descriptors {
            println!("heap {heap} B after 500, {now} B after 1 500; {open} descriptors");
            break;
        }
        ensure!(
            began.elapsed() < Duration::from_secs(20),
            "{now} B of heap were {heap}, {open} descriptors {descriptors}"
        );
        thread::sleep(Duration::from_millis(200));
    }
    let admitted = server.metrics()?.sum("streamfleet_sessions_admitted");
    ensure!(admitted == Some(0.0), "{admitted:?} places are held");
    // It still serves.
    let mut socket = WebSocket::open(&format!("{}/plain-tone/{SOCKET}", server.url()))?;
    start(&mut socket, "after", json!({}))?;
    let said = socket.next(PATIENCE)?;
    ensure!(matches!(&said, Some(Received::Text(text)) if text.contains("media")), "{said:?}");
    Ok(())
}

/// The lowest of a second's looks: connections close after the last answer.
fn lowest(server: &Server, look: impl Fn(&Server) -> Result<u64>) -> Result<u64> {
    let mut lowest = look(server)?;
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(100));
        lowest = lowest.min(look(server)?);
    }
    Ok(lowest)
}

/// A socket that is closed with data unread is reset, and a reset takes from many a client what it has not read: one that still
/// sends what nobody reads has a moment for our last words.
#[test]
fn a_client_that_still_sends_has_time_to_read_why_it_is_closed() -> Result<()> {
    let server = server()?;
    for (route, begin) in [
        (SOCKET, (|socket, id| start(socket, id, json!({}))) as fn(&mut WebSocket, &str) -> Result<()>),
        (PHONE, |socket, id| call(socket, id, mulaw())),
    ] {
        let mut socket = WebSocket::open(&format!("{}/echo/{route}", server.url()))?;
        begin(&mut socket, route.split('/').next().unwrap_or_default())?;
        // More than the server takes, and less than the kernel keeps for it.
        socket.frame(2, 300_000, &[0; 300_000])?;
        let closed = socket.closed(PATIENCE)?;
        ensure!(closed == Some(1009), "{route}: {closed:?}");
        let after = socket.next(Duration::from_millis(500))?;
        ensure!(after.is_none(), "{route}: {after:?} at once");
        let gone = socket.next(PATIENCE)?;
        ensure!(gone == Some(Received::Gone), "{route}: {gone:?}");
    }
    Ok(())
}

#[test]
fn abandoned_connections_do_not_stop_the_server() -> Result<()> {
    let server = server()?;
    let (host, _) = http::split(server.url())?;
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(host)).collect::<Result<_, _>>()?;
    for mut stream in &idle[..100] {
        stream.write_all(b"GET /echo/websocket/offer HTTP/1.1\r\n")?;
    }
    let mut socket = WebSocket::open(&format!("{}/plain-tone/{SOCKET}", server.url()))?;
    start(&mut socket, "beside", json!({}))?;
    ensure!(socket.next(PATIENCE)?.is_some(), "nothing beside connections that say nothing");
    Ok(())
}
