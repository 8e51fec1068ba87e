//! Every request to the API server, counted where it leaves: what is not seen here was not sent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use kube::client::Body;
use tower::{Layer, Service};

use crate::metrics::Instruments;

/// Counts requests and how they were answered.
#[derive(Debug, Clone)]
pub struct Counting(pub Instruments);

/// A client that is counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    instruments: Instruments,
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, instruments: self.0.clone() }
    }
}

impl<S, B> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let resource = resource(request.uri().path());
        let verb = verb(request.method().as_str(), request.uri().query().unwrap_or_default());
        let instruments = self.instruments.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let outcome = match &answer {
                Ok(response) => match response.status().as_u16() {
                    200..=299 => "ok",
                    404 => "not_found",
                    409 => "conflict",
                    400..=499 => "refused",
                    _ => "error",
                },
                Err(_) => "unreachable",
            };
            instruments.requested(verb, resource, outcome);
            answer
        })
    }
}

fn verb(method: &str, query: &str) -> &'static str {
    match method {
        "GET" if query.split('&').any(|pair| pair == "watch=true") => "watch",
        "GET" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "other",
    }
}

/// Resources that are asked for: labels are words of ours.
const RESOURCES: [&str; 13] = [
    "streamservices",
    "serviceaccounts",
    "secrets",
    "configmaps",
    "networkpolicies",
    "services",
    "poddisruptionbudgets",
    "deployments",
    "podmonitors",
    "pods",
    "nodes",
    "leases",
    "events",
];

/// `/apis/apps/v1/namespaces/voice/deployments/assistant-worker/status` → `deployments`.
fn resource(path: &str) -> &'static str {
    let mut segments = path.split('/').skip(1);
    // The group is one segment more.
    let skipped = if segments.next() == Some("api") { 1 } else { 2 };
    let mut segments = segments.skip(skipped).peekable();
    if segments.peek() == Some(&"namespaces") {
        segments.next();
        segments.next();
    }
    let named = segments.next().unwrap_or_default();
    RESOURCES.into_iter().find(|known| *known == named).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        for (path, expected) in [
            ("/apis/apps/v1/namespaces/voice/deployments/assistant-worker/status", "deployments"),
            ("/apis/streamfleet.dev/v1alpha1/streamservices", "streamservices"),
            ("/api/v1/namespaces/services/pods/a", "pods"),
            ("/api/v1/nodes", "nodes"),
            ("/version", "other"),
            ("/apis", "other"),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
        assert_eq!(verb("GET", "&watch=true&timeoutSeconds=290"), "watch");
        assert_eq!(verb("GET", "limit=500"), "get");
        assert_eq!(verb("PATCH", "force=true"), "patch");
    }
}
