//! A whole fleet in one process: two routers and two workers on one store, and clients on loopback sockets.
//!
//! Each router has a runtime of its own. Without it, it is as dead as a killed process: its sockets are closed, and it has
//! told nobody.

#![allow(clippy::unwrap_used)] // A test that cannot go on says so by failing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::Router as Routes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use streamfleet_process::signals::{Signals, Teller};
use streamfleet_process::telemetry::Metrics;
use streamfleet_router::config::RouterConfig;
use streamfleet_router::program;
use streamfleet_store::{Backend, Bounds, Memory};
use streamfleet_worker::config::WorkerConfig;
use streamfleet_worker::worker::Worker;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// For what happens at once on any machine that is not standing still.
const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-of-the-fleet";
const ADMIN: &str = "a-token-of-the-operator";
/// A service that sounds by itself.
const MANIFEST: &str = "
apiVersion: streamfleet.dev/v1alpha1
kind: StreamService
metadata: {name: tone}
spec: {path: /tone, handler: {name: tone}}
";

struct Fleet {
    file: PathBuf,
    routers: Vec<(SocketAddr, Runtime, Teller)>,
    _workers: JoinSet<()>,
    /// Who has it tells a worker to stop by dropping it.
    _tellers: Vec<Teller>,
    client: reqwest::Client,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for (_, runtime, _) in self.routers.drain(..) {
            runtime.shutdown_background();
        }
        drop(std::fs::remove_file(&self.file));
    }
}

fn config<T>(yaml: &Value, load: impl FnOnce(&str) -> T) -> T {
    load(&yaml.to_string())
}

impl Fleet {
    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        streamfleet_process::crypto::install();
        let name = format!("streamfleet-whole-{}-{}.yaml", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, MANIFEST).unwrap();
        let store = Backend::Memory(Arc::new(Memory::new(Bounds::default())));
        let (mut workers, mut tellers) = (JoinSet::new(), Vec::new());
        for name in ["v", "w"] {
            tellers.push(worker(name, &store, &mut workers).await);
        }
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut fleet = Self { file, routers: Vec::new(), _workers: workers, _tellers: tellers, client };
        for _ in 0..2 {
            fleet.router(&store).await;
        }
        fleet
    }

    async fn router(&mut self, store: &Backend) {
        let yaml = json!({
            "listen": "127.0.0.1:0", "admin": { "listen": "127.0.0.1:0", "token": ADMIN }, "secret": SECRET,
            "services": [self.file],
        });
        let load = |text: &str| RouterConfig::layers().yaml("router.yaml", text).load::<RouterConfig>();
        let plan = config(&yaml, load).build(|config| config.build_on(store.clone())).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (teller, told) = Signals::told();
        let (ready, is_ready) = oneshot::channel();
        let listens = move |at: &program::Addresses| {
            let _ = ready.send(at.http);
        };
        runtime.spawn(async move {
            let served = program::serve(plan, Metrics::new("router", "0"), told, Routes::new(), listens).await;
            served.unwrap_or_else(|_| panic!("a router failed"));
        });
        let address = timeout(SOON, is_ready).await.unwrap().unwrap();
        self.routers.push((address, runtime, teller));
    }

    /// Ends a router as `kill -9` would.
    fn kill(&mut self, router: usize) {
        let (_, runtime, _) = self.routers.remove(router);
        runtime.shutdown_background();
    }

    fn at(&self, router: usize) -> SocketAddr {
        self.routers[router].0
    }

    async fn open(&self, router: usize, route: &str) -> Client {
        let at = self.at(router);
        let stream = TcpStream::connect(at).await.unwrap();
        let url = format!("ws://{at}/tone{route}");
        Client(tokio_tungstenite::client_async(url, stream).await.unwrap().0)
    }

    async fn start(&self, router: usize, id: &str, resume: &Value) -> Client {
        let mut client = self.open(router, "/websocket/offer").await;
        client.say(&json!({ "event": "start", "websocket_id": id, "resume": resume })).await;
        client
    }

    /// A session, as any router shows it: its worker's view, and what it has been through.
    async fn view(&self, router: usize, id: &str) -> (Value, Vec<String>) {
        let url = format!("http://{}/tone/sessions/{id}", self.at(router));
        let text = self.client.get(url).bearer_auth(ADMIN).send().await.unwrap().text().await.unwrap();
        let view: Value = serde_json::from_str(&text).unwrap();
        let changes = view["changes"].as_array().into_iter().flatten();
        let changes = changes.map(|change| change["change"].as_str().unwrap().to_owned()).collect();
        (view["since"].clone(), changes)
    }
}

async fn worker(name: &str, store: &Backend, workers: &mut JoinSet<()>) -> Teller {
    // Routers are told this port: it is free until the worker takes it.
    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let yaml = json!({
        "listen": http, "media": { "udp": "127.0.0.1:0", "loops": 1 },
        "admin": { "listen": "127.0.0.1:0", "token": ADMIN },
        "services": [{ "name": "tone", "path": "/tone", "handler": { "name": "tone" } }],
        "fleet": { "worker": name, "http": http, "secret": SECRET },
    });
    let registry = streamfleet_handler::Registry::builtin();
    let loaded = config(&yaml, |text| WorkerConfig::layers().yaml("worker.yaml", text).load::<WorkerConfig>());
    let plan = loaded.build(|config| streamfleet_worker::program::plan(config, &registry, Some(store))).unwrap();
    let worker = Worker::bind(plan, &registry, Metrics::new("worker", "0")).unwrap();
    let (teller, told) = Signals::told();
    let (ready, is_ready) = oneshot::channel();
    workers.spawn(async move {
        let is_ready = move || {
            let _ = ready.send(());
        };
        worker.run(Routes::new(), Handle::current(), told, is_ready).await.unwrap();
    });
    timeout(SOON, is_ready).await.unwrap().unwrap();
    teller
}

struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn say(&mut self, value: &Value) {
        self.0.send(Message::Text(value.to_string().into())).await.unwrap();
    }

    /// The next message; that it has ended is `closed`, with its code if it has one.
    async fn next(&mut self) -> Value {
        loop {
            match timeout(SOON, self.0.next()).await.expect("something comes") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Close(frame))) => return json!({ "closed": frame.map(|frame| u16::from(frame.code)) }),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return json!({ "closed": null }),
            }
        }
    }

    async fn token(&mut self) -> Value {
        let session = self.next().await;
        assert_eq!(session["type"], "session", "{session}");
        session["data"]["resume"].clone()
    }

    async fn hears_media(&mut self) {
        for _ in 0..5 {
            let message = self.next().await;
            assert_eq!(message["event"], "media", "{message}");
        }
    }

    async fn end(&mut self) -> Value {
        loop {
            let message = self.next().await;
            if message.get("closed").is_some() {
                return message["closed"].clone();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_dies_and_its_sockets_go_on_at_another() {
    let mut fleet = Fleet::new().await;
    let mut client = fleet.start(0, "x", &json!(true)).await;
    let token = client.token().await;
    client.hears_media().await;
    let began = fleet.view(1, "x").await.0;
    let mut stranger = fleet.start(1, "x", &json!("00000000000000000000000000000000")).await;
    assert_eq!(stranger.next().await["meta"]["error"], "connection_already_exists");
    fleet.kill(0);
    assert_eq!(client.end().await, Value::Null, "it breaks without a word");
    let mut again = fleet.start(0, "x", &token).await;
    assert_ne!(again.token().await, token);
    again.hears_media().await;
    let (since, changes) = fleet.view(0, "x").await;
    assert_eq!(since, began, "it is the same session");
    // A client may be back before its worker has missed it.
    let seen: Vec<&str> = changes.iter().map(String::as_str).filter(|change| *change != "detached").collect();
    assert_eq!(seen, ["connecting", "active", "attached"]);
    again.say(&json!({ "event": "stop" })).await;
    assert_eq!(again.end().await, 1000);
}

const CALL: &str = "CA0123456789abcdef0123456789abcdef";

/// What TwiML says: its way back, and its parameters.
fn read_twiml(xml: &str) -> (String, Value) {
    let after = |text: &str, name: &str| {
        let from = text.find(&format!("{name}=\"")).map(|at| at + name.len() + 2)?;
        text[from..].split('"').next().map(str::to_owned)
    };
    let parameters = xml.split("<Parameter ").skip(1);
    let parameters = parameters.map(|text| (after(text, "name").unwrap(), json!(after(text, "value").unwrap())));
    (after(xml, "action").unwrap_or_default(), Value::Object(parameters.collect()))
}

impl Fleet {
    async fn incoming(&self, router: usize, query: &str) -> String {
        let url = format!("http://{}/tone/telephone/incoming{query}", self.at(router));
        let request = self.client.post(url).header("host", "voice.example.com").body(format!("CallSid={CALL}"));
        request.send().await.unwrap().text().await.unwrap()
    }

    async fn stream(&self, router: usize, stream: &str, parameters: &Value) -> Client {
        let mut client = self.open(router, "/telephone/handler").await;
        let start = json!({
            "streamSid": stream, "callSid": CALL, "customParameters": parameters,
            "mediaFormat": { "encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1 },
        });
        client.say(&json!({ "event": "start", "streamSid": stream, "start": start })).await;
        client
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_put_through_taken_and_brought_back_by_any_router() {
    let fleet = Fleet::new().await;
    let twiml = fleet.incoming(0, "").await;
    assert!(twiml.contains("wss://voice.example.com/tone/telephone/handler"), "{twiml}");
    let (action, parameters) = read_twiml(&twiml);
    let mut call = fleet.stream(1, "MZ1", &parameters).await;
    call.hears_media().await;
    for router in [0, 1] {
        let mut again = fleet.stream(router, "MZ9", &parameters).await;
        assert_eq!(again.end().await, 1008, "a token is good once in the whole fleet");
    }
    drop(call);
    let query = action.strip_prefix("incoming").unwrap();
    // The worker hears of it in its own time.
    let began = Instant::now();
    while !fleet.view(0, "MZ1").await.1.contains(&"detached".to_owned()) {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for router in [0, 1, 0, 1] {
        let back = fleet.incoming(router, query).await;
        assert!(back.contains("streamfleet_session\" value=\"MZ1\"") && !back.contains("Hangup"), "{back}");
    }
    let (_, parameters) = read_twiml(&fleet.incoming(0, query).await);
    let mut back = fleet.stream(0, "MZ2", &parameters).await;
    back.hears_media().await;
    assert_eq!(fleet.view(1, "MZ1").await.1, ["connecting", "active", "detached", "attached"]);
    back.say(&json!({ "event": "stop", "streamSid": "MZ2" })).await;
    assert_eq!(back.end().await, 1000);
    let over = async {
        while !fleet.incoming(1, query).await.contains("<Hangup") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, over).await.expect("the conversation is over");
}
