//! The cluster's DNS.

use serde_json::{Value, json};

use crate::plan::addresses;

/// The name of its image.
pub(crate) const COREDNS: &str = "local/coredns:1";

/// Names outside the cluster do not exist: where they are refused, glibc ends its search and says "temporary failure".
const COREFILE: &str = "cluster.local:5353 in-addr.arpa:5353 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa {
        pods insecure
    }
    cache 5
}
.:5353 {
    template ANY ANY {
        rcode NXDOMAIN
    }
}
";

/// What is applied for it.
pub(crate) fn objects() -> Value {
    let metadata = || json!({ "name": "coredns", "namespace": "kube-system" });
    let subjects = json!([{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }]);
    let rules = json!([
        { "apiGroups": [""], "resources": ["services", "namespaces", "pods"], "verbs": ["list", "watch"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
    ]);
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns" });
    let container = json!({
        "name": "coredns", "image": COREDNS, "imagePullPolicy": "Never", "args": ["-conf", "/etc/coredns/Corefile"],
        "volumeMounts": [{ "name": "corefile", "mountPath": "/etc/coredns" }],
        "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
    });
    let pod = json!({
        "serviceAccountName": "coredns", "dnsPolicy": "Default", "priorityClassName": "system-cluster-critical",
        // A node that dies takes half of the cluster's names with it for seconds, and no more.
        "tolerations": [
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 },
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 },
        ],
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { "app": "coredns" } },
        }],
        "containers": [container],
        "volumes": [{ "name": "corefile", "configMap": { "name": "coredns" } }],
    });
    let items = json!([
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata() },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "coredns" }, "rules": rules },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "coredns" },
          "roleRef": role, "subjects": subjects },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(), "data": { "Corefile": COREFILE } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kube-dns", "namespace": "kube-system" }, "spec": {
            "clusterIP": addresses::DNS, "selector": { "app": "coredns" }, "ports": [
                { "name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP" },
                { "name": "tcp", "port": 53, "targetPort": 5353 },
            ] } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(), "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "coredns" } },
            "template": { "metadata": { "labels": { "app": "coredns" } }, "spec": pod } } },
    ]);
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}
