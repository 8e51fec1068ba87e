//! What comes for a load balancer's address gets to the pods, and nothing else does.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use serde_json::json;
use streamfleet_kubernetes_tests::{Plan, addresses, fleet, on_cluster};
use streamfleet_tests::judged;
use tokio::runtime::Runtime;

use super::{ANSWER, Line, MACHINE, PORT, datagram, echo};

/// Charts are installed, and changed to other values.
#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_installed_and_changed() -> Result<()> {
    let _machine = MACHINE.lock().await;
    on_cluster("chart", Plan::of(1), async |cluster| {
        let chart = cluster.folder().join("chart");
        fs::create_dir_all(chart.join("templates"))?;
        fs::write(chart.join("Chart.yaml"), "{ apiVersion: v2, name: word, version: 0.1.0 }")?;
        let template =
            "{ apiVersion: v1, kind: ConfigMap, metadata: { name: word }, data: { word: {{ .Values.word }} } }";
        fs::write(chart.join("templates/word.yaml"), template)?;
        for word in ["first", "second"] {
            fleet::install(cluster, "word", "words", &chart, &json!({ "word": word }))?;
            let map = ["--namespace", "words", "get", "configmap", "word", "--output=jsonpath={.data.word}"];
            assert_eq!(cluster.kubectl(&map)?, word);
        }
        let wrong = fleet::install(cluster, "word", "words", &chart, &json!({ "word": { "a": "map" } }));
        assert!(wrong.is_err(), "what helm refuses is told");
        Ok(())
    })
    .await
}

/// So many flows that both of two pods have some, but for once in 10^12.
const FLOWS: usize = 40;

#[test]
fn flows_are_spread_and_clients_keep_their_address() -> Result<()> {
    let _machine = MACHINE.blocking_lock();
    // Each answer has its time, which says nothing while this machine stands still.
    judged(|| Runtime::new()?.block_on(flows()))
}

async fn flows() -> Result<()> {
    on_cluster("flows", Plan::of(2), async |cluster| {
        let public = echo(cluster).await?;
        let services: Api<Service> = Api::namespaced(cluster.kube(), "flows");
        let status = services.get("echo").await?.status.and_then(|status| status.load_balancer?.ingress);
        let told = status.into_iter().flatten().filter_map(|ingress| ingress.ip).collect::<Vec<_>>();
        assert_eq!(told, [public.to_string()]);

        let pods: Api<Pod> = Api::namespaced(cluster.kube(), "flows");
        let pods = pods.list(&Default::default()).await?.items;
        let names: BTreeSet<String> = pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        assert_eq!(names.len(), 2);

        let client = cluster.client();
        let lines: Vec<_> = (0..FLOWS).map(|_| Line::open(client, public)?.who()).collect::<Result<_>>()?;
        let datagrams =
            |address| (0..FLOWS).map(move |_| datagram(client, address, public)).collect::<Result<Vec<_>>>();
        let somebody = Ipv4Addr::new(198, 18, 7, 7);
        for (flows, from) in [
            (lines, addresses::CLIENT),
            (datagrams(addresses::CLIENT)?, addresses::CLIENT),
            (datagrams(somebody)?, somebody),
        ] {
            assert!(flows.iter().all(|(_, seen)| *seen == from), "{flows:?}");
            assert_eq!(flows.into_iter().map(|(pod, _)| pod).collect::<BTreeSet<_>>(), names);
        }

        // One flow stays with one pod.
        let mut line = Line::open(client, public)?;
        let first = line.who()?;
        for _ in 0..FLOWS {
            assert_eq!(line.who()?, first);
        }

        // Names are resolved in pods, and what does not exist is said not to.
        let resolved = line.ask("resolve echo.flows.svc.cluster.local:7000")?;
        assert!(resolved.starts_with("Ok([10.96.") && resolved.ends_with(":7000])"), "{resolved}");
        let unknown = line.ask("resolve nobody.example:7000")?;
        assert!(unknown.starts_with("Err(") && unknown.contains("not known"), "{unknown}");

        // Clients have no way to pods and to addresses within the cluster, nor to ports that no Service has.
        let pod = pods.iter().find_map(|pod| pod.status.as_ref()?.pod_ip.clone()).unwrap_or_default();
        let inner = resolved.trim_start_matches("Ok([").split(':').next().unwrap_or_default().to_owned();
        for (address, port) in [(pod, PORT), (inner, PORT), (public.to_string(), PORT + 1)] {
            let connected = client.connect(SocketAddr::new(address.parse()?, port), ANSWER);
            assert!(connected.is_err(), "{address}:{port}");
        }
        Ok(())
    })
    .await
}
