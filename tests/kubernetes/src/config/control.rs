//! The control plane.

use std::ffi::OsString;
use std::fmt::Write as _;

use super::{Paths, command, node_name, seconds};
use crate::plan::{Timing, addresses};

/// Who has which token, in the API server's form.
pub(crate) fn tokens(nodes: usize) -> String {
    let mut lines = String::from(
        "admin,admin,admin,\"system:masters\"\n\
         controllers,system:kube-controller-manager,controllers\n\
         scheduler,system:kube-scheduler,scheduler\n\
         proxy,system:kube-proxy,proxy\n",
    );
    for name in (0..nodes).map(node_name) {
        let _ = writeln!(lines, "{name},system:node:{name},{name},\"system:nodes\"");
    }
    lines
}

pub(crate) fn etcd(paths: Paths<'_>) -> Vec<OsString> {
    // Nothing of it is to outlive the machine that it runs on.
    let flags = vec![format!("--data-dir={}", paths.text("etcd")), "--unsafe-no-fsync".to_owned()];
    command(paths.program("etcd"), flags)
}

pub(crate) fn api_server(paths: Paths<'_>) -> Vec<OsString> {
    let flags = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--cert-dir={}", paths.text("pki")),
        // Not a loopback address, or pods have no way to it.
        format!("--advertise-address={}", addresses::CONTROL),
        format!("--service-cluster-ip-range={}", addresses::SERVICES),
        format!("--service-account-key-file={}", paths.text("accounts.pub")),
        format!("--service-account-signing-key-file={}", paths.text("accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--token-auth-file={}", paths.text("tokens.csv")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
        // Nodes have no names that anybody resolves.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        // Webhooks are called at their pods: no kube-proxy runs here.
        "--enable-aggregator-routing=true".to_owned(),
        "--profiling=false".to_owned(),
    ];
    command(paths.program("kube-apiserver"), flags)
}

pub(crate) fn controller_manager(paths: Paths<'_>, timing: Timing) -> Vec<OsString> {
    let flags = vec![
        format!("--kubeconfig={}", paths.text("controllers.kubeconfig")),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", paths.text("accounts.key")),
        format!("--root-ca-file={}", paths.text("pki/apiserver.crt")),
        format!("--node-monitor-grace-period={}", seconds(timing.node_grace)),
        format!("--horizontal-pod-autoscaler-sync-period={}", seconds(timing.autoscaler)),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=100".to_owned(),
        "--kube-api-burst=200".to_owned(),
        "--profiling=false".to_owned(),
    ];
    command(paths.program("kube-controller-manager"), flags)
}

pub(crate) fn scheduler(paths: Paths<'_>) -> Vec<OsString> {
    let flags = vec![
        format!("--kubeconfig={}", paths.text("scheduler.kubeconfig")),
        "--leader-elect=false".to_owned(),
        "--profiling=false".to_owned(),
    ];
    command(paths.program("kube-scheduler"), flags)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_user_has_a_token() {
        let lines = tokens(2);
        for user in super::super::users(2) {
            assert!(lines.lines().any(|line| line.starts_with(&format!("{user},"))), "{user}: {lines}");
        }
        assert!(lines.contains("node2,system:node:node2,node2,\"system:nodes\"\n"));
    }

    #[test]
    fn the_grace_of_a_node_is_said() {
        let paths = Paths { programs: Path::new("/p"), folder: Path::new("/f") };
        let command = controller_manager(paths, Timing::TEST);
        assert_eq!(command[0], "/p/kube-controller-manager");
        assert!(command.contains(&OsString::from("--node-monitor-grace-period=15s")), "{command:?}");
    }
}
