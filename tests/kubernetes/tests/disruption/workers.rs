//! The installation that all scenarios share, and its workers as the API server and they themselves tell of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::fleet::{
    await_condition, chart, images, install, load_product, redis_command, stream_services,
};
use streamfleet_kubernetes_tests::{Cluster, Image, Product, built, eventually, pods, root};

use super::LIMIT;

pub(crate) const NAMESPACE: &str = "voice";
pub(crate) const SERVICE: &str = "echo";
/// The image that workers get in between. It has the same program.
pub(crate) const NEXT_IMAGE: &str = "streamfleet-worker:next";
/// As many as there are, unless a scenario has more for a while.
pub(crate) const WORKERS: usize = 2;
/// The node that is drained, and dies. Redis and the name server are on the other one: what becomes of calls without them is a scenario of its own.
pub(crate) const GOES: usize = 1;

/// The installation.
pub(crate) struct Fleet<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) url: String,
}

/// A worker's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) node: String,
    address: Ipv4Addr,
    pub(crate) image: String,
    pub(crate) ready: bool,
    /// It was told to end.
    pub(crate) ending: bool,
    pub(crate) draining: bool,
}

impl Worker {
    fn of(pod: Pod) -> Option<Self> {
        Some(Self {
            draining: pods::label(&pod, "streamfleet.dev/state") == Some("draining"),
            address: pods::address(&pod).ok()?,
            ready: pods::is_ready(&pod),
            ending: pods::is_ending(&pod),
            name: pod.metadata.name?,
            image: pod.spec.as_ref()?.containers.first()?.image.clone()?,
            node: pod.spec?.node_name?,
        })
    }

    /// Whether it is ready for calls.
    pub(crate) fn serves(&self) -> bool {
        self.ready && !self.ending && !self.draining
    }
}

impl<'a> Fleet<'a> {
    /// Installs the charts, and a service with two workers whose number nobody changes: what scales is another suite's.
    pub(crate) async fn install(cluster: &'a Cluster) -> Result<Self> {
        load_product(cluster)?;
        cluster.load(&Image::of(NEXT_IMAGE, &built(Product::Worker.name())?)?)?;
        // Without helm: what `kubectl apply` notes of it has to fit into an annotation.
        cluster.kubectl(&["apply", "--filename", &root().join("crds").display().to_string()])?;
        install(cluster, "streamfleet", NAMESPACE, &chart("streamfleet"), &values(cluster))?;
        let service = json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
            "metadata": { "name": SERVICE, "namespace": NAMESPACE },
            "spec": {
                "path": "/echo", "handler": { "name": "echo" }, "limits": { "timeLimitSeconds": 900 },
                "workers": { "sessionsPerWorker": 8 }, "routing": { "packing": "Spread" },
                "autoscaling": {
                    "mode": "External", "replicas": WORKERS, "maxReplicas": 4,
                    "scaleDown": { "stabilizationSeconds": 5 },
                },
            },
        });
        cluster.apply(&service)?;
        let public =
            eventually("an address", LIMIT, async || Ok(cluster.balancer().address(NAMESPACE, "streamfleet-router")))
                .await?;
        let fleet = Self { cluster, url: format!("http://{public}/echo") };
        await_condition(&fleet.services(), SERVICE, ("Ready", "True"), LIMIT).await?;
        fleet.settled().await?;
        fleet.call("the first call")?;
        Ok(fleet)
    }

    pub(crate) fn services(&self) -> Api<DynamicObject> {
        stream_services(self.cluster, NAMESPACE)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", NAMESPACE], arguments].concat())
    }

    /// Its pods that have an address.
    pub(crate) async fn workers(&self) -> Result<Vec<Worker>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.kube(), NAMESPACE);
        let selected = ListParams::default().labels(&format!("streamfleet.dev/service={SERVICE}"));
        Ok(pods.list(&selected).await?.into_iter().filter_map(Worker::of).collect())
    }

    /// Waits until its workers are as wanted.
    pub(crate) async fn await_workers(&self, what: &str, wanted: impl Fn(&[Worker]) -> bool) -> Result<Vec<Worker>> {
        eventually(what, LIMIT, async || {
            let workers = self.workers().await?;
            if wanted(&workers) { Ok(Some(workers)) } else { Err(anyhow!("{workers:#?}")) }
        })
        .await
    }

    /// Waits until there are two workers, one on each node, and no others. Where both are on one, one of them is taken away.
    pub(crate) async fn settled(&self) -> Result<Vec<Worker>> {
        let calm = |workers: &[Worker]| workers.len() == WORKERS && workers.iter().all(Worker::serves);
        for _ in 0..3 {
            let workers = self.await_workers("two workers and no others", calm).await?;
            if workers[0].node != workers[1].node {
                return Ok(workers);
            }
            self.kubectl(&["delete", "pod", &workers[0].name])?;
        }
        Err(anyhow!("both workers are on one node each time"))
    }

    /// The sessions of these workers, as they say themselves: without the API server.
    pub(crate) fn sessions(&self, workers: &[Worker]) -> Result<BTreeMap<String, u64>> {
        let said = |worker: &Worker| Ok((worker.name.clone(), self.metric(worker, "streamfleet_sessions_admitted")?));
        workers.iter().map(said).collect()
    }

    /// One of a worker's metrics.
    pub(crate) fn metric(&self, worker: &Worker, name: &str) -> Result<u64> {
        let metrics = pods::metrics(self.cluster, worker.address)?;
        let value = metrics.sum(name).with_context(|| format!("{} has no {name}: {}", worker.name, metrics.names()))?;
        Ok(value as u64)
    }

    /// The WebSockets that go through routers of this node.
    pub(crate) async fn sockets_through(&self, node: &str) -> Result<u64> {
        let all: Api<Pod> = Api::namespaced(self.cluster.kube(), NAMESPACE);
        let routers = all.list(&ListParams::default().labels("app.kubernetes.io/component=router")).await?;
        let there = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        let mut sockets = 0.0;
        for router in routers.iter().filter(there).filter(|pod| pods::is_ready(pod)) {
            let metrics = pods::metrics(self.cluster, pods::address(router)?)?;
            sockets += metrics.sum("streamfleet_router_sockets").unwrap_or_default();
        }
        Ok(sockets as u64)
    }

    /// Waits until clients come by each node: a router whose node was away for long has been replaced on another one, and stays there.
    pub(crate) async fn await_routers_apart(&self) -> Result<()> {
        let all: Api<Pod> = Api::namespaced(self.cluster.kube(), NAMESPACE);
        let routers = ListParams::default().labels("app.kubernetes.io/component=router");
        let everywhere: Vec<usize> = (0..self.cluster.nodes().len()).collect();
        for _ in 0..3 {
            let there = all.list(&routers).await?.items;
            let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let nodes: BTreeSet<String> = there.iter().filter(|pod| !pods::is_ending(pod)).filter_map(node).collect();
            if nodes.len() == everywhere.len() {
                return eventually("all nodes are healthy", LIMIT, async || {
                    let healthy = self.cluster.balancer().healthy(NAMESPACE, "streamfleet-router");
                    Ok((healthy == everywhere).then_some(()))
                })
                .await;
            }
            let name = there.first().and_then(|pod| pod.metadata.name.clone()).context("no router")?;
            self.kubectl(&["delete", "pod", &name])?;
            self.scale("router", everywhere.len()).await?;
        }
        Err(anyhow!("all routers are on one node each time"))
    }

    /// A new call of two seconds, whose tone has to come back.
    pub(crate) fn call(&self, when: &str) -> Result<()> {
        let mut command = Command::new(built("streamfleet")?);
        command.args(["call", &self.url, "--wait", "60", "--seconds", "2"]);
        self.cluster.client().output(&mut command).with_context(|| format!("a call: {when}"))?;
        Ok(())
    }

    /// The pods of a part of the installation.
    pub(crate) fn pods_of(&self, component: &str) -> Result<Vec<String>> {
        let label = format!("--selector=app.kubernetes.io/component={component}");
        let said = self.kubectl(&["get", "pods", &label, "--output=name"])?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// How often containers of a part have been started again.
    pub(crate) fn restarts_of(&self, component: &str) -> Result<usize> {
        Ok(self.containers_of::<usize>(component, "restartCount")?.into_iter().sum())
    }

    /// Whether containers of a part are ready.
    pub(crate) fn ready_of(&self, component: &str) -> Result<Vec<bool>> {
        self.containers_of(component, "ready")
    }

    fn containers_of<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        component: &str,
        field: &str,
    ) -> Result<Vec<T>> {
        let label = format!("--selector=app.kubernetes.io/component={component}");
        let path = format!("--output=jsonpath={{.items[*].status.containerStatuses[*].{field}}}");
        let said = self.kubectl(&["get", "pods", &label, &path])?;
        said.split_whitespace().map(|word| Ok(word.parse()?)).collect()
    }

    /// Sets the number of a part's pods, and waits until they are there or all gone.
    pub(crate) async fn scale(&self, component: &str, count: usize) -> Result<()> {
        let deployment = format!("streamfleet-{component}");
        self.kubectl(&["scale", "deployment", &deployment, &format!("--replicas={count}")])?;
        self.cluster.await_available(NAMESPACE, &deployment, LIMIT).await?;
        eventually(&format!("{count} pods of {component}"), LIMIT, async || {
            Ok((self.pods_of(component)?.len() == count).then_some(()))
        })
        .await
    }

    /// Changes the service.
    pub(crate) fn patch(&self, spec: &Value) -> Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch", "streamservice", SERVICE, "--type=merge", "--patch", &patch])?;
        Ok(())
    }

    /// Whether the service takes no new calls: a caller is told so. Whoever cannot call for another reason is an error.
    pub(crate) fn refused(&self) -> Result<bool> {
        let mut command = Command::new(built("streamfleet")?);
        command.args(["call", &self.url, "--seconds", "1"]);
        match self.cluster.client().output(&mut command) {
            Ok(_) => Ok(false),
            Err(error) if format!("{error:#}").contains("the server refused the call: no_capacity") => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Routers that go soon, on a load balancer that notices within a second; operators on both nodes, Redis on the one that stays.
fn values(cluster: &Cluster) -> Value {
    let stays = json!({ "kubernetes.io/hostname": cluster.nodes()[0].name() });
    let apart = json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": { "matchLabels": { "app.kubernetes.io/component": "operator" } },
        },
    }] } });
    json!({
        "images": images(),
        // Users of services are forgotten with everything else.
        "redis": { "serviceUsers": true, "bundled": { "command": redis_command(), "nodeSelector": stays } },
        "operator": { "affinity": apart },
        "router": { "minReadySeconds": 2, "drain": { "preStopSeconds": 4, "noticeSeconds": 3, "graceSeconds": 10 } },
    })
}
