//! The installation that all scenarios share.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::{Authority, Cluster, Signed, Talk, built, eventually, fleet, helm, pods};

use super::LIMIT;

/// What people call it by.
pub(crate) const HOST: &str = "voice.example";
/// The release, and where it is.
pub(crate) const RELEASE: &str = "streamfleet";
/// The chart of the resource, and its release.
pub(crate) const RESOURCE: &str = "streamfleet-crds";
/// The releases' namespace.
pub(crate) const HOME: &str = "voice";
/// The Secret with the routers' certificate.
pub(crate) const CERTIFICATE: &str = "voice-tls";
/// All namespaces whose StreamServices are run.
const NAMESPACES: [&str; 4] = [HOME, "sales", "tight", "guarded"];

/// A cluster with the product.
pub(crate) struct Site<'a> {
    /// The cluster.
    pub(crate) cluster: &'a Cluster,
    /// What the routers have at first.
    pub(crate) signed: Signed,
    /// What they have later, of the same authority.
    pub(crate) renewed: Signed,
    /// What clients trust.
    roots: PathBuf,
}

/// `helm test`, which goes on beside other scenarios.
pub(crate) struct HelmTest {
    child: Child,
    log: PathBuf,
}

impl<'a> Site<'a> {
    /// Installs it as the docs say, with a certificate of an authority that clients trust.
    pub(crate) async fn install(cluster: &'a Cluster) -> Result<Self> {
        fleet::load_product(cluster)?;

        let authority = Authority::new()?;
        let (signed, renewed) = (authority.sign(&[HOST])?, authority.sign(&[HOST])?);
        let roots = cluster.folder().join("roots.pem");
        fs::write(&roots, authority.certificate())?;
        let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
        let namespace =
            |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
        let mut items = NAMESPACES.map(namespace).to_vec();
        items.push(certificate(&signed));
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        fleet::install(cluster, RESOURCE, HOME, &fleet::chart(RESOURCE), &json!({}))?;
        let notes = fleet::install(cluster, RELEASE, HOME, &fleet::chart("streamfleet"), &values())?;
        ensure!(notes.contains("helm test streamfleet --namespace voice"), "the next command is told: {notes}");

        let address = eventually("an address of the routers", LIMIT, async || {
            Ok(cluster.balancer().address(HOME, "streamfleet-router"))
        });
        cluster.name_outside(HOST, address.await?)?;
        // Two routers, and one on each node.
        let all: Vec<usize> = (0..cluster.plan().nodes).collect();
        eventually("routers are healthy", LIMIT, async || {
            Ok((cluster.balancer().healthy(HOME, "streamfleet-router") == all).then_some(()))
        })
        .await?;
        Ok(Self { cluster, signed, renewed, roots })
    }

    /// Lets `helm test` begin.
    pub(crate) fn begin_helm_test(&self) -> Result<HelmTest> {
        let log = self.cluster.folder().join("helm-test.log");
        let output = fs::File::create(&log)?;
        let arguments = ["test", RELEASE, "--namespace", HOME, "--timeout", "180s"];
        let mut command = helm(self.cluster.programs(), self.cluster.folder(), &arguments);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(HelmTest { child: self.cluster.control().spawn(&mut command)?, log })
    }

    /// The command of a client outside, which trusts the authority.
    pub(crate) fn client(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(built("streamfleet")?);
        command.args(arguments).env("SSL_CERT_FILE", &self.roots);
        Ok(command)
    }

    /// A call of two seconds from outside: its report, or what its refusal says.
    pub(crate) fn call(&self, path: &str, flags: &[&str]) -> Result<Value> {
        let url = format!("https://{HOST}{path}");
        let mut command = self.client(&["call", &url, "--json", "--seconds", "2"])?;
        let said = self.cluster.client().output(command.args(flags))?;
        serde_json::from_str(&said).with_context(|| said.clone())
    }

    /// A call that goes on until it is hung up.
    pub(crate) fn talk(&self, path: &str, flags: &[&str]) -> Result<Talk> {
        Talk::begin(self.cluster, &format!("https://{HOST}{path}"), flags, Some(&self.roots))
    }

    /// What a router says of a session.
    pub(crate) async fn session(&self, path: &str, id: &str) -> Result<Value> {
        let url = format!("https://{HOST}{path}");
        let mut command = self.client(&["sessions", "show", &url, id, "--json"])?;
        let said = self.cluster.client().output(command.env("STREAMFLEET_ADMIN_TOKEN", self.token().await?))?;
        serde_json::from_str(&said).with_context(|| said.clone())
    }

    /// `kubectl apply` of a StreamService.
    pub(crate) fn stream_service(&self, namespace: &str, name: &str, spec: &Value) -> Result<()> {
        let mut object = json!({
            "apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService",
            "metadata": { "name": name, "namespace": namespace },
            "spec": { "handler": { "name": "echo-frames" }, "limits": { "timeLimitSeconds": 600 } },
        });
        for (key, value) in spec.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        self.cluster.apply(&object)
    }

    /// Deletes StreamServices, and waits until they are gone, and their workers with them.
    pub(crate) async fn delete(&self, namespace: &str, names: &[&str]) -> Result<()> {
        let delete = ["--namespace", namespace, "delete", "streamservices", "--timeout=90s"];
        self.cluster.kubectl(&[delete.as_slice(), names].concat())?;
        eventually("their pods are gone", LIMIT, async || {
            let there = self.pods(namespace, "app.kubernetes.io/name=streamfleet-worker").await?;
            let label = |pod| pods::label(pod, "streamfleet.dev/service");
            Ok((!there.iter().filter_map(label).any(|of| names.contains(&of))).then_some(()))
        })
        .await
    }

    /// `kubectl patch` of an object, such as `streamservice/echo`.
    pub(crate) fn patch(&self, namespace: &str, what: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        self.cluster.kubectl(&["--namespace", namespace, "patch", what, "--type=merge", "--patch", &patch]).map(drop)
    }

    /// Pods with a label.
    pub(crate) async fn pods(&self, namespace: &str, label: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.kube(), namespace);
        Ok(pods.list(&ListParams::default().labels(label)).await?.items)
    }

    /// The routers that are not going.
    pub(crate) async fn routers(&self) -> Result<Vec<Ipv4Addr>> {
        let routers = self.pods(HOME, "app.kubernetes.io/component=router").await?;
        routers.iter().filter(|pod| !pods::is_ending(pod)).map(pods::address).collect()
    }

    /// The token that may do everything to sessions.
    pub(crate) async fn token(&self) -> Result<String> {
        self.secret("admin-token").await
    }

    /// What a key of the installation's Secret says.
    pub(crate) async fn secret(&self, key: &str) -> Result<String> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.kube(), HOME);
        let secret = secrets.get("streamfleet-fleet").await?;
        let said = secret.data.and_then(|mut data| data.remove(key)).with_context(|| format!("no {key}"))?;
        Ok(String::from_utf8(said.0)?)
    }

    /// What the API server has to have as authority of a webhook.
    pub(crate) fn authority(&self) -> Result<String> {
        Ok(STANDARD.encode(fs::read(&self.roots)?))
    }
}

/// The Secret that routers have this certificate from.
pub(crate) fn certificate(signed: &Signed) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": CERTIFICATE, "namespace": HOME },
        "stringData": { "tls.crt": signed.certificate, "tls.key": signed.key },
    })
}

/// The values of the release.
pub(crate) fn values() -> Value {
    let resources = json!({ "requests": { "cpu": "20m", "memory": "32Mi" } });
    let mut images = fleet::images();
    images["pullPolicy"] = json!("Never");
    json!({
        "images": images,
        "scope": { "namespaces": NAMESPACES },
        "publicUrl": format!("https://{HOST}"),
        "redis": { "bundled": { "command": fleet::redis_command(), "resources": resources } },
        "operator": { "resources": resources },
        "router": {
            "minReadySeconds": 3, "drain": { "preStopSeconds": 3, "noticeSeconds": 2, "graceSeconds": 10 },
            "tls": { "secretName": CERTIFICATE }, "relay": { "workers": ["10.244.0.0/16"] },
        },
        "test": { "seconds": 2, "resources": resources },
    })
}

impl HelmTest {
    /// Waits until it is over: a call was made, and heard.
    pub(crate) async fn passed(mut self) -> Result<()> {
        let status = eventually("helm test is over", LIMIT, async || Ok(self.child.try_wait()?)).await?;
        let said = fs::read_to_string(Path::new(&self.log))?;
        ensure!(status.success() && said.contains("audio came back"), "{status}: {said}");
        Ok(())
    }
}

impl Drop for HelmTest {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
