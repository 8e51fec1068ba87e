//! Parts of the cluster that die and come back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use streamfleet_kubernetes_tests::{Cluster, Plan, eventually, on_cluster, pods};
use streamfleet_tests::judged;

use tokio::runtime::Runtime;

use super::{LIMIT, Line, MACHINE, datagram, echo};

/// A node that answers nothing is dropped within this: three probes, and what is between them.
const DROPPED: Duration = Duration::from_secs(3);

/// The names of the pods that are Ready, with their nodes.
async fn ready(cluster: &Cluster) -> Result<Vec<(String, String)>> {
    let all: Api<Pod> = Api::namespaced(cluster.kube(), "flows");
    let listed = all.list(&ListParams::default().labels("app=echo")).await?;
    let serves = |pod: &&Pod| pods::is_ready(pod) && !pods::is_ending(pod);
    let named = |pod: &Pod| Some((pod.metadata.name.clone()?, pod.spec.as_ref()?.node_name.clone()?));
    Ok(listed.iter().filter(serves).filter_map(named).collect())
}

#[test]
fn a_dead_node_is_dropped_and_its_pods_are_replaced() -> Result<()> {
    let _machine = MACHINE.blocking_lock();
    // How soon it is dropped says nothing while this machine stands still.
    judged(|| Runtime::new()?.block_on(dead_node()))
}

async fn dead_node() -> Result<()> {
    on_cluster("dead-node", Plan::of(2), async |cluster| {
        let public = echo(cluster).await?;
        let pods = ready(cluster).await?;
        let survivor = pods.iter().find(|(_, node)| node == "node1").context("a pod on each node")?.0.clone();
        let mut line = loop {
            let mut line = Line::open(cluster.client(), public)?;
            if line.who()?.0 == survivor {
                break line;
            }
        };

        let died = Instant::now();
        cluster.switch_off(1)?;
        eventually("the node is dropped", DROPPED, async || {
            Ok((cluster.balancer().healthy("flows", "echo") == [0]).then_some(()))
        })
        .await?;
        println!("dropped {} ms after its death", died.elapsed().as_millis());
        // Those of the node that lives do not notice, and new flows are all answered.
        assert_eq!(line.who()?.0, survivor);
        for _ in 0..20 {
            assert_eq!(Line::open(cluster.client(), public)?.who()?.0, survivor);
            assert_eq!(
                datagram(cluster.client(), streamfleet_kubernetes_tests::addresses::CLIENT, public)?.0,
                survivor
            );
        }
        eventually("its pod is replaced", LIMIT, async || {
            let ready = ready(cluster).await?;
            Ok((ready.len() == 2 && ready.iter().all(|(_, node)| node == "node1")).then_some(()))
        })
        .await?;
        println!(
            "replaced {:.1} s after it, {:?} of which are the grace",
            died.elapsed().as_secs_f32(),
            cluster.plan().timing.node_grace
        );

        let returned = Instant::now();
        cluster.bring_back(1)?;
        cluster.await_nodes(2).await?;
        println!("Ready again {:.1} s after it was switched on", returned.elapsed().as_secs_f32());
        // What was on its disk is: the pod is started there without the image being loaded again.
        for (pod, _) in ready(cluster).await?.iter().filter(|(name, _)| *name != survivor) {
            cluster.kubectl(&["--namespace", "flows", "delete", "pod", pod])?;
        }
        eventually("a pod runs on each node", LIMIT, async || {
            let ready = ready(cluster).await?;
            Ok((ready.len() == 2 && ready.iter().any(|(_, node)| node == "node2")).then_some(()))
        })
        .await?;
        assert_eq!(line.who()?.0, survivor);
        Ok(())
    })
    .await
}

#[test]
fn what_runs_goes_on_without_its_controllers() -> Result<()> {
    let _machine = MACHINE.blocking_lock();
    judged(|| Runtime::new()?.block_on(without_controllers()))
}

async fn without_controllers() -> Result<()> {
    on_cluster("without-controllers", Plan::of(1), async |cluster| {
        let public = echo(cluster).await?;
        let mut line = Line::open(cluster.client(), public)?;
        let pod = line.who()?;

        cluster.api.kill()?;
        assert!(cluster.kubectl(&["get", "nodes", "--request-timeout=1s"]).is_err());
        assert_eq!(line.who()?, pod);
        Line::open(cluster.client(), public)?.who()?;
        assert_eq!(cluster.balancer().healthy("flows", "echo"), [0]);
        cluster.api.start(cluster.control())?;
        cluster.await_ready().await?;
        assert_eq!(line.who()?, pod);

        // A kubelet and a container runtime that are not there end no container.
        let node = &cluster.nodes()[0];
        node.kubelet.stop()?;
        node.containerd.kill()?;
        assert_eq!(line.who()?, pod);
        node.containerd.start(&node.place()?)?;
        node.await_runtime()?;
        node.kubelet.start(&node.place()?)?;

        // All of it does its work again.
        cluster.kubectl(&["--namespace", "flows", "scale", "deployment", "echo", "--replicas=3"])?;
        cluster.await_available("flows", "echo", LIMIT).await?;
        cluster.kubectl(&["--namespace", "flows", "scale", "deployment", "echo", "--replicas=0"])?;
        eventually("nobody is healthy", LIMIT, async || {
            Ok(cluster.balancer().healthy("flows", "echo").is_empty().then_some(()))
        })
        .await?;
        assert!(Line::open(cluster.client(), public).is_err());
        cluster.check()
    })
    .await
}
