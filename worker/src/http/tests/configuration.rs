use streamfleet_service::ice::{IceUrl, MIN_TTL, Turn};
use streamfleet_service::turn::TurnSecret;

use super::*;
use crate::fleet::guard::Proven;

fn ask(path: &str) -> Request<Body> {
    Request::get(format!("{path}/rtc_configuration")).body(Body::empty()).unwrap()
}

/// The label of the credentials that are made.
async fn label(world: &World, request: Request<Body>) -> String {
    let reply = world.send(request).await;
    let answer: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((reply.status, &answer["iceServers"][0]["urls"]), (200, &json!(["turn:t.example.com"])));
    answer["iceServers"][0]["username"].as_str().unwrap().split_once(':').unwrap().1.to_owned()
}

#[tokio::test]
async fn credentials_are_made_out_to_whom_a_router_has_proved() {
    let turn = Turn {
        urls: vec![IceUrl::try_from("turn:t.example.com".to_owned()).unwrap()],
        secret: TurnSecret::new(b"north-by-north-west").unwrap(),
        ttl: MIN_TTL,
    };
    let world = World::telling(IceServers { fixed: Vec::new(), turn: Some(turn) });
    let mut request = ask("");
    request.extensions_mut().insert(Proven("mia".parse().unwrap()));
    assert_eq!(label(&world, request).await, "mia");
    // What somebody says of himself would use up another's quota.
    let mut request = ask("");
    request.headers_mut().insert("x-user-id", "mia".parse().unwrap());
    let (one, other) = (label(&world, request).await, label(&world, ask("")).await);
    assert!(one != other && one.len() == 16, "{one} {other}");
}

#[tokio::test]
async fn an_address_asks_four_times_for_each_offer() {
    let world = World::new();
    // The service takes 20 offers a minute.
    let (began, mut taken) = (std::time::Instant::now(), 0);
    let refused = loop {
        let reply = world.send(ask("/limited")).await;
        if reply.status == 429 {
            break reply;
        }
        taken += 1;
        assert!(taken < 999, "a rate that nothing reaches");
    };
    // Time gives some back meanwhile.
    let given_back = 1 + u32::try_from(began.elapsed().as_millis() / 750).unwrap();
    assert!((80..=80 + given_back).contains(&taken), "{taken}");
    refused.is(429, &failed("rate_limited"));
    assert_eq!(world.offer("/limited", "a", SDP).await.status, 200, "offers have their own");
}
