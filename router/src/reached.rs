//! How the world reaches this router: what it tells workers in `X-Forwarded-Proto`, `-Host` and `-Port`, which they believe.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

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
            ("host", "router"),
        ];
        check(&said, Front::Plain, true, &said);
        check(&said, Front::Plain, false, &[("host", "router")]);
        check(&said[3..], Front::Tls, false, &[("host", "router"), ("x-forwarded-proto", "https")]);
        let http = [("x-forwarded-proto", "http")];
        check(&http, Front::Tls, true, &http);
        check(&http, Front::Tls, false, &[("x-forwarded-proto", "https")]);
    }
}
