use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::metadata::AllowList;
use crate::wire::OfferBody;

fn offer(more: Value) -> Offer {
    let mut body = json!({"type": "offer", "webrtc_id": "abc", "sdp": "v=0"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    match OfferBody::parse(body.to_string().as_bytes()).unwrap() {
        OfferBody::Offer(offer) => offer,
        other => panic!("not an offer: {other:?}"),
    }
}

fn no_header(_: &str) -> Option<&'static str> {
    None
}

#[track_caller]
fn check(more: Value, header: Option<&str>, expected: Result<(Option<&str>, Value), &str>) {
    let headers = |name: &str| if name == "x-user-id" { header } else { None };
    let identity = identify(&offer(more.clone()), headers, &IdentityPolicy::default());
    let shown = identity.map_err(|error| error.to_string()).map(|identity| {
        assert_eq!(identity.verified, Verification::Unverified);
        (identity.user_id.map(|id| id.to_string()), serde_json::to_value(identity.metadata).unwrap())
    });
    let expected = expected.map(|(id, metadata)| (id.map(str::to_owned), metadata)).map_err(str::to_owned);
    assert_eq!(shown, expected, "{more} {header:?}");
}

#[test]
fn every_place_is_read() {
    check(json!({}), None, Ok((None, json!({}))));
    check(json!({"metadata": {"user_id": "ana"}}), None, Ok((Some("ana"), json!({"user_id": "ana"}))));
    check(
        json!({"candidate": {"additionalProp1": {"user_id": "ana"}}}),
        None,
        Ok((Some("ana"), json!({"user_id": "ana"}))),
    );
    check(json!({"candidate": {"additionalProp7": {"plan": 1}}}), Some("bo"), Ok((Some("bo"), json!({"plan": 1}))));
    check(json!({"candidate": {"user_id": "no"}}), None, Ok((None, json!({}))));
    check(json!({"metadata": null, "candidate": null}), Some(" bo\n"), Ok((Some("bo"), json!({}))));
    check(json!({"user_id": "not at the top level"}), None, Ok((None, json!({}))));
}

#[test]
fn the_first_source_that_names_a_user_wins() {
    check(json!({"metadata": {"user_id": "ana"}}), Some("bo"), Ok((Some("ana"), json!({"user_id": "ana"}))));
    for absent in [json!(""), json!(null), json!(" \n")] {
        let kept = if absent.is_null() { json!(null) } else { json!(absent.as_str().unwrap().replace('\n', "")) };
        check(json!({"metadata": {"user_id": absent}}), Some("bo"), Ok((Some("bo"), json!({"user_id": kept}))));
    }
    check(json!({"metadata": {"user_id": 42}}), None, Ok((Some("42"), json!({"user_id": 42}))));
}

#[test]
fn the_top_level_wins_then_the_lowest_additional_property() {
    check(
        json!({
            "metadata": {"user_id": "top", "a": {"x": 1}},
            "candidate": {"additionalProp1": {"user_id": "one", "a": {"y": 2}, "b": 1}},
        }),
        None,
        Ok((Some("top"), json!({"user_id": "top", "a": {"x": 1}, "b": 1}))),
    );
    check(
        json!({"candidate": {"additionalProp10": {"k": 10, "m": 10}, "additionalProp2": {"k": 2}, "additionalProp1": 5}}),
        None,
        Ok((None, json!({"k": 2, "m": 10}))),
    );
}

#[test]
fn what_is_wrong_is_said() {
    check(json!({"metadata": []}), None, Err("metadata must be a JSON object"));
    check(json!({"metadata": "x"}), None, Err("metadata must be a JSON object"));
    for wrong in [json!(true), json!(1.5), json!({}), json!(["a"])] {
        check(json!({"metadata": {"user_id": wrong}}), Some("bo"), Err("the user id must be a string or an integer"));
    }
    let long = "x".repeat(257);
    check(json!({"metadata": {"user_id": long}}), Some("bo"), Err("a user id must be at most 256 characters long"));
    check(json!({}), Some(&long), Err("a user id must be at most 256 characters long"));
}

#[test]
fn the_allow_list_does_not_hide_the_user() {
    let policy = IdentityPolicy {
        metadata: MetadataLimits { allow: AllowList::from_keys(["plan"]), ..MetadataLimits::default() },
        ..IdentityPolicy::default()
    };
    let identity = identify(&offer(json!({"metadata": {"user_id": "ana", "plan": "b"}})), no_header, &policy).unwrap();
    assert_eq!(identity.user_id.unwrap().as_str(), "ana");
    assert_eq!(serde_json::to_value(identity.metadata).unwrap(), json!({"plan": "b"}));
}

#[test]
fn sources_are_words_of_a_configuration() {
    fn check(input: &str, expected: Result<UserIdSource, &str>) {
        assert_eq!(input.parse::<UserIdSource>().map_err(|error| error.to_string()), expected.map_err(str::to_owned));
    }
    check("metadata:user_id", Ok(UserIdSource::Metadata("user_id".into())));
    check("header:X-User-Id", Ok(UserIdSource::Header("x-user-id".into())));
    check("metadata:", Err("a user id source needs a key of A-Z a-z 0-9 _ . - after metadata:"));
    check("header:a b", Err("a user id source needs a header name of A-Z a-z 0-9 - _ after header:"));
    check("cookie:x", Err("a user id source must be metadata:KEY or header:NAME"));
    check("", Err("a user id source must be metadata:KEY or header:NAME"));
    assert_eq!("header:X-User-Id".parse::<UserIdSource>().unwrap().to_string(), "header:x-user-id");
}

proptest! {
    #[test]
    fn the_limits_hold_for_the_union(
        top in crate::metadata::tests::any_json(),
        one in crate::metadata::tests::any_json(),
        two in crate::metadata::tests::any_json(),
        header in "[ -~]{0,300}",
    ) {
        let offer = offer(json!({"metadata": top, "candidate": {"additionalProp1": one, "additionalProp2": two}}));
        let policy = IdentityPolicy::default();
        if let Ok(identity) = identify(&offer, |_| Some(header.as_str()), &policy) {
            prop_assert!(serde_json::to_string(&identity.metadata).unwrap().len() <= policy.metadata.max_bytes);
            if let Some(user) = identity.user_id {
                prop_assert!((1..=UserId::MAX_LEN).contains(&user.as_str().chars().count()));
            }
        }
    }
}
