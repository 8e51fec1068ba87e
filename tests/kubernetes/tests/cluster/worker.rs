//! The product's worker in a pod, called by a real Chromium from outside, over https and through the load balancer.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use streamfleet_kubernetes_tests::fleet::{Calls, Load};
use streamfleet_kubernetes_tests::{Authority, Plan, Product, eventually, on_cluster};
use streamfleet_tests::Script;

use super::{LIMIT, MACHINE, hardened, namespace};

/// What people call it by.
const HOST: &str = "voice.example";

#[tokio::test(flavor = "multi_thread")]
async fn a_hardened_worker_is_called_by_a_browser() -> Result<()> {
    let _machine = MACHINE.lock().await;
    on_cluster("browser", Plan::of(2), async |cluster| {
        let image = Product::Worker.image()?;
        let started = Instant::now();
        cluster.load(&image)?;
        println!("{} MB on two nodes after {} ms", image.bytes()? / 1_000_000, started.elapsed().as_millis());
        let ports = json!([{ "name": "https", "port": 443, "targetPort": 8081 }, { "name": "media", "port": 5000, "protocol": "UDP" }]);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "worker", "namespace": "voice" },
            "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": { "app": "worker" }, "ports": ports },
        });
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [namespace("voice"), service] }))?;
        let public = eventually("an address", LIMIT, async || Ok(cluster.balancer().address("voice", "worker"))).await?;
        let signed = Authority::new()?.sign(&[HOST])?;
        cluster.name_outside(HOST, public)?;

        let config = json!({
            "listen": "0.0.0.0:8081", "tls": { "certificate": "/tls/tls.crt", "key": "/tls/tls.key" },
            "media": { "udp": "0.0.0.0:5000", "advertise": [public], "loops": 1 },
            "admin": { "listen": "0.0.0.0:9090" },
            "services": [{ "name": "echo", "path": "/echo", "handler": { "name": "echo" } }],
        });
        let probe = |path: &str| json!({ "httpGet": { "path": path, "port": 9090 }, "periodSeconds": 1 });
        let container = json!({
            "name": "worker", "image": image.name, "imagePullPolicy": "Never", "securityContext": hardened(),
            "args": ["--config", "/config/worker.yaml"],
            "readinessProbe": probe("/readyz"), "livenessProbe": probe("/healthz"),
            "volumeMounts": [{ "name": "config", "mountPath": "/config" }, { "name": "tls", "mountPath": "/tls" }],
        });
        let volumes = json!([
            { "name": "config", "configMap": { "name": "worker" } }, { "name": "tls", "secret": { "secretName": "worker" } },
        ]);
        let metadata = || json!({ "name": "worker", "namespace": "voice" });
        let pod = json!({ "terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes });
        let tls = json!({ "tls.crt": signed.certificate, "tls.key": signed.key });
        let items = json!([
            { "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(), "data": { "worker.yaml": config.to_string() } },
            { "apiVersion": "v1", "kind": "Secret", "metadata": metadata(), "type": "kubernetes.io/tls", "stringData": tls },
            { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(), "spec": {
                "selector": { "matchLabels": { "app": "worker" } },
                "template": { "metadata": { "labels": { "app": "worker" } }, "spec": pod } } },
        ]);
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
        let applied = Instant::now();
        cluster.await_available("voice", "worker", LIMIT).await?;
        println!("available {:.1} s after it was applied", applied.elapsed().as_secs_f32());
        eventually("a node is healthy", LIMIT, async || {
            Ok((cluster.balancer().healthy("voice", "worker").len() == 1).then_some(()))
        })
        .await?;

        let url = format!("https://{HOST}/echo");
        let load = Load { url: &url, sessions: 5, ramp: 20, seconds: 3, flags: &[] };
        let report = Calls::start(cluster, load)?.finish(LIMIT).await?;
        println!("{}", report.table());
        assert_eq!((report.sessions.ok, report.each.len()), (5, 5), "{report:?}");
        assert!(report.each.iter().all(|each| each.back > 0), "{report:?}");
        let mut goes_on = Calls::start(cluster, Load { seconds: 600, ..load })?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(goes_on.are_going_on()?);
        assert_eq!(goes_on.stop().await?.worst().1, 0);

        let options = json!({
            "url": format!("https://{HOST}/echo"), "id": "b0", "shape": "complete", "tones": [440],
            "trusted_key": signed.fingerprint,
        });
        let mut script = Script::browser_by("call", &options, |command| cluster.client().spawn(command))?;
        let connected = script.expect("connected", LIMIT)?;
        let tone = script.expect("tone", LIMIT)?;
        assert!((tone["received"]["peak_hz"].as_f64().unwrap_or_default() - 440.0).abs() < 8.0, "{tone}");
        println!("connected {} ms after the offer, {tone}", connected["connected_ms"]);
        script.expect("done", LIMIT)?;
        script.finish(LIMIT)
    })
    .await
}
