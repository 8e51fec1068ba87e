//! The shells against an API server of a few lines: what it says, and that it is away. What a real one does is tried in a cluster.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use futures_util::stream;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_process::readiness::Readiness;
use streamfleet_process::telemetry::Metrics;
use streamfleet_store::{Bounds, Memory};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::public;
use super::*;
use crate::relay::Candidates;
use crate::secret::Secrets;

/// For what happens at once on any machine that is not standing still.
const SOON: Duration = Duration::from_secs(20);

/// An API server.
#[derive(Default)]
struct Api {
    services: BTreeMap<String, Value>,
    secrets: BTreeMap<String, Value>,
    watches: Vec<mpsc::UnboundedSender<Bytes>>,
    /// Namespaces that must not be read.
    forbidden: BTreeSet<String>,
    is_away: bool,
    asked_for_secrets: usize,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Api>>);

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let answer = server.answer(request.uri());
            async move { answer.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionRefused)) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, uri: &axum::http::Uri) -> Option<Response<Body>> {
        let mut api = self.0.lock();
        if api.is_away {
            return None;
        }
        let failure = |code: u16, reason: &str| {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
                "reason": reason, "message": reason,
            });
            Some(Response::builder().status(code).body(status.to_string().into()).unwrap())
        };
        if let Some(name) = uri.path().strip_prefix("/api/v1/namespaces/n/secrets/") {
            api.asked_for_secrets += 1;
            return match api.secrets.get(name) {
                Some(secret) => Some(Response::new(secret.to_string().into())),
                None => failure(404, "NotFound"),
            };
        }
        let path = uri.path().strip_prefix("/apis/streamfleet.dev/v1alpha1/").unwrap();
        let namespace = path.strip_prefix("namespaces/").and_then(|path| path.strip_suffix("/streamservices"));
        assert!(namespace.is_some() || path == "streamservices", "nothing else is asked for: {path}");
        if namespace.is_some_and(|namespace| api.forbidden.contains(namespace)) {
            return failure(403, "Forbidden");
        }
        if uri.query().is_some_and(|query| query.contains("watch=true")) {
            let (sender, receiver) = mpsc::unbounded_channel();
            api.watches.push(sender);
            let lines = stream::unfold(receiver, |mut receiver| async move {
                Some((Ok::<_, std::io::Error>(receiver.recv().await?), receiver))
            });
            return Some(Response::new(Body::from_stream(lines)));
        }
        let is_there = |service: &&Value| namespace.is_none_or(|there| service["metadata"]["namespace"] == there);
        let items: Vec<&Value> = api.services.values().filter(is_there).collect();
        let list = json!({
            "kind": "StreamServiceList", "apiVersion": "streamfleet.dev/v1alpha1",
            "metadata": { "resourceVersion": "1" }, "items": items,
        });
        Some(Response::new(list.to_string().into()))
    }

    fn put(&self, name: &str, generation: i64, created: &str, spec: Value) {
        let mut spec = spec;
        spec["handler"] = json!({ "name": "echo" });
        spec["limits"] = json!({ "timeLimitSeconds": 60 });
        let object = json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "spec": spec,
            "metadata": {
                "name": name, "namespace": "n", "uid": name, "generation": generation, "creationTimestamp": created,
                "resourceVersion": generation.to_string(),
            },
        });
        let mut api = self.0.lock();
        let kind = if api.services.insert(name.to_owned(), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        api.watches.retain(|watch| watch.send(line.clone().into()).is_ok());
    }

    fn put_secret(&self, name: &str, key: &str, base64: &str) {
        let secret =
            json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": name }, "data": { key: base64 } });
        self.0.lock().secrets.insert(name.to_owned(), secret);
    }

    /// It ends every watch, and answers nobody.
    fn goes(&self) {
        let mut api = self.0.lock();
        (api.is_away, api.watches) = (true, Vec::new());
    }

    fn comes_back(&self) {
        self.0.lock().is_away = false;
    }
}

/// A router's side.
struct World {
    roster: watch::Receiver<Arc<Roster>>,
    contact: Contact,
    counts: Counts,
    readiness: Readiness,
    _tasks: JoinSet<()>,
}

impl World {
    fn new(server: &Server) -> Self {
        Self::of(server, Scope::All)
    }

    fn of(server: &Server, scope: Scope) -> Self {
        streamfleet_process::crypto::install();
        let vault = Vault::new();
        let means = Means {
            store: Arc::new(Memory::new(Bounds::default())),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            secrets: Secrets::of(vault.clone()),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let (sender, roster) = watch::channel(Arc::new(Roster::default()));
        let (contact, counts, readiness) = (Contact::default(), Counts::default(), Readiness::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(vault.clone().keep(server.client()));
        let hold = readiness.hold("kubernetes");
        let (client, counts_too) = (server.client(), counts.clone());
        let followed = Followed { client, scope, vault, means, roster: sender, counts: counts_too, hold };
        let lines = contact.clone();
        tasks.spawn(async move { followed.follow(&lines).await });
        Self { roster, contact, counts, readiness, _tasks: tasks }
    }

    /// Waits until it is as expected: services with their paths.
    async fn until(&mut self, expected: &[(&str, &str)]) {
        let seen = self.roster.wait_for(|roster| {
            let mut served: Vec<(String, String)> =
                roster.desks().map(|desk| (desk.service.name.to_string(), desk.service.paths[0].to_string())).collect();
            served.sort();
            served.iter().map(|(name, path)| (name.as_str(), path.as_str())).eq(expected.iter().copied())
        });
        timeout(SOON, seen).await.unwrap_or_else(|_| panic!("{expected:?}")).unwrap();
    }

    async fn until_standing(&self, standing: Standing) {
        let stands = async {
            while self.contact.standing(Instant::now()) != standing {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, stands).await.unwrap_or_else(|_| panic!("{standing:?}"));
    }

    fn count(&self, lot: Lot) -> u64 {
        self.counts.0[lot as usize].load(Relaxed)
    }
}

fn token(secret: &str) -> Value {
    json!({ "jwt": { "secret": { "secretKeyRef": { "name": secret, "key": "key" } } } })
}

#[tokio::test]
async fn services_and_secrets_are_followed() {
    let server = Server::default();
    server.put("new", 1, "2026-01-02T00:00:00Z", json!({ "path": "/x" }));
    server.put("old", 1, "2026-01-01T00:00:00Z", json!({ "path": "/x" }));
    server.put("secretive", 1, "2026-01-01T00:00:00Z", json!({ "path": "/s", "identity": token("missing") }));
    server.put_secret("there", "key", "YS1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcy1hdC1sZWFzdA==");
    let mut world = World::new(&server);
    assert_eq!(world.readiness.reasons(), ["kubernetes"]);
    world.until(&[("n/old", "/x")]).await;
    assert_eq!([Lot::Served, Lot::Displaced, Lot::Waiting, Lot::Mistaken].map(|lot| world.count(lot)), [1, 1, 1, 0]);
    assert_eq!(world.contact.standing(Instant::now()), Standing::Synced);
    let found = world.roster.borrow().catalog.find(None, "/s/webrtc/offer").is_some();
    assert!(found, "it is known, and cannot be reached");
    let ready = async {
        while !world.readiness.reasons().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, ready).await.unwrap();

    // Another Secret is read at once.
    server.put("secretive", 2, "2026-01-01T00:00:00Z", json!({ "path": "/s", "identity": token("there") }));
    world.until(&[("n/old", "/x"), ("n/secretive", "/s")]).await;
    // The older one makes way.
    server.put("old", 2, "2026-01-01T00:00:00Z", json!({ "path": "/y" }));
    world.until(&[("n/new", "/x"), ("n/old", "/y"), ("n/secretive", "/s")]).await;
    assert_eq!(world.count(Lot::Displaced), 0);
    // What cannot be read goes on as it was.
    server.put("new", 2, "2026-01-02T00:00:00Z", json!({ "path": "/z/../x" }));
    let mistaken = async {
        while world.count(Lot::Mistaken) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, mistaken).await.unwrap();
    world.until(&[("n/new", "/x"), ("n/old", "/y"), ("n/secretive", "/s")]).await;
}

#[tokio::test]
async fn an_api_server_that_is_away_takes_nothing_away() {
    let server = Server::default();
    server.goes();
    server.put("a", 1, "2026-01-01T00:00:00Z", json!({ "path": "/a" }));
    let mut world = World::new(&server);
    assert_eq!(world.contact.standing(Instant::now()), Standing::Synced, "nothing has been asked");
    world.until_standing(Standing::Starting).await;
    assert_eq!(world.readiness.reasons(), ["kubernetes"]);
    server.comes_back();
    world.until(&[("n/a", "/a")]).await;
    let desk = |world: &World| world.roster.borrow().desk(&"n/a".parse().unwrap()).unwrap().clone();
    let before = desk(&world);
    server.goes();
    world.until_standing(Standing::Away).await;
    // What happens meanwhile is known afterwards; what has not changed is the same.
    server.put("b", 1, "2026-01-01T00:00:00Z", json!({ "path": "/b" }));
    world.until(&[("n/a", "/a")]).await;
    server.comes_back();
    server.put("c", 1, "2026-01-01T00:00:00Z", json!({ "path": "/c" }));
    // The watch goes on where it was, or the list is told anew: this one tells only what comes after.
    let told = async {
        loop {
            server.put("c", 1, "2026-01-01T00:00:00Z", json!({ "path": "/c" }));
            if world.roster.borrow().desk(&"n/c".parse().unwrap()).is_some() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, told).await.unwrap();
    assert_eq!(world.contact.standing(Instant::now()), Standing::Synced);
    assert!(Arc::ptr_eq(&before, &desk(&world)));
}

/// One namespace whose rights are gone, and a router that begins.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_cannot_be_read_keeps_no_router_from_being_ready() {
    let server = Server::default();
    server.0.lock().forbidden.insert("m".to_owned());
    server.put("a", 1, "2026-01-01T00:00:00Z", json!({ "path": "/a" }));
    let mut world = World::of(&server, Scope::Only(vec!["m".to_owned(), "n".to_owned()]));
    world.until(&[("n/a", "/a")]).await;
    world.until_standing(Standing::Refused).await;
    let ready = async {
        while !world.readiness.reasons().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, ready).await.unwrap();
    // It is asked for again and again.
    server.0.lock().forbidden.clear();
    world.until_standing(Standing::Synced).await;
}

/// Rights that were written wrongly: a rollout ends at the first router.
#[tokio::test(start_paused = true)]
async fn who_may_read_nothing_is_not_ready() {
    let server = Server::default();
    server.0.lock().forbidden.insert("n".to_owned());
    let mut world = World::of(&server, Scope::Only(vec!["n".to_owned()]));
    world.until_standing(Standing::Refused).await;
    sleep(SOON).await;
    assert_eq!(world.readiness.reasons(), ["kubernetes"]);
    server.put("a", 1, "2026-01-01T00:00:00Z", json!({ "path": "/a" }));
    server.0.lock().forbidden.clear();
    world.until(&[("n/a", "/a")]).await;
}

/// Where all media goes to workers' hosts, that relays have no address is nothing to wake anybody for.
#[tokio::test]
async fn services_that_need_an_address_of_relays_are_counted() {
    let server = Server::default();
    server.put("direct", 1, "2026-01-01T00:00:00Z", json!({ "path": "/d", "media": { "exposure": "HostPort" } }));
    let mut world = World::new(&server);
    let (metrics, candidates) = (Metrics::new("streamfleet-router", "0"), Arc::new(Candidates::default()));
    public::observe(&metrics.meter("kubernetes"), &candidates, world.roster.clone());
    let check = |addresses: u32, services: u32| {
        let text = metrics.render();
        for line in [
            format!("streamfleet_router_media_addresses {addresses}"),
            format!("streamfleet_router_relayed_services {services}"),
        ] {
            assert!(text.lines().any(|shown| shown == line), "no {line} in\n{text}");
        }
    };
    world.until(&[("n/direct", "/d")]).await;
    check(0, 0);
    server.put("relayed", 1, "2026-01-01T00:00:00Z", json!({ "path": "/r" }));
    world.until(&[("n/direct", "/d"), ("n/relayed", "/r")]).await;
    check(0, 1);
    candidates.set(vec!["192.0.2.1:3478".parse().unwrap(), "192.0.2.2:3478".parse().unwrap()]);
    check(2, 1);
}

#[test]
fn what_is_wrong_is_said_once() {
    let said = |texts: &[(&str, &str)]| {
        Said(texts.iter().map(|(service, said)| ((*service).to_owned(), (*said).to_owned())).collect())
    };
    let before = said(&[("a", "1"), ("b", "1")]);
    let after = said(&[("a", "1"), ("b", "2"), ("c", "1")]);
    let news: Vec<_> = after.news(&before).map(|(service, said)| (service.as_str(), said.as_str())).collect();
    assert_eq!(news, [("b", "2"), ("c", "1")]);
}
