//! Taking a session up on a socket: open it, say who it is, hear that the server agrees.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::timeout;

use super::open::{End, OpenTimes, Received, Socket};
use super::options::{Said, SocketOptions};
use super::words::{self, Frame, Heard, Say};
use crate::error::{ClientError, Remedy};
use crate::join::Persistence;
use crate::options::Resume;
use crate::phone::options::{AuthToken, Incoming, PhoneOptions};
use crate::phone::webhook::{self, InvalidTwiml, StreamVerb};
use crate::phone::words::MediaStream;
use crate::retry::Backoff;
use crate::signal;
use crate::stats::{SetupTimes, Stopwatch};

/// What a request of Twilio's is signed in.
const SIGNATURE: &str = "x-twilio-signature";

/// A socket on which the session stands.
pub(crate) struct Attached {
    pub(crate) socket: Socket,
    pub(crate) stopwatch: Stopwatch,
    pub(crate) setup: SetupTimes,
    /// When the ping was sent that the first frame may answer.
    pub(crate) pinged: Instant,
    /// The first frame of the server.
    pub(crate) first: Option<Frame>,
}

impl Attached {
    /// What the server has said of its rates: in its first frame, or not at all.
    pub(crate) fn said(&self) -> Said {
        match &self.first {
            Some(Frame::Text(text)) => match words::read(text) {
                Heard::Session(_, said) => said,
                _ => Said::default(),
            },
            Some(Frame::Binary(_)) | None => Said::default(),
        }
    }
}

/// Takes up a session of FastRTC's kind, again and again while the refusal is of a kind that passes.
pub(crate) async fn plain(
    options: &SocketOptions,
    resume: Option<&Resume>,
    persistence: Persistence,
) -> Result<Attached, ClientError> {
    let start = Instant::now();
    let (patience, limit) = match persistence {
        Persistence::First => (options.timeouts.admission, options.timeouts.answer),
        Persistence::Again => (options.timeouts.rejoin, options.timeouts.connect),
    };
    let mut backoff = Backoff::new(patience);
    loop {
        let error = match once(options, resume, limit).await {
            Ok(attached) => return Ok(attached),
            Err(error) => error,
        };
        let asked = match (&error, persistence) {
            (ClientError::Refused(refusal), _) if refusal.remedy() == Remedy::Wait => refusal.retry_after,
            (ClientError::Unreachable { .. } | ClientError::NotAccepted { .. }, Persistence::Again) => None,
            (ClientError::SocketClosed { .. }, Persistence::Again) => None,
            _ => return Err(error),
        };
        let Some(pause) = backoff.pause(start.elapsed(), asked, rand::random()) else { return Err(error) };
        tracing::debug!(%error, ?pause, "the socket is opened again");
        tokio::time::sleep(pause).await;
    }
}

/// Takes up a session, or says why not: if the server does not answer within `limit`, that.
pub(crate) async fn once(
    options: &SocketOptions,
    resume: Option<&Resume>,
    limit: Duration,
) -> Result<Attached, ClientError> {
    let stopwatch = Stopwatch::new(Instant::now());
    let url = options.url.socket_url();
    let (mut socket, times) = Socket::open(&url, &options.headers, options.tls, options.timeouts.request).await?;
    let closed = |reason: String| ClientError::SocketClosed { url: url.to_string(), reason };
    // Nothing in the protocol says that a `start` was taken, but frames are answered in their order: whoever answers the
    // ping has taken the start before it.
    for text in [words::start(options, resume), Say::Ping.text()] {
        socket.send(Frame::Text(text)).await.map_err(|error| closed(error.to_string()))?;
    }
    let pinged = Instant::now();
    let first = timeout(limit, first_frame(&mut socket)).await;
    let first = first.map_err(|_| ClientError::NotAccepted { url: url.to_string(), after: limit })?;
    let first = first.map_err(|end| match end {
        End::Closed => closed("without a word".to_owned()),
        End::Fault(words) | End::Vanished(words) => closed(words),
    })?;
    if let Frame::Text(text) = &first
        && let Heard::Refused(refusal) = words::read(text)
    {
        return Err(refusal.into());
    }
    let setup = setup(&stopwatch, times);
    Ok(Attached { socket, stopwatch, setup, pinged, first: Some(first) })
}

async fn first_frame(socket: &mut Socket) -> Result<Frame, End> {
    loop {
        match socket.next().await {
            Received::Frame(frame) => return Ok(frame),
            Received::Alive => {}
            Received::Ended(end) => return Err(end),
        }
    }
}

/// Makes a telephone call. A telephone company hears nothing back before somebody speaks, so the call stands when its
/// first frames are sent.
pub(crate) async fn phone(options: &PhoneOptions) -> Result<(Attached, MediaStream), ClientError> {
    let stopwatch = Stopwatch::new(Instant::now());
    let mut stream = options.stream();
    let url = match options.incoming {
        Incoming::Skip => options.url.phone_url(),
        Incoming::Ask => {
            let verb = ask(options).await?;
            stream.parameters.extend(verb.parameters);
            stream_url(options, &verb.url)?
        }
    };
    let mut headers = options.headers.clone();
    sign(&mut headers, options.auth_token.as_ref(), url.as_str(), &BTreeMap::new())?;
    let (mut socket, times) = Socket::open(&url, &headers, options.tls, options.timeouts.request).await?;
    for text in stream.opening() {
        let closed =
            |reason: std::io::Error| ClientError::SocketClosed { url: url.to_string(), reason: reason.to_string() };
        socket.send(Frame::Text(text)).await.map_err(closed)?;
    }
    let (setup, pinged) = (setup(&stopwatch, times), Instant::now());
    Ok((Attached { socket, stopwatch, setup, pinged, first: None }, stream))
}

/// Where the TwiML leads. A service that is reached without TLS still says `wss`, because real calls come over TLS: its
/// own address is taken then.
fn stream_url(options: &PhoneOptions, said: &str) -> Result<Url, ClientError> {
    let here = options.url.phone_url();
    let no_url = |_| ClientError::Twiml { url: options.url.incoming_url().to_string(), reason: InvalidTwiml::NoUrl };
    let mut url = Url::parse(said).map_err(no_url)?;
    match (url.scheme(), here.scheme()) {
        ("wss", "ws") => {
            let path = url.path().to_owned();
            url = here;
            url.set_path(&path);
            Ok(url)
        }
        ("ws" | "wss", _) => Ok(url),
        _ => Err(ClientError::Twiml { url: options.url.incoming_url().to_string(), reason: InvalidTwiml::NoUrl }),
    }
}

async fn ask(options: &PhoneOptions) -> Result<StreamVerb, ClientError> {
    let url = options.url.incoming_url();
    let fields = webhook::form(options);
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
    let mut headers = options.headers.clone();
    sign(&mut headers, options.auth_token.as_ref(), url.as_str(), &fields)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let http = signal::http(&HeaderMap::new(), options.timeouts.request, options.tls)?;
    let reply = signal::send(http.post(url.clone()).headers(headers).body(body), &url, webhook::MAX_TWIML).await?;
    if let Some(refusal) = signal::refusal(&reply) {
        return Err(refusal.into());
    }
    webhook::read_twiml(&String::from_utf8_lossy(&reply.body))
        .map_err(|reason| ClientError::Twiml { url: url.to_string(), reason })
}

fn sign(
    headers: &mut HeaderMap,
    token: Option<&AuthToken>,
    url: &str,
    fields: &BTreeMap<&'static str, String>,
) -> Result<(), ClientError> {
    if let Some(token) = token {
        let signature = webhook::signature(token, url, fields);
        let value = HeaderValue::from_str(&signature).map_err(|error| ClientError::Request(error.to_string()))?;
        headers.insert(SIGNATURE, value);
    }
    Ok(())
}

fn setup(stopwatch: &Stopwatch, times: OpenTimes) -> SetupTimes {
    SetupTimes {
        gathered: stopwatch.at(times.connected),
        answered: stopwatch.at(times.upgraded),
        connected: Some(stopwatch.at(Instant::now())),
        ..SetupTimes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_twiml_leads() {
        #[track_caller]
        fn check(service: &str, said: &str, expected: Option<&str>) {
            let options = PhoneOptions::new(service.parse().unwrap());
            let found = stream_url(&options, said).ok().map(|url| url.to_string());
            assert_eq!(found.as_deref(), expected, "{service} {said}");
        }
        check("https://h/echo", "wss://other/x", Some("wss://other/x"));
        check(
            "http://127.0.0.1:81/echo",
            "wss://127.0.0.1/echo/telephone/handler",
            Some("ws://127.0.0.1:81/echo/telephone/handler"),
        );
        check("http://127.0.0.1:81/echo", "ws://127.0.0.1:82/y", Some("ws://127.0.0.1:82/y"));
        check("http://h", "http://h/y", None);
        check("http://h", "telephone/handler", None);
    }
}
