//! Calls that come back, because the company asks again when their stream is over.

use serde_json::{Map, Value, json};
use streamfleet_store::{ContextKey, Expected};

use super::calls::{ask, incoming, parameter, stream};
use super::peer::{Peer, closed};
use super::{World, service, signed, until};
use crate::http::Host as _;

/// Where the company asks when the stream is over.
fn action(twiml: &str) -> String {
    action_of("tone", twiml)
}

fn action_of(service: &str, twiml: &str) -> String {
    let (_, rest) = twiml.split_once(r#"<Connect action=""#).expect("an action");
    let (relative, _) = rest.split_once('"').unwrap();
    assert!(relative.starts_with("incoming?"), "{relative}");
    format!("/{service}/telephone/{relative}")
}

/// Follows TwiML as the company does.
async fn follow(world: &World, twiml: &str, stream_sid: &str, call: &str) -> Peer {
    let names = ["From", "CallSid", "streamfleet_token", "streamfleet_session", "streamfleet_resume"];
    let parameters = names.into_iter().filter_map(|name| Some((name.to_owned(), parameter(twiml, name)?.into())));
    stream(world, "/tone", stream_sid, call, Value::Object(parameters.collect())).await
}

#[tokio::test]
async fn a_call_whose_socket_broke_goes_on() {
    for services in [signed("tone"), service("tone")] {
        let world = World::new([services]);
        let first = incoming(&world, "/tone/telephone/incoming", "CA1").await;
        assert!(first.contains("<Say>Connecting") && first.contains("<Say>The call has"), "{first}");
        let mut phone = follow(&world, &first, "MZ1", "CA1").await;
        assert_eq!(phone.hear(800).await.1, "MZ1");
        let began = world.view("MZ1").unwrap().since;
        phone.vanish();

        let second = incoming(&world, &action(&first), "CA1").await;
        assert!(!second.contains("<Say>Connecting"), "the caller has heard that: {second}");
        assert_eq!(parameter(&second, "streamfleet_session").as_deref(), Some("MZ1"));
        let mut phone = follow(&world, &second, "MZ2", "CA1").await;
        assert_eq!(phone.hear(800).await.1, "MZ2", "what it hears is on the stream that it has now");
        assert_eq!((world.sessions.len(), world.occupancy.live()), (1, 1));
        assert_eq!(world.view("MZ1").unwrap().since, began, "it is the same session");

        // Once more, while the stream is open on our side.
        let third = incoming(&world, &action(&second), "CA1").await;
        let mut next = follow(&world, &third, "MZ3", "CA1").await;
        assert_eq!(phone.word().await, closed(1000, "moved"));
        assert_eq!(next.hear(800).await.1, "MZ3");

        next.say(json!({ "event": "stop" })).await;
        assert_eq!(next.word().await, closed(1000, "stopped"));
        until("the end", || world.sessions.is_empty()).await;
        let last = incoming(&world, &action(&third), "CA1").await;
        assert!(last.ends_with("<Say>The call has been disconnected.</Say><Hangup /></Response>"), "{last}");
    }
}

#[tokio::test]
async fn a_conversation_that_is_over_is_over() {
    let world = World::new([signed("tone")]);
    let first = incoming(&world, "/tone/telephone/incoming", "CA1").await;
    let mut phone = follow(&world, &first, "MZ1", "CA1").await;
    phone.hear(160).await;
    let second = incoming(&world, &action(&first), "CA1").await;
    phone.say(json!({ "event": "stop" })).await;
    until("the end", || world.sessions.is_empty()).await;
    // It ended between the TwiML and the stream.
    let mut late = follow(&world, &second, "MZ2", "CA1").await;
    assert_eq!(late.next().await, closed(1000, "refused"));
    assert_eq!((world.sessions.len(), world.occupancy.live()), (0, 0));
}

#[tokio::test]
async fn nobody_else_comes_back() {
    let world = World::new([signed("tone")]);
    let first = incoming(&world, "/tone/telephone/incoming", "CA1").await;
    let mut phone = follow(&world, &first, "MZ1", "CA1").await;
    phone.hear(160).await;
    let path = action(&first);
    assert_eq!(ask(&world, &path, "CA2").await.0, 403, "another call");
    let (start, _) = path.split_once('=').unwrap();
    assert_eq!(ask(&world, &format!("{start}=0000"), "CA1").await.0, 403, "a wrong proof");
    // A stream that says so without having been led here.
    let other = incoming(&world, "/tone/telephone/incoming", "CA2").await;
    let token = parameter(&other, "streamfleet_token").unwrap();
    let resume = "0".repeat(32);
    let parameters = json!({ "streamfleet_token": token, "streamfleet_session": "MZ1", "streamfleet_resume": resume });
    let mut stranger = stream(&world, "/tone", "MZ9", "CA2", parameters).await;
    assert_eq!(stranger.next().await, closed(1000, "refused"));
    phone.hear(160).await;
}

/// A call's id is no secret: where no signature is asked for, whoever knows it gets TwiML for a call of his own.
#[tokio::test]
async fn who_knows_a_calls_id_does_not_have_the_call() {
    let world = World::new([service("tone")]);
    let first = incoming(&world, "/tone/telephone/incoming", "CA1").await;
    let mut phone = follow(&world, &first, "MZ1", "CA1").await;
    phone.hear(160).await;

    let strange = incoming(&world, "/tone/telephone/incoming", "CA1").await;
    let hung_up = async || {
        let back = incoming(&world, &action(&strange), "CA1").await;
        assert!(back.ends_with("<Hangup /></Response>") && parameter(&back, "streamfleet_resume").is_none(), "{back}");
    };
    hung_up().await;
    phone.vanish();
    hung_up().await;

    // Nor does he keep the caller from it, with a stream or without.
    let mut stranger = follow(&world, &strange, "MZ9", "CA1").await;
    stranger.hear(160).await;
    let second = incoming(&world, &action(&first), "CA1").await;
    assert_eq!(parameter(&second, "streamfleet_session").as_deref(), Some("MZ1"));
    let mut phone = follow(&world, &second, "MZ2", "CA1").await;
    phone.hear(160).await;
    assert_eq!(world.sessions.len(), 2);
}

/// Another call that shows a session's token takes it up, or goes on behind it, without having been put through by us.
#[tokio::test]
async fn a_conversation_goes_on_in_another_call() {
    let world = World::new([service("keys")]);
    let first = incoming(&world, "/keys/telephone/incoming", "CA1").await;
    let token = parameter(&first, "streamfleet_token");
    let mut phone = stream(&world, "/keys", "MZ1", "CA1", json!({ "streamfleet_token": token })).await;
    until("the session", || world.outputs("MZ1").len() == 1).await;
    let back = incoming(&world, &action_of("keys", &first), "CA1").await;
    let token = parameter(&back, "streamfleet_resume").unwrap();
    let contexts = world.sessions.contexts(&"echo".parse().unwrap());
    let order = Map::from_iter([("order".to_owned(), json!(17))]);
    let context = world.view("MZ1").unwrap().context;
    contexts.write(context, order.clone(), Expected::Anything).await.unwrap();
    phone.say(json!({ "event": "stop" })).await;
    assert_eq!(phone.word().await, closed(1000, "stopped"));
    until("the end", || world.sessions.is_empty()).await;

    // A stranger with a wrong one gets an empty one.
    let key = ContextKey { service: "keys".parse().unwrap(), session: "MZ1".parse().unwrap() };
    for (token, expected) in [("0".repeat(32), Map::new()), (token, order)] {
        let parameters = json!({ "streamfleet_session": "MZ1", "streamfleet_resume": token });
        let mut other = stream(&world, "/keys", "MZ2", "CA2", parameters).await;
        until("the next session", || !world.sessions.is_empty()).await;
        let context = contexts.find(&key).await.unwrap().unwrap();
        assert_eq!(contexts.read(context).await.unwrap().unwrap().data, expected);
        other.say(json!({ "event": "stop" })).await;
        assert_eq!(other.word().await, closed(1000, "stopped"));
        until("the end", || world.sessions.is_empty()).await;
    }
}
