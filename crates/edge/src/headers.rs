//! Texts and tokens in headers.

use axum::http::{HeaderMap, header};

/// A header's text. Names of people travel as UTF-8, which HTTP neither forbids nor knows (RFC 9110, 5.5).
#[must_use]
pub fn utf8<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// The token of `Authorization: Bearer …` (RFC 6750, 2.1); the scheme's case does not matter (RFC 9110, 11.1).
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The value of a cookie (RFC 6265, 5.4), without the quotes that may stand around it; the first of several of one name.
#[must_use]
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    Some(value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn with(name: header::HeaderName, values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_bytes(value).unwrap())).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        #[track_caller]
        fn check(lines: &[&[u8]], expected: Option<&str>) {
            assert_eq!(cookie(&with(header::COOKIE, lines), "access_token"), expected);
        }
        check(&[], None);
        check(&[b"access_token=a.b"], Some("a.b"));
        check(&[b"x=1; access_token=\"a=b\"; access_token=c"], Some("a=b"));
        check(&[b"x=1", b"y=2; access_token=a"], Some("a"));
        check(&[b"my_access_token=a; access_token2=b; access_token"], None);
        check(&[b"\xff", b"access_token=a"], Some("a"));
    }

    #[test]
    fn bearer_tokens() {
        #[track_caller]
        fn check(value: &[u8], expected: Option<&str>) {
            assert_eq!(bearer(&with(header::AUTHORIZATION, &[value])), expected);
        }
        check(b"Bearer abc", Some("abc"));
        check(b"bearer  abc ", Some("abc"));
        check(b"Basic abc", None);
        check(b"Bearer", None);
        check(b"Bearer \xff", None);
    }
}
