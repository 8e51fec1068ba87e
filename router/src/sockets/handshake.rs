//! The opening handshake of a WebSocket (RFC 6455, 4), on both sides. No extension and no protocol is negotiated on either:
//! the frames of one are those of the other.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What a client says in its handshake that is between it and this router.
const OURS: [HeaderName; 5] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_PROTOCOL,
    // Judged here: a worker knows which pages may call it no better.
    header::ORIGIN,
];

/// A client's handshake, before the answer.
#[derive(Debug)]
pub struct Handshake {
    /// The connection, once the answer is sent.
    pub upgrade: OnUpgrade,
    accept: HeaderValue,
}

impl Handshake {
    /// The handshake that a request is, if it is one.
    #[must_use]
    pub fn take(request: &mut Request) -> Option<Self> {
        let headers = request.headers();
        let is_one = *request.method() == Method::GET
            && lists(headers, &header::CONNECTION, "upgrade")
            && lists(headers, &header::UPGRADE, "websocket")
            && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        let accept = accept(headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_one)?.as_bytes());
        let upgrade = request.extensions_mut().remove::<OnUpgrade>()?;
        Some(Self { upgrade, accept })
    }

    /// The answer.
    #[must_use]
    pub fn response(accept: HeaderValue) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        upgrade_headers(response.headers_mut());
        response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }

    /// The connection, and the answer that makes it one.
    #[must_use]
    pub fn accept(self) -> (OnUpgrade, Response) {
        (self.upgrade, Self::response(self.accept))
    }
}

/// A handshake of ours, with a worker.
#[derive(Debug)]
pub struct Asked {
    accept: HeaderValue,
}

impl Asked {
    /// Makes a client's headers those of a handshake of our own, with 16 random bytes as its key.
    pub fn of(headers: &mut HeaderMap, random: [u8; 16]) -> Self {
        for name in OURS {
            headers.remove(name);
        }
        upgrade_headers(headers);
        let key = STANDARD.encode(random);
        let accept = accept(key.as_bytes());
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, value(key));
        Self { accept }
    }

    /// Whether an answer takes it.
    #[must_use]
    pub fn is_taken(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS
            && headers.get(header::SEC_WEBSOCKET_ACCEPT) == Some(&self.accept)
            && !headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
    }
}

fn upgrade_headers(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn accept(key: &[u8]) -> HeaderValue {
    value(derive_accept_key(key))
}

fn value(base64: String) -> HeaderValue {
    HeaderValue::try_from(base64).expect("invariant: base64 is a header's value")
}

/// Whether a header has this word in one of its lists.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_handshake() {
        #[track_caller]
        fn check(change: (&'static str, &'static str), expected: bool) {
            let mut request = Request::new(Body::empty());
            let whole = [
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            for (name, value) in whole {
                request.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            request.headers_mut().insert(change.0, HeaderValue::from_static(change.1));
            let upgrade = hyper::upgrade::on(&mut request);
            request.extensions_mut().insert(upgrade);
            let found = Handshake::take(&mut request).map(|handshake| handshake.accept().1);
            assert_eq!(found.is_some(), expected, "{change:?}");
            if let Some(response) = found {
                // The example of RFC 6455, 1.3.
                assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            }
        }
        check(("x", "y"), true);
        check(("connection", "keep-alive"), false);
        check(("upgrade", "h2c"), false);
        check(("sec-websocket-version", "8"), false);
    }

    #[test]
    fn nothing_is_negotiated_with_a_worker() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("sec-websocket-extensions", "permessage-deflate"), ("origin", "https://a.example"), ("x-user-id", "ann")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let asked = Asked::of(&mut headers, *b"the sample nonce");
        assert_eq!(headers["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(headers["x-user-id"], "ann");
        assert!(!headers.contains_key("sec-websocket-extensions") && !headers.contains_key("origin"));
        let answer = |accept: &'static str, extension: Option<&'static str>| {
            let mut headers = Handshake::response(HeaderValue::from_static(accept)).headers().clone();
            headers.extend(extension.map(|text| (header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(text))));
            headers
        };
        let right = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        let switching = StatusCode::SWITCHING_PROTOCOLS;
        assert!(asked.is_taken(switching, &answer(right, None)));
        assert!(!asked.is_taken(StatusCode::OK, &answer(right, None)));
        assert!(!asked.is_taken(switching, &answer("another", None)));
        assert!(!asked.is_taken(switching, &answer(right, Some("permessage-deflate"))));
    }
}
