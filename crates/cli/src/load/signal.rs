//! Posting offers, on a thread of its own: HTTP must not delay media.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use streamfleet_client::{HeaderMap, ServiceUrl, SessionId, Tls};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::session::{Failure, plain};

/// Offers under way at once. More would measure the server's accept queue.
const MAX_REQUESTS: usize = 64;
/// A server that has not answered by then will not.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer that is read, octets.
const MAX_ANSWER: usize = 256 * 1024;

/// Where and how offers are posted.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) url: ServiceUrl,
    pub(super) headers: HeaderMap,
    /// Each session's is this with its number appended.
    pub(super) user_id: Option<String>,
    pub(super) trust: Trust,
}

/// Which certificates are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    System,
    Any,
}

impl From<Trust> for Tls {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::System => Self::System,
            Trust::Any => Self::AcceptAny,
        }
    }
}

/// An answer to session `id`'s offer, or why there is none, and when.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) session: usize,
    pub(super) answer: Result<String, Failure>,
    pub(super) at: Instant,
}

struct Request {
    session: usize,
    id: SessionId,
    offer: String,
}

/// The thread that posts.
#[derive(Debug)]
pub(super) struct Signaling {
    requests: Option<SyncSender<Request>>,
    replies: Receiver<Reply>,
    outstanding: usize,
    interrupted: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Signaling {
    /// Starts it. `sessions` is how many offers there will be at most.
    pub(super) fn start(service: Service, sessions: usize) -> anyhow::Result<Self> {
        streamfleet_process::crypto::install();
        let http = reqwest::Client::builder()
            .default_headers(service.headers.clone())
            .timeout(TIMEOUT)
            .tls_danger_accept_invalid_certs(service.trust == Trust::Any)
            .user_agent(concat!("streamfleet-load/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("no HTTP client")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (requests, inbox) = sync_channel::<Request>(sessions.max(1));
        let (outbox, replies) = sync_channel(sessions.max(1));
        let interrupted = Arc::<AtomicBool>::default();
        let interrupt = Arc::clone(&interrupted);
        let thread = std::thread::Builder::new()
            .name("offers".to_owned())
            .spawn(move || runtime.block_on(serve(http, service, inbox, outbox, interrupt)))?;
        Ok(Self { requests: Some(requests), replies, outstanding: 0, interrupted, thread: Some(thread) })
    }

    /// Posts an offer. The reply comes by [`poll`](Self::poll).
    pub(super) fn post(&mut self, session: usize, id: SessionId, offer: String) {
        let request = Request { session, id, offer };
        // There is room for one of each session.
        if let Some(Ok(())) = self.requests.as_ref().map(|requests| requests.try_send(request)) {
            self.outstanding += 1;
        }
    }

    /// A reply that has come.
    pub(super) fn poll(&mut self) -> Option<Reply> {
        let reply = self.replies.try_recv().ok()?;
        self.outstanding -= 1;
        Some(reply)
    }

    /// Whether the user wants an end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// How many replies are to come.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }
}

impl Drop for Signaling {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked if this fails, which its missing replies have shown.
            drop(thread.join());
        }
    }
}

async fn serve(
    http: reqwest::Client,
    service: Service,
    inbox: Receiver<Request>,
    outbox: SyncSender<Reply>,
    interrupted: Arc<AtomicBool>,
) {
    let service = Arc::new(service);
    let permits = Arc::new(Semaphore::new(MAX_REQUESTS));
    let mut posts = JoinSet::new();
    posts.spawn(async move {
        // Without signals there is only no early end.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.store(true, Ordering::Relaxed);
        }
    });
    // The media thread has no runtime, so its requests come by a channel of the standard library, which is looked at
    // often enough not to show in what it measures.
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    loop {
        match inbox.try_recv() {
            Ok(request) => {
                let (http, service, permits, outbox) =
                    (http.clone(), Arc::clone(&service), Arc::clone(&permits), outbox.clone());
                posts.spawn(async move {
                    // The semaphore is never closed.
                    let _permit = permits.acquire().await.ok();
                    let session = request.session;
                    let answer = post(&http, &service, request).await;
                    let reply = Reply { session, answer, at: Instant::now() };
                    match outbox.try_send(reply) {
                        Ok(()) | Err(TrySendError::Disconnected(_)) => {}
                        Err(TrySendError::Full(_)) => {
                            tracing::error!("more replies than offers");
                        }
                    }
                });
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => {
                while posts.try_join_next().is_some() {}
                tick.tick().await;
            }
            Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
        }
    }
}

async fn post(http: &reqwest::Client, service: &Service, request: Request) -> Result<String, Failure> {
    let mut body = json!({ "sdp": request.offer, "type": "offer", "webrtc_id": request.id.as_str() });
    if let Some(user_id) = &service.user_id {
        body["metadata"] = json!({ "user_id": format!("{user_id}{}", request.session) });
    }
    let unreachable = |error: reqwest::Error| Failure::Unreachable(plain(&error.without_url().to_string()));
    let mut response = http
        .post(service.url.offer_url())
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .map_err(unreachable)?;
    let status = response.status().as_u16();
    let mut octets = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if octets.len() + chunk.len() > MAX_ANSWER {
            return Err(Failure::Broken("an answer without end".to_owned()));
        }
        octets.extend_from_slice(&chunk);
    }
    read_answer(status, &octets)
}

/// The SDP of an answer; FastRTC's refusals come with status 200.
fn read_answer(status: u16, body: &[u8]) -> Result<String, Failure> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    match value.get("sdp").and_then(Value::as_str) {
        Some(sdp) if (200..300).contains(&status) => Ok(sdp.to_owned()),
        _ => {
            let error = value.pointer("/meta/error").and_then(Value::as_str);
            Err(Failure::Refused(error.map_or_else(|| format!("HTTP {status}"), plain)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_refusals() {
        let check = |status, body: &str, expected: Result<&str, &str>| {
            let expected = expected.map(str::to_owned).map_err(|why| Failure::Refused(why.to_owned()));
            assert_eq!(read_answer(status, body.as_bytes()), expected, "{status} {body}");
        };
        check(200, r#"{"sdp":"v=0","type":"answer"}"#, Ok("v=0"));
        check(500, r#"{"sdp":"v=0","type":"answer"}"#, Err("HTTP 500"));
        check(
            200,
            r#"{"status":"failed","meta":{"error":"concurrency_limit_reached","limit":3}}"#,
            Err("concurrency_limit_reached"),
        );
        check(400, r#"{"status":"failed","meta":{"error":"invalid_offer\u001b[1m"}}"#, Err("invalid_offer [1m"));
        check(422, r#"{"detail":[]}"#, Err("HTTP 422"));
        check(200, "", Err("HTTP 200"));
        check(502, "<html>", Err("HTTP 502"));
    }
}
