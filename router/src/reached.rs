//! How a request has come: how the world reaches this router, which it tells workers in `X-Forwarded-Proto`, `-Host` and `-Port`,
//! and which trace the request is part of. Workers believe both.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use streamfleet_process::telemetry::trace;

const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What proxies say of it.
const SAID: [HeaderName; 3] =
    [PROTO, HeaderName::from_static("x-forwarded-host"), HeaderName::from_static("x-forwarded-port")];

/// What the router's own listener is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Front {
    /// Plain HTTP. Whether there is TLS before it, only a proxy can say.
    #[default]
    Plain,
    /// TLS.
    Tls,
}

/// Leaves in a request's headers what is known of how it came: what a trusted proxy says, else what this router knows itself.
/// Anybody else may write there what he likes, and it goes no further.
pub fn judge(headers: &mut HeaderMap, front: Front, is_trusted: bool) {
    if !is_trusted {
        for name in SAID {
            headers.remove(name);
        }
        for name in trace::HEADERS {
            headers.remove(name);
        }
    }
    if front == Front::Tls && !headers.contains_key(PROTO) {
        headers.insert(PROTO, HeaderValue::from_static("https"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_believed() {
        #[track_caller]
        fn check(said: &[(&'static str, &'static str)], front: Front, is_trusted: bool, expected: &[(&str, &str)]) {
            let mut headers = HeaderMap::new();
            for (name, value) in said {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            judge(&mut headers, front, is_trusted);
            let found: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            assert_eq!(found, expected, "{said:?}");
        }
        let said = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "voice.example.com"),
            ("x-forwarded-port", "8443"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "a=1"),
            ("host", "router"),
        ];
        check(&said, Front::Plain, true, &said);
        check(&said, Front::Plain, false, &[("host", "router")]);
        check(&said[5..], Front::Tls, false, &[("host", "router"), ("x-forwarded-proto", "https")]);
        let http = [("x-forwarded-proto", "http")];
        check(&http, Front::Tls, true, &http);
        check(&http, Front::Tls, false, &[("x-forwarded-proto", "https")]);
    }
}
