//! A node: its container runtime, its network of pods, its kubelet and its proxy.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::{PAUSE, Paths, command, node_name, renewals, seconds};
use crate::node::RUNTIME;
use crate::plan::{Timing, addresses};

/// The files and folders of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Files<'a> {
    pub(crate) paths: Paths<'a>,
    pub(crate) number: usize,
}

impl Files<'_> {
    /// One of its files.
    pub(crate) fn text(&self, name: &str) -> String {
        self.paths.text(&format!("{}/{name}", node_name(self.number)))
    }
}

/// The network of its pods: a bridge, and routes that the machines have to each other's.
pub(crate) fn cni(files: Files<'_>) -> Value {
    let subnet = addresses::pods(files.number);
    json!({
        "cniVersion": "1.0.0", "name": "pods", "plugins": [
            { "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
                "type": "host-local", "dataDir": "/run/addresses", "ranges": [[{ "subnet": subnet }]],
                "routes": [{ "dst": "0.0.0.0/0" }] } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

/// containerd's configuration.
pub(crate) fn containerd(files: Files<'_>) -> String {
    let Files { paths, .. } = files;
    let root = files.text("containerd");
    let (plugins, networks) = (paths.programs.join("cni").display().to_string(), files.text("cni"));
    let runc = paths.programs.join("runc").display().to_string();
    format!(
        r#"version = 3
root = "{root}"
state = "/run/containerd"
[grpc]
address = "{RUNTIME}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
disable_hugetlb_controller = true
# Root in a container may not lower its OOM score.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "{runc}"
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{networks}"
"#
    )
}

/// The kubelet's configuration.
pub(crate) fn kubelet(files: Files<'_>, timing: Timing) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "containerRuntimeEndpoint": format!("unix://{RUNTIME}"),
        "cgroupDriver": "cgroupfs",
        // Limits are those of containers: cgroups of pods and of classes want more of the host than a container of CI has.
        "cgroupsPerQOS": false, "enforceNodeAllocatable": [],
        "failCgroupV1": false, "failSwapOn": false,
        "clusterDNS": [addresses::DNS], "clusterDomain": "cluster.local",
        // Nothing is evicted because the disk of a test machine is full, and images are not fetched twice.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": { "memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%" },
        "nodeLeaseDurationSeconds": timing.node_lease.as_secs(),
        "nodeStatusUpdateFrequency": renewals(timing),
        "nodeStatusReportFrequency": seconds(timing.node_lease),
        "podLogsDir": files.text("logs"),
        "maxPods": 250, "serializeImagePulls": false,
        "registryPullQPS": 0, "kubeAPIQPS": 100, "kubeAPIBurst": 200,
    })
}

pub(crate) fn runs_containerd(files: Files<'_>) -> Vec<OsString> {
    command(files.paths.program("containerd"), vec!["--config".to_owned(), files.text("containerd.toml")])
}

pub(crate) fn runs_kubelet(files: Files<'_>) -> Vec<OsString> {
    let name = node_name(files.number);
    let flags = vec![
        format!("--config={}", files.text("kubelet.json")),
        format!("--kubeconfig={}", files.paths.text(&format!("{name}.kubeconfig"))),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", addresses::node(files.number)),
        format!("--root-dir={}", files.text("kubelet")),
        format!("--cert-dir={}", files.text("pki")),
    ];
    command(files.paths.program("kubelet"), flags)
}

pub(crate) fn proxy(files: Files<'_>, timing: Timing) -> Vec<OsString> {
    let flags = vec![
        format!("--kubeconfig={}", files.paths.text("proxy.kubeconfig")),
        format!("--hostname-override={}", node_name(files.number)),
        "--proxy-mode=iptables".to_owned(),
        format!("--iptables-min-sync-period={}", seconds(timing.proxy)),
        format!("--cluster-cidr={}", addresses::PODS),
        // Not a network's own setting: the host's would be changed.
        "--conntrack-max-per-core=0".to_owned(),
    ];
    command(files.paths.program("kube-proxy"), flags)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn nodes_share_nothing_but_the_programs() {
        let paths = Paths { programs: Path::new("/p"), folder: Path::new("/f") };
        let [one, two] = [0, 1].map(|number| Files { paths, number });
        assert_eq!(cni(two)["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.2.0/24");
        assert_eq!(kubelet(two, Timing::TEST)["nodeStatusUpdateFrequency"], "2s");
        for line in containerd(two).lines().filter(|line| line.contains("/f/")) {
            assert!(line.contains("/f/node2/"), "{line}");
        }
        let commands = |files| [runs_containerd(files), runs_kubelet(files), proxy(files, Timing::TEST)];
        for (one, two) in commands(one).iter().zip(&commands(two)) {
            assert_ne!(one, two);
        }
        assert!(proxy(one, Timing::TEST).contains(&OsString::from("--iptables-min-sync-period=1s")));
    }
}
