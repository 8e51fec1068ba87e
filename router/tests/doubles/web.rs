//! What a router asks others before it takes a call: issuers for their keys, and admission webhooks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use futures_util::stream;
use parking_lot::Mutex;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use streamfleet_identity::MAX_DOCUMENT;
use streamfleet_router::identify::Caller;
use streamfleet_router::keyring::Keyring;
use streamfleet_router::webhook;
use streamfleet_service::service::Webhook;
use streamfleet_service::spec::OnFailure;
use tokio_util::task::TaskTracker;

use super::world::{World, service};

/// What a server answers.
#[derive(Debug, Clone)]
enum Says {
    Text(String),
    Status(StatusCode),
    /// Sends somebody else there.
    Elsewhere,
    /// Zeros without an end.
    Flood,
    Nothing,
}

#[derive(Clone)]
struct Server {
    at: SocketAddr,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    body: Arc<Mutex<Bytes>>,
}

impl Server {
    fn start(world: &World, says: Says) -> Self {
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { at, says: Arc::new(Mutex::new(says)), asked: Arc::default(), body: Arc::default() };
        server.at = world.listen(axum::Router::new().fallback(answer).with_state(server.clone()));
        server
    }

    fn url(&self) -> String {
        format!("http://{}/", self.at)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(server): State<Server>, body: Bytes) -> Response {
    server.asked.fetch_add(1, Ordering::SeqCst);
    *server.body.lock() = body;
    let says = server.says.lock().clone();
    match says {
        Says::Text(text) => text.into_response(),
        Says::Status(status) => status.into_response(),
        Says::Elsewhere => Redirect::temporary("/elsewhere").into_response(),
        Says::Flood => {
            let zeros = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'0'; 4096])));
            Body::from_stream(zeros).into_response()
        }
        Says::Nothing => std::future::pending().await,
    }
}

fn key_set(id: &str) -> Says {
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": id, "x": x }] });
    Says::Text(keys.to_string())
}

fn token(key: &str) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(json!({ "alg": "EdDSA", "kid": key })), part(json!({})), URL_SAFE_NO_PAD.encode([0; 64]))
}

fn keyring(world: &World, server: &Server) -> Keyring {
    let web = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let _ = world;
    Keyring::of_issuer(&server.url(), &web, &TaskTracker::new())
}

async fn knows(keyring: &Keyring, key: &str) -> bool {
    keyring.keys_for(&token(key)).await.is_some_and(|keys| keys.knows(Some(key)))
}

/// An issuer is asked once for what everybody needs, and again for a key that it has made since.
#[tokio::test]
async fn keys_are_fetched_once_and_again_when_they_change() {
    let world = World::new();
    let server = Server::start(&world, key_set("one"));
    let keyring = keyring(&world, &server);
    assert!(join_all((0..20).map(|_| knows(&keyring, "one"))).await.into_iter().all(|known| known));
    assert_eq!(server.asked(), 1);
    *server.says.lock() = key_set("two");
    // However many keys are made up, the issuer has its rest.
    for made_up in 0..20 {
        assert!(!knows(&keyring, &format!("made-up-{made_up}")).await);
    }
    assert!(knows(&keyring, "one").await);
    assert_eq!(server.asked(), 1);
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    assert!(knows(&keyring, "two").await && !knows(&keyring, "one").await);
    assert_eq!(server.asked(), 2);
    // It fails from now on: what was fetched goes on being good.
    *server.says.lock() = Says::Status(StatusCode::INTERNAL_SERVER_ERROR);
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    assert!(!knows(&keyring, "three").await && knows(&keyring, "two").await);
    assert_eq!(server.asked(), 3);
}

/// Whatever an issuer does, a caller waits three seconds for it at most, and there is no key.
#[tokio::test]
async fn what_is_no_set_of_keys_is_none() {
    let world = World::new();
    let long = Says::Text(format!(r#"{{"keys":[],"padding":"{}"}}"#, "x".repeat(MAX_DOCUMENT)));
    let failed = Says::Status(StatusCode::INTERNAL_SERVER_ERROR);
    let says = [failed, Says::Text("nonsense".to_owned()), long, Says::Elsewhere, Says::Flood, Says::Nothing];
    let checks = says.into_iter().map(|says| {
        let server = Server::start(&world, says.clone());
        let keyring = keyring(&world, &server);
        async move {
            let began = Instant::now();
            assert!(!knows(&keyring, "one").await, "{says:?}");
            assert!(began.elapsed() < Duration::from_secs(8), "{says:?}");
            assert_eq!(server.asked(), 1, "{says:?}");
        }
    });
    join_all(checks).await;
}

async fn admitted(world: &World, server: &Server, on_failure: OnFailure) -> bool {
    // What is never said is not waited for; a busy machine says the rest late.
    let timeout = if matches!(*server.says.lock(), Says::Nothing) { 300 } else { 20_000 };
    let hook = Webhook { url: server.url(), timeout: Duration::from_millis(timeout), on_failure };
    let caller = Caller { user: Some("mia".parse().unwrap()), ..Caller::default() };
    webhook::ask(&world.client, &hook, &service(), &"x".parse().unwrap(), &caller).await.is_ok()
}

#[tokio::test]
async fn a_webhook_decides_and_its_failure_is_decided_by_policy() {
    let world = World::new();
    let fails = |says: Says| (says, true, false);
    for (says, admit, refuse) in [
        (Says::Status(StatusCode::NO_CONTENT), true, true),
        (Says::Status(StatusCode::FORBIDDEN), false, false),
        // Its word is its status; what it says besides is not read.
        (Says::Flood, true, true),
        fails(Says::Status(StatusCode::INTERNAL_SERVER_ERROR)),
        fails(Says::Status(StatusCode::TEMPORARY_REDIRECT)),
        fails(Says::Nothing),
    ] {
        let server = Server::start(&world, says.clone());
        for (on_failure, expected) in [(OnFailure::Admit, admit), (OnFailure::Refuse, refuse)] {
            assert_eq!(admitted(&world, &server, on_failure).await, expected, "{says:?} {on_failure:?}");
        }
        let told: Value = serde_json::from_slice(&server.body.lock()).unwrap();
        assert_eq!((&told["session"], &told["user"], &told["verified"]), (&json!("x"), &json!("mia"), &json!(false)));
    }
    let nobody = Server { at: ([127, 0, 0, 1], 9).into(), ..Server::start(&world, Says::Nothing) };
    assert!(admitted(&world, &nobody, OnFailure::Admit).await && !admitted(&world, &nobody, OnFailure::Refuse).await);
}
