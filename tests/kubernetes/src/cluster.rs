//! A cluster: what it consists of, how it comes up, and what a test does with it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::Value;

use crate::balancer::{Balancer, INSIDE, OUTSIDE};
use crate::config::{self, Paths};
use crate::dial;
use crate::folder::Folder;
use crate::image::Image;
use crate::machine::{Machine, Place, Plug};
use crate::node::{self, Node};
use crate::part::Part;
use crate::plan::{Plan, addresses};
use crate::programs::Programs;
use crate::tls;
use crate::wait::eventually;

/// The API server is ready, and nodes are, within this, however busy the machine. On an idle one it takes some seconds.
const READY: Duration = Duration::from_secs(120);

/// A cluster that runs. All of it ends when it is dropped, and also when its process is killed: what is then left, a folder and
/// empty cgroups, goes with the next one.
pub struct Cluster {
    balancer: Option<Balancer>,
    /// The API server.
    pub api: Part,
    /// What makes of objects what they say.
    pub controllers: Part,
    /// What finds nodes for pods.
    pub scheduler: Part,
    etcd: Part,
    nodes: Vec<Node>,
    control: Machine,
    client: Machine,
    edge: Machine,
    images: Mutex<Vec<Image>>,
    /// What clients find by name.
    hosts: Mutex<String>,
    kube: Option<Client>,
    programs: Programs,
    plan: Plan,
    folder: Folder,
}

impl Cluster {
    /// Brings one up: all its nodes are Ready and names are resolved when this returns.
    ///
    /// # Errors
    /// When a program is missing, this process is not root's, or a part is not ready within two minutes.
    pub async fn up(plan: Plan) -> Result<Self> {
        ensure!((1..=addresses::MAX_NODES).contains(&plan.nodes), "a cluster has 1 to {} nodes", addresses::MAX_NODES);
        let mut cluster = Self::new(plan)?;
        let folder = cluster.folder.path().to_owned();
        cluster.etcd.start(cluster.control.place())?;
        cluster.api.start(cluster.control.place())?;
        // The nodes get their images while the API server starts.
        let system = cluster.system_images()?;
        for image in &system {
            cluster.images.lock().push(image.clone());
        }
        thread::scope(|scope| {
            let on = |node| {
                let cluster = &cluster;
                scope.spawn(move || cluster.switch_on(node))
            };
            let started: Vec<_> = cluster.nodes.iter().map(on).collect();
            let ended = started
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.collect::<Result<()>>()
        })?;
        cluster.kube = Some(cluster.await_api().await?);
        for part in [&cluster.controllers, &cluster.scheduler] {
            part.start(cluster.control.place())?;
        }
        for node in &cluster.nodes {
            node.join()?;
        }
        let addresses = (0..plan.nodes).map(addresses::node).collect();
        let kubeconfig = fs::read_to_string(folder.join("admin.kubeconfig"))?;
        cluster.balancer = Some(Balancer::start(cluster.edge.place().clone(), addresses, kubeconfig)?);
        // Not before: the DNS would be on the first node that is Ready, and end with it.
        cluster.await_nodes(plan.nodes).await?;
        cluster.apply(&config::dns())?;
        cluster.await_available("kube-system", "coredns", READY).await?;
        Ok(cluster)
    }

    /// Its machines and files. Nothing runs.
    fn new(plan: Plan) -> Result<Self> {
        let (programs, folder) = (Programs::find()?, Folder::new()?);
        let paths = Paths { programs: programs.folder(), folder: folder.path() };
        for user in config::users(plan.nodes) {
            fs::write(paths.file(&format!("{user}.kubeconfig")), config::kubeconfig(paths, &user))?;
        }
        let (key, public) = tls::account_keys()?;
        for (name, content) in
            [("accounts.key", key), ("accounts.pub", public), ("tokens.csv", config::tokens(plan.nodes))]
        {
            fs::write(paths.file(name), content)?;
        }
        let [edge, client, control] = ["edge", "client", "control"].map(|label| Machine::start(label, &[]));
        let (edge, client, control) = (edge?, client?, control?);
        outside(&edge, &client)?;
        edge.place().ip(&format!("link add {INSIDE} type bridge"))?;
        edge.place().ip(&format!("address add {}/24 dev {INSIDE}", addresses::EDGE))?;
        edge.place().ip(&format!("link set {INSIDE} up"))?;
        node::route(&edge, plan.nodes, None)?;
        node::plug(&control, &edge, addresses::CONTROL)?;
        node::route(&control, plan.nodes, None)?;
        let nodes = (0..plan.nodes).map(|number| Node::new(number, paths, plan.timing)).collect::<Result<_>>()?;
        let part =
            |name: &'static str, command| Part::new(name, command, paths.file(&format!("{name}.log")), paths.programs);
        Ok(Self {
            balancer: None,
            etcd: part("etcd", config::etcd(paths)),
            api: part("kube-apiserver", config::api_server(paths)),
            controllers: part("kube-controller-manager", config::controller_manager(paths, plan.timing)),
            scheduler: part("kube-scheduler", config::scheduler(paths)),
            nodes,
            control,
            client,
            edge,
            images: Mutex::default(),
            hosts: Mutex::default(),
            kube: None,
            plan,
            programs,
            folder,
        })
    }

    /// A client of the API server with all rights, for this process.
    ///
    /// # Panics
    /// Never: a cluster that is up has one.
    pub fn kube(&self) -> Client {
        self.kube.clone().expect("invariant: a cluster that is up has a client")
    }

    /// Where clients of what the cluster serves are.
    pub fn client(&self) -> &Place {
        self.client.place()
    }

    /// Where the control plane is; it reaches all nodes and pods.
    pub fn control(&self) -> &Place {
        self.control.place()
    }

    /// Where the load balancer is, with routes to everything.
    pub fn edge(&self) -> &Place {
        self.edge.place()
    }

    /// What stands between clients and nodes.
    ///
    /// # Panics
    /// Never: a cluster that is up has one.
    pub fn balancer(&self) -> &Balancer {
        self.balancer.as_ref().expect("invariant: a cluster that is up has a load balancer")
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Its plan.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// What it has on disk: logs, and `admin.kubeconfig`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kubernetes' programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Lets clients find an address by a name, as the world's DNS would.
    ///
    /// # Errors
    /// When the client's files cannot be changed.
    pub fn name_outside(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        let mut hosts = self.hosts.lock();
        let path = self.folder().join("hosts");
        if hosts.is_empty() {
            hosts.push_str("127.0.0.1 localhost\n");
            fs::write(&path, &*hosts)?;
            // For that machine alone.
            self.client().output(Command::new("mount").arg("--bind").arg(&path).arg("/etc/hosts"))?;
        }
        hosts.push_str(&format!("{address} {name}\n"));
        // Written where it is: another file would not be the one that is mounted.
        Ok(fs::write(&path, &*hosts)?)
    }

    /// Runs `kubectl` and returns what it prints.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.control().output(&mut kubectl(&self.programs, self.folder(), arguments))
    }

    /// Runs `helm`, likewise.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.control().output(&mut helm(&self.programs, self.folder(), arguments))
    }

    /// `kubectl apply` of an object or a list.
    ///
    /// # Errors
    /// What the API server refuses it with.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let file = tempfile(self.folder(), &object.to_string())?;
        let applied = self.kubectl(&["apply", "--filename", &file.display().to_string()]);
        drop(fs::remove_file(&file));
        applied.map(drop)
    }

    /// Gives all nodes an image, also those that are switched on later.
    ///
    /// # Errors
    /// What containerd says.
    pub fn load(&self, image: &Image) -> Result<()> {
        thread::scope(|scope| {
            let on = self.nodes.iter().filter(|node| node.place().is_ok());
            let imports: Vec<_> = on.map(|node| scope.spawn(|| node.import(&image.path))).collect();
            let ended = imports
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.collect::<Result<()>>()
        })?;
        self.images.lock().push(image.clone());
        Ok(())
    }

    /// Kills a node: its kubelet, its containers, and its cable.
    ///
    /// # Errors
    /// When it is off.
    pub fn switch_off(&self, number: usize) -> Result<()> {
        self.nodes[number].switch_off(self.edge.place(), &self.folder)
    }

    /// Brings a node back that was off, with the disk that it had.
    ///
    /// # Errors
    /// When it is on, or does not start.
    pub fn bring_back(&self, number: usize) -> Result<()> {
        let node = &self.nodes[number];
        ensure!(node.place().is_err(), "{} is on", node.name());
        self.switch_on(node)?;
        node.join()
    }

    /// Cuts a node off from all others. Everything on it goes on.
    ///
    /// # Errors
    /// When it is off.
    pub fn cut_off(&self, number: usize) -> Result<()> {
        self.nodes[number].cable(self.edge.place(), false)
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// When it is off.
    pub fn connect(&self, number: usize) -> Result<()> {
        self.nodes[number].cable(self.edge.place(), true)
    }

    /// Waits until the API server, which was started again, is ready.
    ///
    /// # Errors
    /// When it is not within two minutes.
    pub async fn await_ready(&self) -> Result<()> {
        self.await_api().await.map(drop)
    }

    /// Waits until so many nodes are Ready and nothing evicts pods from them any more. Kubernetes takes that taint off up to five seconds
    /// after a node is Ready: until then pods that tolerate it for no time are made and evicted, again and again.
    ///
    /// # Errors
    /// When they are not within two minutes.
    pub async fn await_nodes(&self, count: usize) -> Result<()> {
        let nodes: Api<v1::Node> = Api::all(self.kube());
        eventually(&format!("{count} nodes are Ready"), READY, async || {
            self.check()?;
            let listed = nodes.list(&Default::default()).await?;
            let is_ready = |node: &&v1::Node| {
                let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
                let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
                conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
                    && taints.all(|taint| taint.effect != "NoExecute")
            };
            Ok((listed.iter().filter(is_ready).count() == count).then_some(()))
        })
        .await
    }

    /// Waits until all replicas of a Deployment are available and none is of an older template.
    ///
    /// # Errors
    /// When they are not within `limit`.
    pub async fn await_available(&self, namespace: &str, name: &str, limit: Duration) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.kube(), namespace);
        eventually(&format!("the Deployment {namespace}/{name} is available"), limit, async || {
            let deployment = deployments.get(name).await?;
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let status = deployment.status.clone().unwrap_or_default();
            let current = status.observed_generation == deployment.metadata.generation;
            let all = [status.available_replicas, status.updated_replicas, status.replicas];
            Ok((current && all.iter().all(|count| count.unwrap_or(0) == wanted)).then_some(()))
        })
        .await
    }

    /// That all parts of it run which were not stopped on purpose.
    ///
    /// # Errors
    /// The first one that has ended by itself, with what it said last.
    pub fn check(&self) -> Result<()> {
        let own = [&self.etcd, &self.api, &self.controllers, &self.scheduler];
        own.into_iter().chain(self.nodes.iter().flat_map(Node::parts)).try_for_each(Part::check)
    }

    fn switch_on(&self, node: &Node) -> Result<()> {
        node.switch_on(&self.folder.cgroups(node.name())?, &self.edge, self.plan.nodes)?;
        // What is there already costs nothing.
        let images = self.images.lock().clone();
        images.iter().try_for_each(|image| node.import(&image.path))
    }

    async fn await_api(&self) -> Result<Client> {
        let kubeconfig = fs::read_to_string(self.folder().join("admin.kubeconfig"))?;
        let client = eventually("the API server has a certificate", READY, async || {
            self.api.check()?;
            Ok(Some(dial::client(&kubeconfig, self.control()).await?))
        })
        .await?;
        eventually("the API server is ready", READY, async || {
            self.api.check()?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(Some(client.request_text(request).await?))
        })
        .await?;
        Ok(client)
    }

    /// What every node needs: the image of sandboxes, and the cluster's DNS.
    fn system_images(&self) -> Result<Vec<Image>> {
        let image = |name: &str, program: &str| Image::of(name, &self.programs.program(program));
        Ok(vec![image(config::PAUSE, "pause")?, image(config::COREDNS, "coredns")?])
    }
}

/// The network of clients, whose only way in is the edge.
fn outside(edge: &Machine, client: &Machine) -> Result<()> {
    let near = Plug { name: "eth0", address: Some(addresses::CLIENT) };
    client.cable(&near, edge, &Plug { name: OUTSIDE, address: Some(addresses::GATEWAY) })?;
    client.place().ip(&format!("route add default via {}", addresses::GATEWAY))?;
    // Any address of the crowd can be bound to.
    client.place().ip(&format!("route add local {} dev lo", addresses::CROWD))?;
    edge.place().ip(&format!("route add {} via {}", addresses::CROWD, addresses::CLIENT))?;
    Ok(())
}

/// `kubectl` for whoever is in the network of the control plane.
pub fn kubectl(programs: &Programs, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs.program("kubectl"));
    // It remembers what the API server has, and the next cluster at this address is another one.
    command.arg("--cache-dir").arg(folder.join("kubectl"));
    command.args(arguments).env("KUBECONFIG", folder.join("admin.kubeconfig"));
    command
}

/// `helm`, likewise.
pub fn helm(programs: &Programs, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs.program("helm"));
    command.args(arguments).env("KUBECONFIG", folder.join("admin.kubeconfig"));
    for kind in ["CACHE", "CONFIG", "DATA"] {
        command.env(format!("HELM_{kind}_HOME"), folder.join("helm").join(kind.to_lowercase()));
    }
    command
}

fn tempfile(folder: &Path, content: &str) -> Result<PathBuf> {
    use std::sync::atomic::{AtomicU32, Ordering};

    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = folder.join(format!("applied-{}.json", NUMBER.fetch_add(1, Ordering::Relaxed)));
    fs::write(&path, content).with_context(|| path.display().to_string())?;
    Ok(path)
}
