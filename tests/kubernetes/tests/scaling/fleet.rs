//! The installation, its services, and what they say of themselves.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::fleet::{
    self, Calls, Load, Report, chart, images, install, load_product, stream_services,
};
use streamfleet_kubernetes_tests::{Cluster, Store, Talk, eventually, pods, tell};
use streamfleet_tests::http as plain;
use streamfleet_tests::metrics::Metrics;

use super::LIMIT;
use super::chronicle::Chronicle;

/// Where the release is.
const HOME: &str = "streamfleet";
/// Where its StreamServices are.
pub(crate) const NAMESPACE: &str = "voice";
/// The Secret of the fleet's keys.
const KEYS: &str = "fleet-keys";
/// Who may do everything to sessions.
const ADMIN: &str = "of-the-administrators-of-the-tests";
/// The routers' Service.
const ROUTER: &str = "streamfleet-router";
/// How many of them the chart installs.
const ROUTERS: usize = 2;
/// What leads to the load balancer by name, as clouds have it.
const MEDIA: &str = "media";
/// So long a call is heard at least before anything is said of it.
const HEARD: Duration = Duration::from_secs(3);
/// Calls that are to go on until they are hung up.
const LONG: u64 = 1_200;

/// An installation.
pub(crate) struct Fleet<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) services: Api<DynamicObject>,
    pub(crate) chronicle: Chronicle,
    /// What URLs begin with.
    base: String,
    _store: Store,
}

impl<'a> Fleet<'a> {
    /// The charts, and nothing else: routers are healthy when this returns.
    pub(crate) async fn install(cluster: &'a Cluster) -> Result<Self> {
        load_product(cluster)?;
        let store = Store::start(cluster).await?;
        let namespace = |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let mut items = vec![namespace(HOME), namespace(NAMESPACE), keys()];
        items.extend(store.secrets(HOME));
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        install(cluster, "streamfleet-crds", HOME, &chart("streamfleet-crds"), &json!({}))?;
        let values = json!({
            "images": images(), "redis": store.values(), "fleet": { "existingSecret": KEYS },
            "scope": { "clusterWide": true }, "router": {
                "service": { "layout": "Shared" },
                "relay": { "mediaAddresses": [format!("{MEDIA}.{HOME}.svc.cluster.local")] },
            },
        });
        install(cluster, "streamfleet", HOME, &chart("streamfleet"), &values)?;
        let all: Vec<usize> = (0..cluster.plan().nodes).collect();
        eventually("all nodes are healthy", LIMIT, async || {
            Ok((cluster.balancer().healthy(HOME, ROUTER) == all).then_some(()))
        })
        .await?;
        let address = cluster.balancer().address(HOME, ROUTER).context("no address")?;
        // The name of a new load balancer leads nowhere at first: routers look again.
        cluster.apply(&named(address))?;
        Ok(Self {
            services: stream_services(cluster, NAMESPACE),
            chronicle: Chronicle::of(Api::namespaced(cluster.kube(), NAMESPACE)),
            base: format!("http://{address}"),
            _store: store,
            cluster,
        })
    }

    /// Says how long something took.
    pub(crate) async fn timed(&self, what: &str, scenario: impl Future<Output = Result<()>>) -> Result<()> {
        let began = Instant::now();
        scenario.await.with_context(|| what.to_owned())?;
        println!("{what}: {:.0} s", began.elapsed().as_secs_f32());
        Ok(())
    }

    /// `kubectl apply` of a StreamService that answers with what it hears.
    pub(crate) fn apply(&self, name: &str, more: &Value) -> Result<()> {
        let mut spec = json!({
            "path": format!("/{name}"), "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 3600 },
        });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        self.cluster.apply(&json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
            "metadata": { "name": name, "namespace": NAMESPACE }, "spec": spec,
        }))
    }

    /// Calls it so many times, one a second, and answers when its status has counted `all` sessions.
    pub(crate) async fn call(&self, name: &str, calls: usize, all: i64) -> Result<Calls> {
        self.call_by(&[], name, calls, all).await
    }

    /// The same by WebSocket.
    pub(crate) async fn call_by_socket(&self, name: &str, calls: usize, all: i64) -> Result<Calls> {
        self.call_by(&["--transport", "websocket"], name, calls, all).await
    }

    async fn call_by(&self, flags: &[&str], name: &str, calls: usize, all: i64) -> Result<Calls> {
        self.await_media().await?;
        let url = format!("{}/{name}", self.base);
        let load = Load { url: &url, sessions: calls, ramp: 1, seconds: LONG, flags };
        let mut calls = Calls::start(self.cluster, load)?;
        eventually(&format!("{name} has {all} sessions"), LIMIT, async || {
            ensure!(calls.are_going_on()?, "the calls have ended");
            let status = self.status(name).await?;
            let is_reached = status["activeSessions"].as_i64() == Some(all);
            is_reached.then_some(Some(())).with_context(|| status.to_string())
        })
        .await?;
        // Packets are counted from when all are there.
        tokio::time::sleep(HEARD).await;
        Ok(calls)
    }

    /// One call as a person's, with this id: it comes back by its token, and goes on until it is hung up.
    pub(crate) async fn talk(&self, name: &str, id: &str, flags: &[&str]) -> Result<Talk> {
        self.await_media().await?;
        Talk::begin(self.cluster, &format!("{}/{name}", self.base), &[&["--id", id], flags].concat(), None)
    }

    /// What a router answers who may do everything to a service's sessions.
    pub(crate) fn control(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let (url, token) = (format!("{}:80/{path}", self.base), format!("Bearer {ADMIN}"));
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let said =
            self.cluster.client().in_network(|| plain::request(method, &url, &headers, body.to_string().as_bytes()))?;
        ensure!(said.status == 200, "{method} {path}: {said:?}");
        said.json()
    }

    /// Waits until clients are told by every router where media goes: to the one address that the name stands for.
    async fn await_media(&self) -> Result<()> {
        let routers: Api<Pod> = Api::namespaced(self.cluster.kube(), HOME);
        eventually("the load balancer's name leads somewhere", LIMIT, async || {
            let known = |pod: &Pod| -> Result<f64> {
                let metrics = pods::metrics(self.cluster, pods::address(pod)?)?;
                metrics.sum("streamfleet_router_media_addresses").context("no such metric")
            };
            let listed = routers.list(&ListParams::default().labels("app.kubernetes.io/component=router")).await?;
            let known: Vec<f64> = listed.iter().map(known).collect::<Result<_>>()?;
            let all = known.len() == ROUTERS && known.iter().all(|addresses| *addresses == 1.0);
            all.then_some(Some(())).with_context(|| format!("{known:?} addresses"))
        })
        .await
    }

    /// Hangs up, and sees that every call was answered, heard itself and was not ended.
    pub(crate) async fn hang_up(&self, about: &str, calls: Calls) -> Result<Report> {
        let report = calls.stop().await?;
        tell(self.cluster, &format!("{about}\n{}", report.table()))?;
        report.undisturbed().with_context(|| about.to_owned())?;
        Ok(report)
    }

    /// The status of a service.
    pub(crate) async fn status(&self, name: &str) -> Result<Value> {
        Ok(self.services.get(name).await?.data["status"].clone())
    }

    /// Waits until the status of a service has these figures, and is of its present specification.
    pub(crate) async fn await_figures(&self, name: &str, wanted: &[(&str, i64)], limit: Duration) -> Result<()> {
        eventually(&format!("{name} has {wanted:?}"), limit, async || {
            let service = self.services.get(name).await?;
            let status = &service.data["status"];
            let is_present = status["observedGeneration"].as_i64() == service.metadata.generation;
            let is_so = wanted.iter().all(|(figure, value)| status[*figure].as_i64() == Some(*value));
            (is_present && is_so).then_some(Some(())).with_context(|| status.to_string())
        })
        .await
    }

    /// The metrics of the release's pods with a label, as Prometheus gets them, each line's value by what it is of, added up.
    pub(crate) async fn metrics(&self, label: &str) -> Result<BTreeMap<String, f64>> {
        let mut sums = BTreeMap::new();
        let pods: Api<Pod> = Api::namespaced(self.cluster.kube(), HOME);
        for pod in pods.list(&ListParams::default().labels(label)).await? {
            for (of, value) in pods::metrics(self.cluster, pods::address(&pod)?)?.series() {
                *sums.entry(of.to_owned()).or_default() += value;
            }
        }
        Ok(sums)
    }

    /// The one worker that a service has, once the chronicle knows that it is ready.
    pub(crate) async fn only_worker(&self, name: &str) -> Result<String> {
        eventually(&format!("{name} has one worker"), LIMIT, async || {
            let lives = self.chronicle.of_service(name);
            let ready: Vec<&String> = lives.iter().filter(|(_, life)| life.is_ready).map(|(pod, _)| pod).collect();
            let is_so = lives.len() == 1 && ready.len() == 1;
            is_so.then(|| ready.first().map(|pod| (*pod).clone())).with_context(|| format!("{lives:?}"))
        })
        .await
    }

    /// A worker's pod.
    pub(crate) async fn pod(&self, name: &str) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.kube(), NAMESPACE);
        Ok(pods.get(name).await?)
    }

    /// Those that are found at a path of the API server's.
    pub(crate) async fn scrape(&self, path: &str) -> Result<BTreeMap<String, f64>> {
        let request = http::Request::get(path).body(Vec::new())?;
        let text = self.cluster.kube().request_text(request).await?;
        Ok(Metrics::parse(&text).series().map(|(of, value)| (of.to_owned(), value)).collect())
    }

    /// How many sessions a worker says that it has.
    pub(crate) async fn sessions_of(&self, pod: &str) -> Result<f64> {
        let metrics = pods::metrics(self.cluster, pods::address(&self.pod(pod).await?)?)?;
        metrics.sum("streamfleet_sessions_admitted").context("no such metric")
    }

    /// What of a service's figures the operators' metrics show, and that it is what its status says.
    pub(crate) async fn compare(&self, name: &str) -> Result<()> {
        eventually(&format!("metrics and status of {name} agree"), LIMIT, async || {
            let metrics = self.metrics("app.kubernetes.io/component=operator").await?;
            let status = self.status(name).await?;
            let of = format!("namespace=\"{NAMESPACE}\",service=\"{name}\"");
            let read = |metric: &str| metrics.get(metric).copied().with_context(|| format!("no {metric}"));
            for (metric, figure) in [
                (format!("streamfleet_service_workers{{{of},state=\"serving\"}}"), "readyReplicas"),
                (format!("streamfleet_service_workers{{{of},state=\"draining\"}}"), "drainingReplicas"),
                (format!("streamfleet_service_desired_workers{{{of}}}"), "desiredReplicas"),
                (format!("streamfleet_service_sessions{{{of}}}"), "activeSessions"),
                (format!("streamfleet_service_capacity{{{of}}}"), "capacity"),
            ] {
                let (shown, said) = (read(&metric)?, status[figure].as_f64().unwrap_or(-1.0));
                ensure!(shown == said, "{metric} is {shown}, {figure} is {said}");
            }
            // Whoever was drained and not put back has gone, and nobody else.
            let decided = |kind: &str| {
                let of = format!("streamfleet_operator_decisions_total{{{of},kind=\"{kind}\"}}");
                metrics.get(&of).copied().unwrap_or_default()
            };
            let (drained, undrained, removed) = (decided("drain"), decided("undrain"), decided("remove"));
            let draining = status["drainingReplicas"].as_f64().unwrap_or(-1.0);
            ensure!(drained - undrained - draining == removed, "{drained} - {undrained} - {draining} = {removed}");
            let gone = self.chronicle.of_service(name).values().filter(|life| life.was_drained()).count();
            ensure!(removed == gone as f64, "{removed} removed, and {gone} workers have gone");
            Ok(Some(()))
        })
        .await
    }

    /// Events of a service with this reason.
    pub(crate) fn events(&self, name: &str, reason: &str) -> Result<String> {
        fleet::events(self.cluster, NAMESPACE, name, reason)
    }
}

/// What makes the name stand for the load balancer's address: a Service of no pods, which the cluster's DNS answers as the world's would.
fn named(address: Ipv4Addr) -> Value {
    let port = json!({ "name": "media", "port": 3478, "protocol": "UDP" });
    let metadata = |labels: Value| json!({ "name": MEDIA, "namespace": HOME, "labels": labels });
    let items = json!([
        { "apiVersion": "v1", "kind": "Service", "metadata": metadata(json!({})),
          "spec": { "clusterIP": "None", "ports": [port] } },
        { "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
          "metadata": metadata(json!({ "kubernetes.io/service-name": MEDIA })),
          "addressType": "IPv4", "ports": [port], "endpoints": [{ "addresses": [address] }] },
    ]);
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// The keys of a fleet, as something that keeps secrets makes them.
fn keys() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": KEYS, "namespace": HOME },
        "stringData": {
            "secret": "of-the-fleet-of-the-tests", "admin-token": ADMIN,
            "relay-key": STANDARD.encode([7; 32]),
        },
    })
}
