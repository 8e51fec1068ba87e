//! Which STUN and TURN servers clients are told of, and who is told.

use serde_json::{Value, json};

use super::world::{ADMIN, World, answer, error, soon};

const KEY: &str = "a secret of thirty-two bytes or more";
const TURN_SECRET: &str = "north-by-north-west";

/// A service's specification whose secrets are in files while `use_it` runs: a router reads them at once.
fn with_secrets<T>(name: &str, use_it: impl FnOnce(Value, Value) -> T) -> T {
    let folder = std::env::temp_dir().join(format!("streamfleet-ice-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        json!({ "file": path })
    };
    let turn = json!({ "urls": ["turn:t.example.com", "turns:t.example.com"], "ttlSeconds": 600, "secret": file("turn", TURN_SECRET) });
    let used = use_it(json!({ "secret": file("jwt", KEY) }), turn);
    std::fs::remove_dir_all(&folder).unwrap();
    used
}

async fn ask(world: &World, router: &str, token: Option<&str>) -> (u16, Value) {
    let request = world.client.get(format!("{router}/rtc_configuration"));
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    // What a client says there itself goes no further.
    answer(request.header("streamfleet-user", "bWlh").send().await.unwrap()).await
}

fn token(user: &str, key: &str) -> String {
    crate::token::signed(&json!({ "sub": user, "exp": 4_000_000_000_u64 }), key.as_bytes())
}

#[tokio::test]
async fn a_router_makes_the_credentials_and_asks_no_worker() {
    let mut world = World::new();
    world.worker("w").await;
    let router = with_secrets("own", |jwt, turn| {
        let fixed = json!([{ "urls": ["stun:s.example.com"] }]);
        world.router(json!({ "identity": { "jwt": jwt }, "media": { "iceServers": fixed, "turn": turn } }))
    });
    let told = async |token: Option<&str>| {
        let (status, answer) = ask(&world, &router, token).await;
        assert_eq!((status, &answer["iceServers"][0]["urls"][0]), (200, &json!("stun:s.example.com")), "{answer}");
        assert_eq!(answer["iceServers"][1]["urls"], json!(["turn:t.example.com", "turns:t.example.com"]));
        let username = answer["iceServers"][1]["username"].as_str().unwrap().to_owned();
        assert!(answer["iceServers"][1]["credential"].as_str().is_some_and(|word| word.len() == 28), "{answer}");
        username.split_once(':').map(|(_, label)| label.to_owned()).unwrap()
    };
    assert_eq!(told(Some(&token("tess:o", KEY))).await, "tess%3Ao");
    let (one, other) = (told(None).await, told(None).await);
    assert!(one != other && one.len() == 16, "{one} {other}");
    // A token that is shown has to hold.
    assert_eq!(
        error(&ask(&world, &router, Some(&token("tess", "another secret of thirty-two bytes"))).await),
        (401, "unauthorized")
    );
    assert!(world.seen.try_recv().is_err(), "no worker was asked");
}

#[tokio::test]
async fn who_could_not_offer_gets_none() {
    let mut world = World::new();
    world.worker("w").await;
    let (own, workers) = with_secrets("required", |jwt, turn| {
        let identity = json!({ "required": true, "jwt": jwt });
        let own = world.router(json!({ "identity": identity, "media": { "turn": turn } }));
        (own, world.router(json!({ "identity": identity })))
    });
    for router in [&own, &workers] {
        assert_eq!(error(&ask(&world, router, None).await), (401, "unauthorized"));
        assert_eq!(error(&ask(&world, router, Some(ADMIN)).await), (401, "unauthorized"));
        assert!(world.seen.try_recv().is_err(), "no worker was asked");
        assert_eq!(ask(&world, router, Some(&token("tess", KEY))).await.0, 200);
    }
    // Who asks, a worker is told by its router alone.
    let seen = world.next().await;
    assert_eq!(seen.line, "GET /a/rtc_configuration");
    assert_eq!(seen.headers.get_all("streamfleet-user").iter().collect::<Vec<_>>(), ["dGVzcw"]);
}

/// It is asked for before the offer that has a first worker made.
#[tokio::test]
async fn nobody_waits_for_a_service_without_workers() {
    let world = World::new();
    let router = world.growing(json!({ "autoscaling": { "minReplicas": 0 } }), 2);
    assert_eq!(ask(&world, &router, None).await, (200, json!({ "iceServers": [] })));
    world.ghost("gone").await;
    soon("one that is there is asked", async || error(&ask(&world, &router, None).await).0 == 502).await;
}

#[tokio::test]
async fn an_address_asks_so_often() {
    let world = World::new();
    let router = with_secrets("rate", |_, turn| {
        world.router(json!({ "limits": { "offersPerMinute": 2 }, "media": { "turn": turn } }))
    });
    let mut answers = Vec::new();
    // Eight, and what half a minute gives back on a machine that stands still.
    while answers.len() < 13 && answers.last().is_none_or(|(status, _)| *status == 200) {
        answers.push(ask(&world, &router, None).await);
    }
    assert!(answers.len() > 8, "{answers:?}");
    assert_eq!(error(answers.last().unwrap()), (429, "rate_limited"));
}
