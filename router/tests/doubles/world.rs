//! A fleet for a test.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_edge::origin::{Hosts, Origins};
use streamfleet_edge::proxy::Network;
use streamfleet_process::config::Mistakes;
use streamfleet_process::serve::{Listener, ServeLimits};
use streamfleet_router::forward::Upstream;
use streamfleet_router::hold::Hold;
use streamfleet_router::http::{Access, Parts, router};
use streamfleet_router::reached::Front;
use streamfleet_router::relay::Minting;
use streamfleet_router::roster::{Means, Roster};
use streamfleet_router::secret::Secrets;
use streamfleet_router::sockets::{SocketBounds, Sockets};
use streamfleet_router::tell;
use streamfleet_service::{Service, files};
use streamfleet_session::fleet::MAX_PLACED;
use streamfleet_session::{FleetSecret, ServiceKey, ServiceName};
use streamfleet_store::{
    Arrangement, Bounds, Entry, Epoch, Filter, MAX_PAGE, Memory, Owner, RedisConfig, RedisStore, Store,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::double::{Act, Double, Seen, beat, serve};
use super::redis::Redis;

pub(crate) const SECRET: &str = "a-secret-of-the-fleet";
pub(crate) const ADMIN: &str = "a-token-of-the-operator";
/// For what happens at once on any machine that is not standing still.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn service() -> ServiceName {
    "a".parse().unwrap()
}

/// Waits until something is so.
pub(crate) async fn soon(what: &str, is_so: impl AsyncFn() -> bool) {
    let waits = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, waits).await.unwrap_or_else(|_| panic!("it never comes: {what}"));
}

/// What a router shows its workers: never the secret.
pub(crate) fn service_key() -> ServiceKey {
    SECRET.parse::<FleetSecret>().unwrap().of_service(&service())
}

/// A fleet.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    /// What each router opens for itself; the same for all in memory.
    redis: Option<RedisConfig>,
    pub(crate) seen: mpsc::UnboundedReceiver<Seen>,
    told: mpsc::UnboundedSender<Seen>,
    /// What workers do with the next offers, whichever of them is asked; they answer all that follow.
    pub(crate) script: Arc<Mutex<VecDeque<Act>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    pub(crate) sockets: Sockets,
    pub(crate) client: reqwest::Client,
    /// Streams of outputs that a router has.
    pub(crate) streams: usize,
    /// Who may wait for workers to tell the store what they have, of each kind.
    pub(crate) settling: usize,
    /// How media comes by relays.
    pub(crate) relay: Option<Arc<Minting>>,
    /// Proxies whom a router believes.
    pub(crate) trusted: Vec<Network>,
    /// Told to routers that leave.
    pub(crate) leaving: CancellationToken,
    /// Workers that leave a store alone that has forgotten them.
    pub(crate) late: Arc<Mutex<HashSet<String>>>,
    _ends: DropGuard,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of(Arc::new(Memory::new(Bounds::default())), None)
    }

    /// On a Redis: whatever has a store has a connection of its own.
    pub(crate) async fn on(redis: &Redis) -> Self {
        let config = RedisConfig::new(Arrangement::Single(redis.address()));
        let store = RedisStore::new(config.clone());
        soon("Redis", async || store.ping(&service()).await.is_ok()).await;
        Self::of(Arc::new(store), Some(config))
    }

    fn of(store: Arc<dyn Store>, redis: Option<RedisConfig>) -> Self {
        streamfleet_process::crypto::install();
        let (told, seen) = mpsc::unbounded_channel();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let sockets = Sockets::new(SocketBounds::default());
        Self {
            store,
            redis,
            seen,
            told,
            script: Arc::default(),
            tasks,
            stop: stop.clone(),
            sockets,
            client,
            streams: 9,
            settling: 9,
            relay: None,
            trusted: Vec::new(),
            leaving: CancellationToken::new(),
            late: Arc::default(),
            _ends: stop.drop_guard(),
        }
    }

    fn open(&self) -> Arc<dyn Store> {
        match &self.redis {
            Some(config) => Arc::new(RedisStore::new(config.clone())),
            None => self.store.clone(),
        }
    }

    pub(crate) fn listen(&self, routes: axum::Router) -> SocketAddr {
        self.listen_within(routes, ServeLimits::default())
    }

    fn listen_within(&self, routes: axum::Router, limits: ServeLimits) -> SocketAddr {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let served = listener.serve(routes, limits, self.stop.clone(), Duration::ZERO);
        self.tasks.spawn(async move { drop(served.await) });
        address
    }

    /// A router with one service, `a`, of which nobody makes workers.
    pub(crate) fn router(&self, spec: Value) -> String {
        self.router_of(spec, None)
    }

    /// Likewise, of which an operator makes so many workers at most.
    pub(crate) fn growing(&self, spec: Value, most: u32) -> String {
        self.router_of(spec, Some(most))
    }

    fn router_of(&self, mut spec: Value, grows_to: Option<u32>) -> String {
        spec["handler"] = json!({ "name": "echo" });
        let manifest = json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "metadata": { "name": "a" }, "spec": spec,
        });
        let means = self.means();
        let mut mistakes = Mistakes::new();
        let services = files::services(&[("a.yaml".to_owned(), manifest.to_string())], &mut mistakes);
        assert_eq!(mistakes, Mistakes::new());
        let services = services.into_iter().map(|(_, service)| Service { grows_to, ..service }).collect();
        self.router_with(Roster::default().next(services, &means).unwrap(), means)
    }

    /// A router that nobody has told yet which services there are.
    pub(crate) fn unread_router(&self) -> String {
        self.router_with(Roster::unread(), self.means())
    }

    fn means(&self) -> Means {
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        Means { store: self.open(), http: self.client.clone(), secrets: Secrets::local(), tasks, stop }
    }

    fn router_with(&self, roster: Roster, means: Means) -> String {
        let Means { store, http, tasks, stop, .. } = means;
        let access = Access {
            origins: Origins::Any,
            hosts: Hosts::Any,
            admin_token: ADMIN.parse().unwrap(),
            trusted: self.trusted.clone(),
            front: Front::Plain,
        };
        let upstream = Upstream::new();
        // Nobody changes the services; who holds the sender keeps them.
        let (sender, roster) = watch::channel(Arc::new(roster));
        let held = self.stop.clone();
        self.tasks.spawn(async move {
            held.cancelled().await;
            drop(sender);
        });
        let meter = opentelemetry_sdk::metrics::SdkMeterProvider::default().meter("test");
        let (secret, hold) = (SECRET.parse().unwrap(), Hold::default());
        let tell = tell::tell(hold.clone(), store.clone(), meter.clone());
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(tell));
        let sockets = self.sockets.clone();
        let parts = Parts {
            store,
            roster,
            upstream,
            hold,
            secret,
            sockets,
            http,
            access,
            relay: self.relay.clone(),
            streams: self.streams,
            settling: self.settling,
            tasks,
            stop,
            leaving: self.leaving.clone(),
        };
        format!("http://{}/a", self.listen(router(parts, &meter)))
    }

    pub(crate) async fn worker(&self, name: &str) {
        self.worker_for(name, 9).await;
    }

    /// A worker with so many places.
    pub(crate) async fn worker_for(&self, name: &str, capacity: u32) {
        let worker = name.parse().unwrap();
        let epoch = self.store.register(&service(), &worker, Entry::New).await.unwrap();
        let owner = Owner { worker, epoch };
        let double = Arc::new(Double {
            name: name.to_owned(),
            script: self.script.clone(),
            owner: Mutex::new(owner.clone()),
            store: self.open(),
            held: Mutex::default(),
            told: self.told.clone(),
            late: self.late.clone(),
        });
        // As a worker's: a session's place fits beside the usual headers.
        let usual = ServeLimits::default();
        let limits = ServeLimits { header_bytes: usual.header_bytes + MAX_PLACED, ..usual };
        let address = self.listen_within(axum::Router::new().fallback(serve).with_state(double.clone()), limits);
        self.serves(&owner, address, capacity).await;
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(double.obey(beat(address, capacity))));
    }

    pub(crate) async fn serves(&self, owner: &Owner, address: SocketAddr, capacity: u32) {
        self.store.renew(&service(), owner, &beat(address, capacity)).await.unwrap();
    }

    /// A worker in the directory that nobody can reach.
    pub(crate) async fn ghost(&self, name: &str) -> Owner {
        let worker = name.parse().unwrap();
        let epoch: Epoch = self.store.register(&service(), &worker, Entry::New).await.unwrap();
        // A port that was free a moment ago and that nobody listens on.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let owner = Owner { worker, epoch };
        self.serves(&owner, address, 9).await;
        owner
    }

    /// A worker that takes connections and ends them.
    pub(crate) async fn grave(&self, name: &str) {
        let worker = name.parse().unwrap();
        let epoch: Epoch = self.store.register(&service(), &worker, Entry::New).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bury = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Not before it is asked: a connection that has not been used is tried once more.
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 99]).await;
            }
        };
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(bury));
        self.serves(&Owner { worker, epoch }, address, 9).await;
    }

    pub(crate) async fn post(&self, url: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(url).header("content-type", "application/json").body(body.to_string());
        answer(request.send().await.unwrap()).await
    }

    pub(crate) async fn offer(&self, router: &str, id: &str, more: &Value) -> (u16, Value) {
        let mut body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": id });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.post(&format!("{router}/webrtc/offer"), &body).await
    }

    /// The next offer or handshake that a worker sees, past what it is asked of sessions.
    pub(crate) async fn offered(&mut self) -> Seen {
        loop {
            let seen = self.next().await;
            if seen.placed.is_some() {
                return seen;
            }
        }
    }

    /// What a worker is asked next.
    pub(crate) async fn next(&mut self) -> Seen {
        tokio::time::timeout(SOON, self.seen.recv()).await.expect("a worker is asked").unwrap()
    }

    /// How many sessions and claims there are, once there are so many.
    pub(crate) async fn sessions_become(&self, expected: usize) {
        soon(&format!("{expected} sessions"), async || {
            let all = Filter { limit: MAX_PAGE, ..Filter::default() };
            // A store that has been away may take a moment.
            let page = self.store.list(&service(), &all).await;
            page.is_ok_and(|page| page.sessions.len() == expected)
        })
        .await;
    }
}

/// Two routers and two workers; everybody has seen everybody.
pub(crate) async fn fleet(redis: &Redis, spec: Value) -> (World, String, String) {
    let mut world = World::on(redis).await;
    world.worker("v").await;
    world.worker("w").await;
    let (one, other) = (world.router(spec.clone()), world.router(spec));
    for (router, id) in [(&one, "first"), (&other, "second")] {
        assert_eq!(world.offer(router, id, &json!({})).await.1["type"], "answer");
        world.next().await;
    }
    (world, one, other)
}

/// What `client` gets while all workers but this one are known to the store again, and this one is a moment later.
pub(crate) async fn before_it_is_there<T>(
    world: &World,
    router: &str,
    worker: &str,
    client: impl Future<Output = T>,
) -> T {
    soon("the other one is there, and the router reaches the store", async || {
        let list = world.client.get(format!("{router}/sessions")).bearer_auth(ADMIN).send().await.unwrap();
        list.status() == 200 && world.store.workers(&service()).await.is_ok_and(|workers| workers.len() == 1)
    })
    .await;
    let comes = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.late.lock().remove(worker);
    };
    tokio::join!(client, comes).0
}

pub(crate) async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub(crate) fn error(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["meta"]["error"].as_str().unwrap_or_default())
}
