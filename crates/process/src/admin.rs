//! The admin port: `/healthz`, `/readyz` and `/metrics`, on a thread of its own.
//!
//! The thread has its own runtime so that a probe is answered while media saturates every core: a worker under load
//! is healthy, and killing it for a late probe would end the very sessions that keep it busy. Never expose this port
//! to the public; it authenticates nobody.

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;
use crate::serve::{Listener, ServeLimits};
use crate::tasks::Subsystems;
use crate::telemetry::Metrics;

/// Probes and scrapers are few; more connections than this are a mistake.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(64).expect("invariant: 64 is not zero");

/// A probe is answered in microseconds; nothing is worth waiting for at the end.
const GRACE: Duration = Duration::from_millis(500);

/// What the admin port tells.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Answers `/readyz`.
    pub readiness: Readiness,
    /// Answers `/metrics`.
    pub metrics: Metrics,
}

impl Admin {
    /// Serves on a thread that is a part of `subsystems`. It goes on answering while the process drains, and ends
    /// when `stop` is cancelled.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(self, listener: Listener, subsystems: &mut Subsystems, stop: CancellationToken) -> io::Result<()> {
        self.start_with(Router::new(), listener, subsystems, stop)
    }

    /// The same with `more` routes, which say themselves whom they tell what.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_with(
        self,
        more: Router,
        listener: Listener,
        subsystems: &mut Subsystems,
        stop: CancellationToken,
    ) -> io::Result<()> {
        subsystems.spawn_thread("admin", move || -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let limits = ServeLimits { connections: CONNECTIONS, ..ServeLimits::default() };
            runtime.block_on(listener.serve(self.router().merge(more), limits, stop, GRACE))
        })
    }

    /// The routes, for tests and for programs that serve them elsewhere.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn readyz(State(admin): State<Admin>) -> (StatusCode, String) {
    match admin.readiness.reasons().as_slice() {
        [] => match admin.readiness.notes().as_slice() {
            [] => (StatusCode::OK, "ready\n".to_owned()),
            notes => (StatusCode::OK, format!("ready, but: {}\n", notes.join(", "))),
        },
        reasons => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join(", "))),
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], admin.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_although_the_main_runtime_is_blocked() {
        let admin = Admin { readiness: Readiness::new(), metrics: Metrics::new("test", "0") };
        let offers = admin.metrics.meter("test").u64_counter("streamfleet_offers").build();
        offers.add(3, &[opentelemetry::KeyValue::new("outcome", "accepted")]);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let mut subsystems = Subsystems::new();
        let stop = subsystems.stopping();
        admin.clone().start(listener, &mut subsystems, stop).unwrap();

        // This test's runtime has one thread, and these calls block it.
        let check = |path: &str, status: &str, body: &str| {
            let answer = get(address, path);
            assert!(answer.starts_with(status) && answer.contains(body), "{path}: {answer}");
        };
        check("/healthz", "HTTP/1.1 200", "ok");
        check("/readyz", "HTTP/1.1 200", "ready");
        let hold = admin.readiness.hold("draining");
        check("/readyz", "HTTP/1.1 503", "not ready: draining");
        drop(hold);
        let note = admin.readiness.note("the store is away");
        check("/readyz", "HTTP/1.1 200", "ready, but: the store is away");
        drop(note);
        check("/readyz", "HTTP/1.1 200", "ready\n");
        check("/metrics", "HTTP/1.1 200", "streamfleet_offers_total{outcome=\"accepted\"} 3");
        check("/metrics", "HTTP/1.1 200", "content-type: text/plain; version=0.0.4");
        check("/", "HTTP/1.1 404", "");

        let exits = subsystems.stop(Duration::from_secs(5)).await;
        assert!(exits.len() == 1 && exits[0].is_clean(), "{exits:?}");
    }
}
