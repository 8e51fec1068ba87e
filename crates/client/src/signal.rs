//! The HTTP side of a call: offers and candidates out, answers and refusals in.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, StatusCode, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::Serialize;
use serde_json::{Map, Value};
use streamfleet_session::SessionId;

use crate::error::{ClientError, Refusal, Remedy};
use crate::ice;
use crate::options::{ClientOptions, IceServer, Resume, Tls};
use crate::sdp::Target;

/// Longest answer that is read. One with a hundred candidates has 20 kB.
const MAX_ANSWER: usize = 256 * 1024;
/// Longest word or sentence of a server that is repeated to the user.
const MAX_WORDS: usize = 500;

/// The body of an offer.
#[derive(Serialize)]
struct OfferBody<'a> {
    sdp: &'a str,
    r#type: &'static str,
    webrtc_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resume: Option<&'a str>,
}

/// The body of one trickled candidate.
#[derive(Serialize)]
struct CandidateBody<'a> {
    candidate: Candidate<'a>,
    r#type: &'static str,
    webrtc_id: &'a str,
}

/// What a browser's `RTCIceCandidate.toJSON()` gives.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    candidate: &'a str,
    sdp_mid: Option<&'a str>,
    sdp_m_line_index: u16,
    username_fragment: Option<&'a str>,
}

/// A server's answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) sdp: String,
    pub(crate) resume: Option<Resume>,
}

/// Talks to one service's offer route about one session.
#[derive(Debug, Clone)]
pub(crate) struct Signaling {
    http: reqwest::Client,
    url: Url,
    configuration: Url,
    id: SessionId,
    metadata: Option<Map<String, Value>>,
}

impl Signaling {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, ClientError> {
        Ok(Self {
            http: http(&options.headers, options.timeouts.request, options.tls)?,
            url: options.url.offer_url(),
            configuration: options.url.configuration_url(),
            id: options.webrtc_id.clone(),
            metadata: options.offer_metadata(),
        })
    }

    /// The STUN and TURN servers that the service names; none where it does not answer such a question. Why not, its answer to the
    /// offer tells better.
    pub(crate) async fn ice_servers(&self) -> Result<Vec<IceServer>, ClientError> {
        let reply = send(self.http.get(self.configuration.clone()), &self.configuration, MAX_ANSWER).await?;
        match refusal(&reply) {
            Some(refusal) if refusal.remedy() == Remedy::Wait => Err(refusal.into()),
            Some(refusal) => {
                tracing::debug!(%refusal, "the service names no ICE servers");
                Ok(Vec::new())
            }
            None => Ok(ice::servers(&reply.body)),
        }
    }

    /// Posts an offer once, and waits for so long at most.
    pub(crate) async fn offer(
        &self,
        sdp: &str,
        resume: Option<&Resume>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let body = OfferBody {
            sdp,
            r#type: "offer",
            webrtc_id: self.id.as_str(),
            metadata: self.metadata.as_ref(),
            resume: resume.map(Resume::expose),
        };
        let reply = self.post(&body, Some(limit)).await?;
        read_answer(&reply).map_err(|refused| match refused {
            Refused::Refusal(refusal) => refusal.into(),
            Refused::Nonsense(reason) => {
                ClientError::NotAnAnswer { url: self.url.to_string(), status: reply.status, reason }
            }
        })
    }

    /// Posts one candidate, or the end of candidates when it is empty.
    pub(crate) async fn candidate(&self, line: &str, target: &Target, ufrag: Option<&str>) -> Result<(), ClientError> {
        let body = CandidateBody {
            candidate: Candidate {
                candidate: line,
                sdp_mid: target.mid.as_deref(),
                sdp_m_line_index: target.index,
                username_fragment: ufrag,
            },
            r#type: "ice-candidate",
            webrtc_id: self.id.as_str(),
        };
        let reply = self.post(&body, None).await?;
        match refusal(&reply) {
            Some(refusal) => Err(refusal.into()),
            None => Ok(()),
        }
    }

    /// Posts a body; where the answer may take longer than those of other requests, `limit` says how long.
    async fn post(&self, body: &impl Serialize, limit: Option<Duration>) -> Result<Reply, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Request(error.to_string()))?;
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        let request = match limit {
            Some(limit) => request.timeout(limit),
            None => request,
        };
        send(request, &self.url, MAX_ANSWER).await
    }
}

/// A client with these headers on every request.
pub(crate) fn http(headers: &HeaderMap, limit: Duration, trust: Tls) -> Result<reqwest::Client, ClientError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls(trust)?)
        .connect_timeout(limit)
        .timeout(limit)
        .default_headers(headers.clone())
        .user_agent(concat!("streamfleet-client/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ClientError::Request(chain(&error)))
}

/// Sends a request and reads at most `longest` octets of what comes back.
pub(crate) async fn send(request: RequestBuilder, url: &Url, longest: usize) -> Result<Reply, ClientError> {
    let unreachable = |error: reqwest::Error| ClientError::Unreachable { url: url.to_string(), reason: chain(&error) };
    let mut response = request.send().await.map_err(unreachable)?;
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > longest {
            let reason = format!("the answer is longer than {longest} bytes");
            return Err(ClientError::NotAnAnswer { url: url.to_string(), status: status.as_u16(), reason });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply { status: status.as_u16(), retry_after, body })
}

/// An HTTP response, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Refusal(Refusal),
    Nonsense(String),
}

fn read_answer(reply: &Reply) -> Result<Answer, Refused> {
    if let Some(refusal) = refusal(reply) {
        return Err(Refused::Refusal(refusal));
    }
    let value: Value =
        serde_json::from_slice(&reply.body).map_err(|error| Refused::Nonsense(format!("not with JSON ({error})")))?;
    let text = |key| value.get(key).and_then(Value::as_str);
    match (text("type"), text("sdp")) {
        (Some("answer") | None, Some(sdp)) => {
            Ok(Answer { sdp: sdp.to_owned(), resume: text("resume").and_then(Resume::new) })
        }
        (Some(other), Some(_)) => Err(Refused::Nonsense(format!("with a description of type `{}`", bounded(other)))),
        (_, None) => Err(Refused::Nonsense("without an SDP".to_owned())),
    }
}

/// The refusal in a reply: by its body (FastRTC refuses with status 200), else by its status.
pub(crate) fn refusal(reply: &Reply) -> Option<Refusal> {
    let value: Option<Value> = serde_json::from_slice(&reply.body).ok();
    let failed = value.as_ref().filter(|value| value.get("status").and_then(Value::as_str) == Some("failed"));
    let ok = StatusCode::from_u16(reply.status).is_ok_and(|status| status.is_success());
    if let Some(failed) = failed {
        let meta = failed.get("meta").unwrap_or(&Value::Null);
        return Some(failure(meta, reply.status, reply.retry_after));
    }
    if ok {
        return None;
    }
    let detail = value.as_ref().and_then(|value| value.get("detail")).map(validation);
    let error = format!("HTTP {}", reply.status);
    Some(Refusal { error, status: reply.status, limit: None, detail, retry_after: reply.retry_after })
}

/// The `meta` of a failure, the same on HTTP and on a WebSocket.
pub(crate) fn failure(meta: &Value, status: u16, retry_after: Option<Duration>) -> Refusal {
    let text = |key| meta.get(key).and_then(Value::as_str).map(bounded);
    let error = text("error").unwrap_or_else(|| "no reason given".to_owned());
    Refusal { error, status, limit: meta.get("limit").and_then(Value::as_u64), detail: text("detail"), retry_after }
}

/// `detail` of a 404 or of a validation error (a list of `{loc, msg}`), as a sentence.
fn validation(detail: &Value) -> String {
    let one = |item: &Value| {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let place: Vec<String> =
            item.get("loc").and_then(Value::as_array).into_iter().flatten().take(8).map(text).collect();
        format!("{}: {}", place.join("."), item.get("msg").map(text).unwrap_or_default())
    };
    let sentence = match detail {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().take(4).map(one).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    };
    bounded(&sentence)
}

/// What a server says is shown on terminals: no control characters, no end without end.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error with its causes: `reqwest` alone says only that sending failed.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// TLS with the provider that the media stack uses too, chosen here so that no global one has to be installed.
pub(crate) fn tls(trust: Tls) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |error: rustls::Error| ClientError::Request(error.to_string());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Tls::System => Arc::new(rustls_platform_verifier::Verifier::new(Arc::clone(&provider)).map_err(failed)?),
        Tls::AcceptAny => Arc::new(AcceptAny(Arc::clone(&provider))),
    };
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Believes any certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, retry_after: None, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn answers() {
        fn check(body: &str, expected: Result<(&str, Option<&str>), &str>) {
            let found = read_answer(&reply(200, body));
            match (found, expected) {
                (Ok(answer), Ok((sdp, resume))) => {
                    assert_eq!((answer.sdp.as_str(), answer.resume.as_ref().map(Resume::expose)), (sdp, resume));
                }
                (Err(Refused::Nonsense(reason)), Err(part)) => assert!(reason.contains(part), "{body}: {reason}"),
                (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
            }
        }
        check(r#"{"sdp":"v=0","type":"answer","resume":"T","more":1}"#, Ok(("v=0", Some("T"))));
        check(r#"{"sdp":"v=0"}"#, Ok(("v=0", None)));
        check(r#"{"sdp":"v=0","type":"offer"}"#, Err("type `offer`"));
        check(r#"{"status":"success"}"#, Err("without an SDP"));
        check("<html>", Err("not with JSON"));
        check("", Err("not with JSON"));
    }

    #[test]
    fn refusals() {
        fn check(status: u16, body: &str, error: &str, limit: Option<u64>, detail: Option<&str>) {
            let found = refusal(&reply(status, body)).unwrap();
            let expected =
                Refusal { error: error.into(), status, limit, detail: detail.map(str::to_owned), retry_after: None };
            assert_eq!(found, expected, "{body}");
        }
        let full = r#"{"status":"failed","meta":{"error":"concurrency_limit_reached","limit":3}}"#;
        check(200, full, "concurrency_limit_reached", Some(3), None);
        let bad = r#"{"status":"failed","meta":{"error":"invalid_offer","detail":"no media\u001b[31m"}}"#;
        check(400, bad, "invalid_offer", None, Some("no media[31m"));
        check(200, r#"{"status":"failed"}"#, "no reason given", None, None);
        check(404, r#"{"detail":"Not Found"}"#, "HTTP 404", None, Some("Not Found"));
        let missing = r#"{"detail":[{"type":"missing","loc":["body","webrtc_id"],"msg":"Field required","input":{}}]}"#;
        check(422, missing, "HTTP 422", None, Some("body.webrtc_id: Field required"));
        check(502, "<html>", "HTTP 502", None, None);
        assert_eq!(refusal(&reply(200, r#"{"status":"success"}"#)), None);
    }

    #[test]
    fn bodies_are_what_browsers_send() {
        let target = Target { mid: Some("0".into()), index: 0 };
        let candidate = Candidate {
            candidate: "candidate:1 1 udp 1 h 9 typ host",
            sdp_mid: target.mid.as_deref(),
            sdp_m_line_index: target.index,
            username_fragment: Some("u"),
        };
        let body = CandidateBody { candidate, r#type: "ice-candidate", webrtc_id: "abc" };
        let expected = r#"{"candidate":{"candidate":"candidate:1 1 udp 1 h 9 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"u"},"type":"ice-candidate","webrtc_id":"abc"}"#;
        assert_eq!(serde_json::to_string(&body).unwrap(), expected);
        let offer = OfferBody { sdp: "v=0", r#type: "offer", webrtc_id: "abc", metadata: None, resume: None };
        assert_eq!(serde_json::to_string(&offer).unwrap(), r#"{"sdp":"v=0","type":"offer","webrtc_id":"abc"}"#);
    }

    #[test]
    fn both_kinds_of_trust_build_without_a_global_provider() {
        tls(Tls::System).unwrap();
        tls(Tls::AcceptAny).unwrap();
        assert!(CryptoProvider::get_default().is_none());
    }
}
