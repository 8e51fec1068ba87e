//! What each program of a cluster is told: pure, from paths and a plan.

mod control;
mod dns;
mod node;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use control::{api_server, controller_manager, etcd, scheduler, tokens};
use serde_json::json;

pub(crate) use dns::{COREDNS, objects as dns};
pub(crate) use node::{Files, cni, containerd, kubelet, proxy, runs_containerd, runs_kubelet};

use crate::plan::{Timing, addresses};

/// The name that containers' sandboxes have their image under.
pub(crate) const PAUSE: &str = "local/pause:1";

/// Where things are on this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paths<'a> {
    /// The programs.
    pub(crate) programs: &'a Path,
    /// The cluster's folder.
    pub(crate) folder: &'a Path,
}

impl Paths<'_> {
    fn program(&self, name: &str) -> OsString {
        self.programs.join(name).into()
    }

    /// A file of the cluster's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }
}

/// A command, of a program and its flags.
fn command(program: OsString, flags: Vec<String>) -> Vec<OsString> {
    std::iter::once(program).chain(flags.into_iter().map(OsString::from)).collect()
}

/// Who uses the API: the name is also the token.
pub(crate) fn users(nodes: usize) -> Vec<String> {
    let parts = ["admin", "controllers", "scheduler", "proxy"].map(str::to_owned);
    parts.into_iter().chain((0..nodes).map(node_name)).collect()
}

/// What a node is called.
pub(crate) fn node_name(number: usize) -> String {
    format!("node{}", number + 1)
}

/// How a user finds the API server.
pub(crate) fn kubeconfig(paths: Paths<'_>, user: &str) -> String {
    let server = format!("https://{}:6443", addresses::CONTROL);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": server, "certificate-authority": paths.file("pki/apiserver.crt") } }],
        "users": [{ "name": user, "user": { "token": user } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": user } }],
    });
    config.to_string()
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// A lease is renewed four times before it is over.
fn renewals(timing: Timing) -> String {
    seconds(timing.node_lease / 4)
}
