//! A node of a cluster, which is switched on and off as a machine is.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use crate::balancer::INSIDE;
use crate::config::{self, Files, Paths};
use crate::folder::Folder;
use crate::machine::{Machine, Place, Plug};
use crate::part::Part;
use crate::plan::{Timing, addresses};
use crate::programs::Programs;
use crate::wait::eventually_here;

/// containerd listens within this, however busy the machine.
const LISTENS: Duration = Duration::from_secs(30);
/// Where containerd has its sockets, on each machine.
pub(crate) const RUNTIME: &str = "/run/containerd/containerd.sock";

/// One node. Its disk is in the cluster's folder, and stays when it is switched off.
pub struct Node {
    name: String,
    number: usize,
    /// The container runtime.
    pub containerd: Part,
    /// What starts its pods.
    pub kubelet: Part,
    /// What gives Services their addresses on it.
    pub proxy: Part,
    programs: Programs,
    folder: PathBuf,
    machine: Mutex<Option<Machine>>,
}

impl Node {
    /// Writes its configuration. It is off.
    pub(crate) fn new(number: usize, paths: Paths<'_>, timing: Timing) -> Result<Self> {
        let name = config::node_name(number);
        let files = Files { paths, number };
        let own = paths.file(&name);
        fs::create_dir_all(own.join("cni"))?;
        fs::write(own.join("cni/10-pods.conflist"), config::cni(files).to_string())?;
        fs::write(own.join("containerd.toml"), config::containerd(files))?;
        fs::write(own.join("kubelet.json"), config::kubelet(files, timing).to_string())?;
        let part = |program, command| Part::new(program, command, own.join(format!("{program}.log")), paths.programs);
        Ok(Self {
            containerd: part("containerd", config::runs_containerd(files)),
            kubelet: part("kubelet", config::runs_kubelet(files)),
            proxy: part("kube-proxy", config::proxy(files, timing)),
            programs: Programs::at(paths.programs),
            folder: own,
            machine: Mutex::default(),
            name,
            number,
        })
    }

    /// Its name in the API.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its processes are made.
    ///
    /// # Errors
    /// When it is off.
    pub fn place(&self) -> Result<Place> {
        let machine = self.machine.lock();
        Ok(machine.as_ref().with_context(|| format!("{} is off", self.name))?.place().clone())
    }

    /// Switches the machine on, with a container runtime and no kubelet yet.
    pub(crate) fn switch_on(&self, cgroups: &[(PathBuf, PathBuf)], edge: &Machine, nodes: usize) -> Result<()> {
        let machine = Machine::start(&self.name, cgroups)?;
        plug(&machine, edge, addresses::node(self.number))?;
        route(&machine, nodes, Some(self.number))?;
        let place = machine.place().clone();
        *self.machine.lock() = Some(machine);
        self.containerd.start(&place)?;
        self.await_runtime()
    }

    /// Starts what makes it a node.
    pub(crate) fn join(&self) -> Result<()> {
        let place = self.place()?;
        self.kubelet.start(&place)?;
        self.proxy.start(&place)
    }

    /// Takes the power and the cable away: nobody there says anything any more.
    pub(crate) fn switch_off(&self, edge: &Place, folder: &Folder) -> Result<()> {
        let machine = self.machine.lock().take().with_context(|| format!("{} is off", self.name))?;
        // At once, and not when the kernel has taken the network apart.
        edge.ip(&format!("link del {}", port(addresses::node(self.number))))?;
        for part in [&self.kubelet, &self.proxy, &self.containerd] {
            // Those that were stopped before.
            drop(part.kill());
        }
        drop(machine);
        folder.clear_cgroups(&self.name);
        Ok(())
    }

    /// Cuts it off from all others, or puts the cable back. Everything on it goes on.
    ///
    /// # Errors
    /// When it is off.
    pub(crate) fn cable(&self, edge: &Place, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        edge.ip(&format!("link set {} {state}", port(addresses::node(self.number))))?;
        Ok(())
    }

    /// Waits until containers can be started.
    ///
    /// # Errors
    /// When it is off, or containerd has ended or does not listen within 30 s.
    pub fn await_runtime(&self) -> Result<()> {
        let socket = format!("/proc/{}/root{RUNTIME}", self.place()?.init());
        eventually_here(&format!("containerd listens on {}", self.name), LISTENS, || {
            self.containerd.check()?;
            Ok(UnixStream::connect(&socket).ok())
        })?;
        Ok(())
    }

    /// Gives it an image.
    ///
    /// # Errors
    /// What `ctr` says.
    pub fn import(&self, image: &Path) -> Result<()> {
        import(&self.place()?, &self.programs, image)
    }

    /// Its files: logs of its parts, and below `logs` those of its pods.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All of its parts.
    pub(crate) fn parts(&self) -> [&Part; 3] {
        [&self.containerd, &self.kubelet, &self.proxy]
    }
}

/// A machine's port at the switch.
fn port(address: std::net::Ipv4Addr) -> String {
    format!("port{}", address.octets()[3])
}

/// A cable to the switch at the edge, which is the way to the world.
pub(crate) fn plug(machine: &Machine, edge: &Machine, address: std::net::Ipv4Addr) -> Result<()> {
    let port = port(address);
    machine.cable(&Plug { name: "eth0", address: Some(address) }, edge, &Plug { name: &port, address: None })?;
    edge.place().ip(&format!("link set {port} master {INSIDE}"))?;
    // Answers to clients go back by the edge.
    machine.place().ip(&format!("route add default via {}", addresses::EDGE))?;
    Ok(())
}

/// The ways from a machine to all pods. `own` is the node that it is itself.
pub(crate) fn route(machine: &Machine, nodes: usize, own: Option<usize>) -> Result<()> {
    let place = machine.place();
    place.set("ipv4/ip_forward", "1")?;
    place.set("ipv4/conf/all/rp_filter", "0")?;
    for node in (0..nodes).filter(|node| Some(*node) != own) {
        place.ip(&format!("route add {} via {}", addresses::pods(node), addresses::node(node)))?;
    }
    Ok(())
}

/// Gives a node an image.
///
/// # Errors
/// What `ctr` says.
pub fn import(node: &Place, programs: &Programs, image: &Path) -> Result<()> {
    let mut command = Command::new(programs.program("ctr"));
    command.args(["--address", RUNTIME, "--namespace", "k8s.io", "images", "import"]).arg(image);
    node.output(&mut command).map(drop)
}
