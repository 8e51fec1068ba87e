use std::time::{Duration, UNIX_EPOCH};

use axum::http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;
use streamfleet_service::Service;

use super::*;

#[path = "../tests/doubles/token.rs"]
mod token;

const SECRET: &[u8] = b"a secret of thirty-two bytes or more";
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn token(claims: Value) -> String {
    let mut claims = claims;
    claims["exp"] = json!(NOW + 60);
    token::signed(&claims, SECRET)
}

fn identifier(identity: Value) -> Identifier {
    let spec = json!({ "handler": { "name": "echo" }, "identity": identity });
    Identifier::new(&Service::new("a".parse().unwrap(), serde_json::from_value(spec).unwrap()).unwrap().identity)
}

const JWT: &str = r#"{"secret": {"env": "UNREAD"}}"#;

fn rules(order: &[&str], required: bool) -> Identifier {
    let jwt: Value = serde_json::from_str(JWT).unwrap();
    identifier(json!({ "userIdFrom": order, "required": required, "jwt": jwt }))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn run(rules: &Identifier, headers: &HeaderMap, metadata: &Value) -> Result<(Option<String>, bool), Unknown> {
    let keys = Keys::from_secret(SECRET).unwrap();
    let claims = Claims { metadata: Some(metadata), candidate: None };
    let caller = rules.identify(Shown { headers, query_token: None, claims }, Some(&keys), now())?;
    Ok((caller.user.map(|user| user.to_string()), caller.verified.is_verified()))
}

/// An issuer that does not answer is no excuse for what is no token.
#[test]
fn what_is_no_token_needs_no_keys() {
    let claims = Claims { metadata: None, candidate: None };
    let ask = |token: &str| {
        let headers = headers(&[("authorization", &format!("Bearer {token}"))]);
        rules(&["jwt:sub"], false).identify(Shown { headers: &headers, query_token: None, claims }, None, now())
    };
    assert!(matches!(ask("garbage"), Err(Unknown::Token(_))));
    assert_eq!(ask(&token(json!({ "sub": "tess" }))), Err(Unknown::NoKeys));
}

#[test]
fn the_first_source_that_names_a_user_wins() {
    #[track_caller]
    fn check(order: &[&str], expected: Option<(&str, bool)>) {
        let bearer = format!("Bearer {}", token(json!({ "sub": "tess", "nobody": null, "n": 7 })));
        let headers = headers(&[("authorization", &bearer), ("x-user-id", "hal")]);
        let outcome = run(&rules(order, false), &headers, &json!({ "user_id": "mia" })).unwrap();
        let expected = expected.map_or((None, false), |(user, verified)| (Some(user.to_owned()), verified));
        assert_eq!(outcome, expected, "{order:?}");
    }
    check(&["jwt:sub", "metadata:user_id", "header:x-user-id"], Some(("tess", true)));
    check(&["metadata:user_id", "jwt:sub"], Some(("mia", false)));
    check(&["metadata:none", "header:x-user-id", "jwt:sub"], Some(("hal", false)));
    check(&["jwt:nobody", "jwt:missing", "jwt:n"], Some(("7", true)));
    check(&["metadata:none", "jwt:missing"], None);
    check(&[], None);
}

#[test]
fn where_proof_is_required_only_proof_counts() {
    let bearer = format!("Bearer {}", token(json!({ "sub": "tess" })));
    let with = headers(&[("authorization", &bearer)]);
    let strict = rules(&["metadata:user_id", "jwt:sub"], true);
    let said = json!({ "user_id": "mia" });
    assert_eq!(
        run(&strict, &with, &said),
        Ok((Some("tess".to_owned()), true)),
        "what is said does not stand before it"
    );
    assert_eq!(run(&strict, &headers(&[]), &said), Err(Unknown::Nobody));
    let without = format!("Bearer {}", token(json!({ "sub": "" })));
    assert_eq!(run(&strict, &headers(&[("authorization", &without)]), &said), Err(Unknown::Nobody));
}

#[test]
fn a_token_that_is_shown_has_to_hold() {
    let lax = rules(&["jwt:sub", "metadata:user_id"], false);
    let said = json!({ "user_id": "mia" });
    #[track_caller]
    fn check(rules: &Identifier, headers: &HeaderMap, said: &Value, expected: Result<&str, Unknown>) {
        let outcome = run(rules, headers, said).map(|(user, _)| user.unwrap_or_default());
        assert_eq!(outcome, expected.map(str::to_owned));
    }
    check(&lax, &headers(&[("authorization", "Bearer x.y.z")]), &said, Err(TokenError::Malformed.into()));
    check(&lax, &headers(&[("cookie", "access_token=x.y.z")]), &said, Err(TokenError::Malformed.into()));
    check(&lax, &headers(&[("authorization", "Basic eDp5")]), &said, Ok("mia"));
    let odd = format!("Bearer {}", token(json!({ "odd": { "id": 1 } })));
    let odd_user = rules(&["jwt:odd", "metadata:user_id"], false);
    check(&odd_user, &headers(&[("authorization", &odd)]), &said, Err(Unknown::Claim));
    // A service without tokens is shown other services' cookies too.
    let none = identifier(json!({}));
    check(&none, &headers(&[("cookie", "access_token=x.y.z"), ("authorization", "Bearer x")]), &said, Ok("mia"));
}

#[test]
fn a_token_comes_by_header_query_or_cookie() {
    let headers = headers(&[("authorization", "Bearer h"), ("cookie", "access_token=c")]);
    let only_cookie: HeaderMap =
        headers.iter().filter(|(n, _)| *n == "cookie").map(|(n, v)| (n.clone(), v.clone())).collect();
    let shown =
        |headers, query_token| Shown { headers, query_token, claims: Claims::default() }.token().map(str::to_owned);
    assert_eq!(shown(&headers, Some("q")).as_deref(), Some("h"));
    assert_eq!(shown(&only_cookie, Some("q")).as_deref(), Some("q"));
    assert_eq!(shown(&only_cookie, None).as_deref(), Some("c"));
}

#[test]
fn without_keys_nothing_is_verified_and_nothing_is_refused_that_shows_no_token() {
    let rules = rules(&["jwt:sub", "metadata:user_id"], false);
    let none = HeaderMap::new();
    let with = headers(&[("authorization", &format!("Bearer {}", token(json!({ "sub": "tess" }))))]);
    let run = |headers| {
        rules.identify(Shown { headers, query_token: None, claims: Claims::default() }, None, now()).map(|_| ())
    };
    assert_eq!(run(&none), Ok(()));
    assert_eq!(run(&with), Err(Unknown::NoKeys));
}

#[test]
fn a_header_that_cannot_be_read_is_not_passed_over() {
    let mut headers = HeaderMap::new();
    headers.insert("x-user-id", HeaderValue::from_bytes(b"\xff").unwrap());
    let outcome = run(&rules(&["header:x-user-id", "metadata:user_id"], false), &headers, &json!({ "user_id": "mia" }));
    assert!(matches!(outcome, Err(Unknown::Said(_))), "{outcome:?}");
}

proptest! {
    /// Whatever is said, nobody is verified without a token, and a service that demands proof lets nobody in.
    #[test]
    fn words_prove_nothing(user in "[a-z]{0,8}", header in "[a-z]{0,8}", order in Just(["jwt:sub", "metadata:user_id", "header:x-user-id"]).prop_shuffle()) {
        let headers = headers(&[("x-user-id", &header)]);
        let said = json!({ "user_id": user });
        let (_, verified) = run(&rules(&order, false), &headers, &said).unwrap();
        prop_assert!(!verified);
        prop_assert_eq!(run(&rules(&order, true), &headers, &said), Err(Unknown::Nobody));
    }
}
