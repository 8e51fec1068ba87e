//! The load balancer of a cloud: it gives Services of type LoadBalancer their addresses, and passes what comes for them on to nodes
//! that say they are healthy, with the client's address kept.
//!
//! A flow stays with its node for as long as that is healthy; a new one goes to any that is. Which node a flow has is remembered
//! with the connection (conntrack), as clouds' load balancers have tables of flows.

mod health;
mod pool;
mod probe;
mod rules;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::dial;
use crate::machine::Place;
use crate::plan::addresses;
use pool::{Pool, Wanted};

/// Between two probes of a node: with [`health::DOWN_AFTER`], one that says that it does not serve is dropped within half a second, and
/// with [`probe::LIMIT`] one that answers no more within two.
const PACE: Duration = Duration::from_millis(100);
/// Between two tries to reach an API server that is away.
const AGAIN: Duration = Duration::from_millis(500);
/// How long an API server may take to note an address.
const TELLS: Duration = Duration::from_secs(2);
/// The routing table of the first node; others follow.
const FIRST_TABLE: usize = 100;
/// The interfaces of the edge.
pub(crate) const OUTSIDE: &str = "outside";
pub(crate) const INSIDE: &str = "fabric";

/// It balances until it is dropped.
pub struct Balancer {
    pool: Arc<Mutex<Pool>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Balancer {
    /// Stands at the edge, before these nodes. It is told of Services by the API server of this kubeconfig, and goes on with what it
    /// has while that is away.
    ///
    /// # Errors
    /// When the edge has no such interfaces, or there is no thread.
    pub(crate) fn start(edge: Place, nodes: Vec<Ipv4Addr>, kubeconfig: String) -> Result<Self> {
        for (number, node) in nodes.iter().enumerate() {
            let (mark, table) = (rules::mark(number), FIRST_TABLE + number);
            edge.ip(&format!("rule add fwmark {mark} iif {OUTSIDE} lookup {table}"))?;
            edge.ip(&format!("route add default via {node} dev {INSIDE} table {table}"))?;
        }
        // What no node serves is nowhere, and neither is what a node sends back.
        edge.ip(&format!("route add unreachable {}", addresses::PUBLIC))?;
        restore(&edge, &rules::forwarded())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pool = Arc::new(Mutex::new(Pool::new(nodes.clone())));
        let (stop, stopped) = oneshot::channel();
        let shared = pool.clone();
        let balance = move || {
            let shell = Shell { edge: edge.clone(), nodes, pool: shared };
            // Everything below is within the network of the edge: sockets of probes, and those to the API server.
            edge.in_network(|| runtime.block_on(shell.run(&kubeconfig, stopped)));
        };
        let thread = thread::Builder::new().name("balancer".to_owned()).spawn(balance)?;
        Ok(Self { pool, stop: Some(stop), thread: Some(thread) })
    }

    /// The address of a Service.
    pub fn address(&self, namespace: &str, name: &str) -> Option<Ipv4Addr> {
        self.pool.lock().address(&format!("{namespace}/{name}"))
    }

    /// The nodes that get new flows of a Service, by number.
    pub fn healthy(&self, namespace: &str, name: &str) -> Vec<usize> {
        self.pool.lock().in_force(&format!("{namespace}/{name}"))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // Fails where the thread has ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Shell {
    edge: Place,
    nodes: Vec<Ipv4Addr>,
    pool: Arc<Mutex<Pool>>,
}

impl Shell {
    async fn run(self, kubeconfig: &str, stopped: oneshot::Receiver<()>) {
        let balances = async {
            if let Err(error) = self.balance(kubeconfig).await {
                tracing::error!("the load balancer has ended: {error:#}");
            }
        };
        tokio::select! {
            () = balances => {}
            _ = stopped => {}
        }
    }

    async fn balance(&self, kubeconfig: &str) -> Result<()> {
        let client = Client::try_from(dial::config(kubeconfig).await?)?;
        let mut services = Box::pin(watched(&client));
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut telling, mut applied) = (JoinSet::new(), String::new());
        loop {
            tokio::select! {
                event = services.next() => self.learn(event.context("the watch has ended")?),
                Some(told) = telling.join_next() => self.pool.lock().told(&told?),
                _ = ticks.tick() => self.probe().await,
            }
            for (key, address) in self.pool.lock().untold() {
                telling.spawn(tell(client.clone(), key, address));
            }
            let rules = self.pool.lock().rules();
            if rules != applied {
                restore(&self.edge, &rules)?;
                applied = rules;
            }
            // Only this task changes what the rules are made of.
            self.pool.lock().applied();
        }
    }

    fn learn(&self, event: Event<Service>) {
        let mut pool = self.pool.lock();
        let take = |pool: &mut Pool, service: &Service| match Wanted::of(service) {
            Some(wanted) => pool.want(key(service), wanted),
            None => pool.forget(&key(service)),
        };
        match event {
            Event::Init => pool.begin_again(),
            Event::InitApply(service) | Event::Apply(service) => take(&mut pool, &service),
            Event::InitDone => pool.these_are_all(),
            Event::Delete(service) => pool.forget(&key(&service)),
        }
    }

    async fn probe(&self) {
        let checks = self.pool.lock().checks();
        let probes = checks
            .into_iter()
            .map(|(node, port)| async move { (node, port, probe::is_healthy((self.nodes[node], port).into()).await) });
        for (node, port, healthy) in join_all(probes).await {
            if let Some(healthy) = healthy {
                self.pool.lock().heard(node, port, healthy);
            }
        }
    }
}

fn key(service: &Service) -> String {
    format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any())
}

/// All Services, and every change. It ends never: what cannot be had is asked for again.
fn watched(client: &Client) -> impl Stream<Item = Event<Service>> + use<> {
    let all: Api<Service> = Api::all(client.clone());
    let events = watcher::watcher(all, watcher::Config::default());
    events.filter_map(|event| async {
        match event {
            Ok(event) => Some(event),
            Err(error) => {
                tracing::debug!("Services are not told of: {error}");
                tokio::time::sleep(AGAIN).await;
                None
            }
        }
    })
}

/// Writes an address into a Service's status, as a cloud's controller does, or takes it out. Answers what it was asked and whether
/// that is done.
async fn tell(client: Client, key: String, address: Option<Ipv4Addr>) -> pool::Told {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    let services: Api<Service> = Api::namespaced(client, namespace);
    let ingress = address.map(|address| json!([{ "ip": address }]));
    let (parameters, patch) =
        (PatchParams::default(), Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": ingress } } })));
    let done = matches!(timeout(TELLS, services.patch_status(name, &parameters, &patch)).await, Ok(Ok(_)));
    if !done {
        tokio::time::sleep(AGAIN).await;
    }
    pool::Told { key, address, done }
}

/// Puts rules in the place of those that were there, all at once.
fn restore(edge: &Place, rules: &str) -> Result<()> {
    use std::io::Write as _;

    let mut command = Command::new("iptables-restore");
    let mut child = edge.spawn(command.stdin(Stdio::piped()).stderr(Stdio::piped()))?;
    child.stdin.take().context("no stdin")?.write_all(rules.as_bytes())?;
    crate::machine::text(child.wait_with_output(), &command).with_context(|| rules.to_owned())?;
    Ok(())
}
