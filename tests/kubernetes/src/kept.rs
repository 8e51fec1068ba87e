//! What other processes know of a cluster that one keeps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, thread};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use streamfleet_kubernetes_tests::{Cluster, Image, Place, Programs, addresses, began, helm, import, kubectl};

/// A cluster, by what its machines and files can be found with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its files.
    pub(crate) folder: PathBuf,
    process: u32,
    began: u64,
    programs: PathBuf,
    /// The first process of each machine.
    machines: BTreeMap<String, u32>,
}

impl Kept {
    /// One that this process keeps.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let process = std::process::id();
        let mut machines = BTreeMap::from([
            ("client".to_owned(), cluster.client().init()),
            ("control".to_owned(), cluster.control().init()),
            ("edge".to_owned(), cluster.edge().init()),
        ]);
        for node in cluster.nodes() {
            machines.insert(node.name().to_owned(), node.place()?.init());
        }
        let (folder, programs) = (cluster.folder().to_owned(), cluster.programs().folder().to_owned());
        Ok(Self { folder, process, began: began(process).context("no such process")?, programs, machines })
    }

    fn path(name: &str) -> PathBuf {
        env::temp_dir().join(format!("streamfleet-cluster-{name}.json"))
    }

    /// What the process says that keeps it.
    pub(crate) fn log(name: &str) -> PathBuf {
        env::temp_dir().join(format!("streamfleet-cluster-{name}.log"))
    }

    /// The one of this name.
    ///
    /// # Errors
    /// When none is up.
    pub(crate) fn read(name: &str) -> Result<Self> {
        let text = fs::read_to_string(Self::path(name)).with_context(|| format!("no cluster is up as {name}"))?;
        let kept: Self = serde_json::from_str(&text)?;
        ensure!(kept.is_up(), "no cluster is up as {name}: its process was killed");
        Ok(kept)
    }

    /// Says that it is up.
    pub(crate) fn write(&self, name: &str) -> Result<()> {
        let (path, partial) = (Self::path(name), Self::path(&format!("{name}.partial")));
        fs::write(&partial, serde_json::to_vec(self)?)?;
        Ok(fs::rename(partial, path)?)
    }

    /// Says that it is not.
    pub(crate) fn remove(name: &str) -> Result<()> {
        for path in [Self::path(name), Self::log(name)].iter().filter(|path| path.exists()) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Whether its process is there.
    pub(crate) fn is_up(&self) -> bool {
        began(self.process) == Some(self.began)
    }

    /// Asks its process to end.
    pub(crate) fn terminate(&self) -> Result<()> {
        let status = Command::new("kill").arg(self.process.to_string()).status()?;
        ensure!(status.success() || !self.is_up(), "kill: {status}");
        Ok(())
    }

    /// A machine, by name.
    pub(crate) fn place(&self, machine: &str) -> Result<Place> {
        let all: Vec<&String> = self.machines.keys().collect();
        let init = self.machines.get(machine).with_context(|| format!("no machine {machine}; there are {all:?}"))?;
        Place::of(machine, *init)
    }

    /// `kubectl` or `helm`.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Command {
        let tool = if program == "helm" { helm } else { kubectl };
        tool(&Programs::at(&self.programs), &self.folder, arguments)
    }

    /// Gives all nodes an image.
    pub(crate) fn load(&self, image: &Image) -> Result<()> {
        let programs = &Programs::at(&self.programs);
        let nodes = self.machines.keys().filter(|name| name.starts_with("node"));
        thread::scope(|scope| {
            let load = |name: &String| {
                let place = self.place(name);
                scope.spawn(move || import(&place?, programs, &image.path))
            };
            let loads: Vec<_> = nodes.map(load).collect();
            loads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    /// What a person wants to know of it.
    pub(crate) fn told(&self) -> Vec<(&'static str, String)> {
        vec![
            ("STREAMFLEET_CLUSTER_FOLDER", self.folder.display().to_string()),
            ("STREAMFLEET_CLUSTER_CLIENT", addresses::CLIENT.to_string()),
            ("STREAMFLEET_CLUSTER_PUBLIC", addresses::FIRST_PUBLIC.to_string()),
            ("STREAMFLEET_CLUSTER_API", format!("https://{}:6443", addresses::CONTROL)),
            ("KUBECONFIG", self.folder.join("admin.kubeconfig").display().to_string()),
        ]
    }
}
