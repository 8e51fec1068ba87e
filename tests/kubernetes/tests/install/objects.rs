//! StreamServices and the objects that are made of them: in conflict, foreign, changed by hand, refused.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use serde_json::json;
use streamfleet_kubernetes_tests::fleet::{await_condition, await_status, events, stream_services};
use streamfleet_kubernetes_tests::{addresses, eventually};

use super::LIMIT;
use super::site::{HOME, Site};

/// Nobody has one here: whoever asks is refused at once.
const NO_REGISTRY: &str = "127.0.0.1:5000/none:1";
/// Of a webhook that never answers, where the API server is.
const HANGS: &str = "127.0.0.1:9443";
/// Of one that routers ask: it takes connections, and says nothing.
const SILENT: (Ipv4Addr, u16) = (addresses::CONTROL, 9444);
/// What it costs a call to wait for that, and what else a call takes on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);

/// Two StreamServices with one path.
pub(crate) async fn of_two_with_a_path(site: &Site<'_>) -> Result<()> {
    let objects = stream_services(site.cluster, "sales");
    site.stream_service("sales", "second", &json!({ "path": "/voice/echo" }))?;
    let said = await_condition(&objects, "second", ("Ready", "False"), LIMIT).await?;
    ensure!(said == "PathConflict: /voice/echo is served by voice/echo, which was there before", "{said}");
    let heard = site.call("/voice/echo", &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "the older goes on: {heard}");
    site.patch("sales", "streamservice/second", &json!({ "spec": { "path": "/second" } }))?;
    await_condition(&objects, "second", ("Ready", "True"), LIMIT).await?;
    let heard = site.call("/second", &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "{heard}");
    site.delete("sales", &["second"]).await
}

/// An object of somebody else's has the name.
pub(crate) async fn foreign(site: &Site<'_>) -> Result<()> {
    let services: Api<Service> = Api::namespaced(site.cluster.kube(), "sales");
    site.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "guest-worker", "namespace": "sales" },
        "spec": { "selector": { "app": "somebody" }, "ports": [{ "port": 80 }] },
    }))?;
    let before = services.get("guest-worker").await?;
    site.stream_service("sales", "guest", &json!({}))?;
    let objects = stream_services(site.cluster, "sales");
    let said = await_condition(&objects, "guest", ("Degraded", "True"), LIMIT).await?;
    ensure!(said.starts_with("ForeignObject: ") && said.contains("Service guest-worker"), "{said}");
    await_condition(&objects, "guest", ("Ready", "True"), LIMIT).await?;
    let after = services.get("guest-worker").await?;
    ensure!((&after.spec, &after.metadata.labels) == (&before.spec, &before.metadata.labels), "{after:?}");
    ensure!(after.metadata.owner_references.is_none(), "{after:?}");
    site.cluster.kubectl(&["--namespace", "sales", "delete", "service", "guest-worker"])?;
    let said = await_condition(&objects, "guest", ("Degraded", "False"), LIMIT).await?;
    ensure!(
        services.get("guest-worker").await?.metadata.owner_references.is_some(),
        "it is made once it can be: {said}"
    );
    site.delete("sales", &["guest"]).await
}

/// What the operator makes is as it has to be, whoever changes it.
pub(crate) async fn by_hand(site: &Site<'_>) -> Result<()> {
    let disruption = json!({ "spec": { "maxUnavailable": 1 } });
    let services: Api<Service> = Api::namespaced(site.cluster.kube(), HOME);
    let before = services.get("echo-worker").await?.metadata.uid;
    site.patch(HOME, "poddisruptionbudget/echo-worker", &disruption)?;
    site.patch(HOME, "deployment/echo-worker", &json!({ "spec": { "replicas": 0 } }))?;
    site.cluster.kubectl(&["--namespace", HOME, "delete", "service", "echo-worker"])?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(site.cluster.kube(), HOME);
    let deployments: Api<Deployment> = Api::namespaced(site.cluster.kube(), HOME);
    eventually("all of it is put back", LIMIT, async || {
        let budget = budgets.get("echo-worker").await?.spec.and_then(|spec| spec.max_unavailable);
        let replicas = deployments.get("echo-worker").await?.spec.and_then(|spec| spec.replicas);
        let service = services.get("echo-worker").await?.metadata.uid;
        let is_back = budget == Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(0))
            && replicas == Some(1)
            && service != before;
        Ok(is_back.then_some(()))
    })
    .await?;
    let objects = stream_services(site.cluster, HOME);
    await_status(&objects, "echo", "replicas", LIMIT, |count| count == 1).await?;
    await_condition(&objects, "echo", ("Ready", "True"), LIMIT).await.map(drop)
}

/// No node can fetch it, until it is another one.
pub(crate) async fn without_image(site: &Site<'_>) -> Result<()> {
    let objects = stream_services(site.cluster, "sales");
    site.stream_service("sales", "absent", &json!({ "workers": { "image": NO_REGISTRY } }))?;
    let said = await_condition(&objects, "absent", ("Degraded", "True"), LIMIT).await?;
    let is_said = said.starts_with("ErrImagePull: ") || said.starts_with("ImagePullBackOff: ");
    ensure!(is_said && said.contains("a worker does not start") && said.contains(NO_REGISTRY), "{said}");
    await_condition(&objects, "absent", ("Ready", "False"), LIMIT).await?;
    site.patch(
        "sales",
        "streamservice/absent",
        &json!({ "spec": { "workers": { "image": "streamfleet-worker:test" } } }),
    )?;
    await_condition(&objects, "absent", ("Ready", "True"), LIMIT).await?;
    await_condition(&objects, "absent", ("Degraded", "False"), LIMIT).await?;
    site.delete("sales", &["absent"]).await
}

/// The namespace may have one pod.
pub(crate) async fn over_quota(site: &Site<'_>) -> Result<()> {
    let quota = |pods: &str| {
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "pods", "namespace": "tight" },
            "spec": { "hard": { "pods": pods } },
        })
    };
    site.cluster.apply(&quota("1"))?;
    let objects = stream_services(site.cluster, "tight");
    site.stream_service("tight", "many", &json!({ "autoscaling": { "minReplicas": 2 } }))?;
    let said = await_condition(&objects, "many", ("Degraded", "True"), LIMIT).await?;
    ensure!(said.starts_with("FailedCreate: ") && said.contains("exceeded quota: pods"), "{said}");
    eventually("people are warned", LIMIT, async || {
        let said = events(site.cluster, "tight", "many", "FailedCreate")?;
        let warned = said.lines().any(|line| line.starts_with("Warning ") && line.contains("exceeded quota: pods"));
        Ok(warned.then_some(()))
    })
    .await?;
    await_condition(&objects, "many", ("Ready", "True"), LIMIT).await?;
    let heard = site.call("/tight/many", &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "what could be made takes calls: {heard}");
    site.delete("tight", &["many"]).await
}

/// Whoever makes a ConfigMap in the namespace waits for nothing.
pub(crate) async fn behind_webhook(site: &Site<'_>) -> Result<()> {
    let _hangs = site.cluster.control().in_network(|| TcpListener::bind(HANGS))?;
    let rule =
        json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] });
    site.cluster.apply(&json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "hangs" },
        "webhooks": [{
            "name": "hangs.example.com", "clientConfig": { "url": format!("https://{HANGS}/"), "caBundle": site.authority()? },
            "timeoutSeconds": 1, "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "guarded" } }, "rules": [rule],
        }],
    }))?;
    // The API server learns of it in its own time.
    eventually("the webhook is asked", LIMIT, async || {
        let create = ["--namespace", "guarded", "create", "configmap", "probe", "--dry-run=server"];
        Ok(site.cluster.kubectl(&create).is_err().then_some(()))
    })
    .await?;
    let objects = stream_services(site.cluster, "guarded");
    site.stream_service("guarded", "waits", &json!({}))?;
    let said = await_condition(&objects, "waits", ("Degraded", "True"), LIMIT).await?;
    ensure!(said.starts_with("ObjectRefused: ") && said.contains("hangs.example.com"), "{said}");
    let heard = site.call("/voice/echo", &["--wait", "20"])?;
    ensure!(heard["verdict"] == "heard", "others go on: {heard}");
    site.cluster.kubectl(&["delete", "validatingwebhookconfiguration", "hangs"])?;
    await_condition(&objects, "waits", ("Ready", "True"), LIMIT).await?;
    site.delete("guarded", &["waits"]).await
}

/// Whoever asks whether a caller may come gets no answer: the service says what that means, and other services have none of it.
pub(crate) async fn behind_silence(site: &Site<'_>) -> Result<()> {
    let _silent = site.cluster.control().in_network(|| TcpListener::bind(SILENT))?;
    let objects = stream_services(site.cluster, "sales");
    let url = format!("http://{}:{}/", SILENT.0, SILENT.1);
    for (name, meaning) in [("strict", "Refuse"), ("lenient", "Admit")] {
        let webhook = json!({ "url": url, "timeoutMs": PATIENCE.as_millis() as u64, "onFailure": meaning });
        site.stream_service("sales", name, &json!({ "path": format!("/{name}"), "identity": { "webhook": webhook } }))?;
        await_condition(&objects, name, ("Ready", "True"), LIMIT).await?;
    }
    let began = Instant::now();
    let said = site.call("/strict", &[]).map_err(|error| format!("{error:#}"));
    ensure!(said.as_ref().is_err_and(|said| said.contains("forbidden")), "{said:?}");
    ensure!(began.elapsed() >= PATIENCE, "it was asked: {:?}", began.elapsed());
    let heard = site.call("/lenient", &[])?;
    ensure!(heard["verdict"] == "heard", "{heard}");
    let answered = heard["setup_ms"]["answered"].as_f64().unwrap_or_default();
    ensure!(answered >= PATIENCE.as_millis() as f64, "it was asked: {answered} ms");
    site.delete("sales", &["strict", "lenient"]).await
}
