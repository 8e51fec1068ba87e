//! The cluster that the tests make, itself: pods of images of ours, flows through the load balancer, parts that die, and that
//! nothing is left.

#![expect(clippy::print_stdout, reason = "helpers of tests print their figures for the log")]

mod failures;
mod flows;
mod leftovers;
mod worker;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use streamfleet_kubernetes_tests::{Cluster, Image, Layers, Place, built, eventually};
use tokio::sync::Mutex;

/// One cluster at a time, but where a test is about two.
static MACHINE: Mutex<()> = Mutex::const_new(());
/// Images are loaded and pods started within this, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(60);
/// Of one answer through the load balancer.
const ANSWER: Duration = Duration::from_secs(2);
/// How often a datagram is said: nobody says it again for us.
const SAID: usize = 3;
/// The port of the echo program.
const PORT: u16 = 7000;

/// A namespace in which only hardened pods are let in.
fn namespace(name: &str) -> Value {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } })
}

/// What Pod Security "restricted" asks of a container, and a root that cannot be written.
fn hardened() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
        "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// Two pods that echo, on two nodes where there are two, behind a load balancer that keeps the client's address.
async fn echo(cluster: &Cluster) -> Result<Ipv4Addr> {
    // As `make images` writes them: what `docs/kubernetes.md` has people load is not what the other images here are.
    cluster.load(&Image::packed("echo:test", &built("streamfleet-cluster-echo")?, Layers::Compressed)?)?;
    let leaves_at_once =
        |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0 });
    let container = json!({
        "name": "echo", "image": "echo:test", "imagePullPolicy": "Never", "securityContext": hardened(),
        "ports": [{ "containerPort": PORT }],
        "readinessProbe": { "tcpSocket": { "port": PORT }, "periodSeconds": 1 },
    });
    let pod = json!({
        "terminationGracePeriodSeconds": 1,
        "tolerations": [leaves_at_once("node.kubernetes.io/unreachable"), leaves_at_once("node.kubernetes.io/not-ready")],
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { "app": "echo" } },
        }],
        "containers": [container],
    });
    let metadata = || json!({ "name": "echo", "namespace": "flows" });
    let ports = json!([{ "name": "tcp", "port": PORT }, { "name": "udp", "port": PORT, "protocol": "UDP" }]);
    let items = json!([
        namespace("flows"),
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(), "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "echo" } },
            "template": { "metadata": { "labels": { "app": "echo" } }, "spec": pod } } },
        { "apiVersion": "v1", "kind": "Service", "metadata": metadata(), "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": { "app": "echo" }, "ports": ports } },
    ]);
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": items }))?;
    cluster.await_available("flows", "echo", LIMIT).await?;
    let all: Vec<usize> = (0..cluster.plan().nodes).collect();
    eventually("all nodes are healthy", LIMIT, async || {
        Ok((cluster.balancer().healthy("flows", "echo") == all).then_some(()))
    })
    .await?;
    cluster.balancer().address("flows", "echo").context("no address")
}

/// A connection whose lines are answered.
struct Line(BufReader<TcpStream>);

impl Line {
    fn open(from: &Place, to: Ipv4Addr) -> Result<Self> {
        let stream = from.connect(SocketAddr::from((to, PORT)), ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut said = String::new();
        self.0.read_line(&mut said)?;
        Ok(said.trim().to_owned())
    }

    /// The pod that answers, and from where it was asked.
    fn who(&mut self) -> Result<(String, IpAddr)> {
        who(&self.ask("who")?)
    }
}

/// The same of a datagram, from a socket of its own at one of the client's addresses: of one flow, wherever that goes.
fn datagram(from: &Place, address: Ipv4Addr, to: Ipv4Addr) -> Result<(String, IpAddr)> {
    let socket = from.in_network(|| UdpSocket::bind((address, 0)))?;
    socket.set_read_timeout(Some(ANSWER))?;
    let mut buffer = [0; 200];
    let mut ask = || {
        socket.send_to(b"who", (to, PORT))?;
        socket.recv_from(&mut buffer).map(|(length, _)| length)
    };
    let mut answer = ask();
    for _ in 1..SAID {
        answer = answer.or_else(|_| ask());
    }
    let length = answer?;
    who(std::str::from_utf8(&buffer[..length])?.trim())
}

fn who(said: &str) -> Result<(String, IpAddr)> {
    let (pod, from) = said.split_once(' ').with_context(|| format!("{said:?}"))?;
    Ok((pod.to_owned(), from.parse::<SocketAddr>()?.ip()))
}
