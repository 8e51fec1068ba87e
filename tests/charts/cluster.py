"""As much of an API server as Helm looks into when it renders: what there is, by kind, namespace and name."""

import contextlib
import http.server
import json
import pathlib
import tempfile
import threading

VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
# Helm takes nobody else's objects over.
OURS = {"labels": {"app.kubernetes.io/managed-by": "Helm"}, "annotations": {"meta.helm.sh/release-name": "demo", "meta.helm.sh/release-namespace": "voice"}}
# The kinds that the chart makes, which Helm asks for.
KINDS = {
    "v1": {"secrets": "Secret", "services": "Service", "serviceaccounts": "ServiceAccount", "configmaps": "ConfigMap"},
    "apps/v1": {"deployments": "Deployment"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding", "clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding"},
}


def answer(path, there):
    """What is at a path, or nothing."""
    if path == "/version":
        return VERSION
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for group in [group for group in KINDS if "/" in group]:
            name, number = group.split("/")
            version = {"groupVersion": group, "version": number}
            groups.append({"name": name, "versions": [version], "preferredVersion": version})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    group = path.removeprefix("/apis/").removeprefix("/api/")
    if group in KINDS:
        resources = [{"name": name, "singularName": kind.lower(), "namespaced": not kind.startswith("Cluster"), "kind": kind, "verbs": ["get", "list"]}
                     for name, kind in KINDS[group].items()]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}
    for one in there:
        (kinds,) = (name for name, kind in KINDS[one["apiVersion"]].items() if kind == one["kind"])
        if group == f"{one['apiVersion']}/namespaces/{one['metadata']['namespace']}/{kinds}/{one['metadata']['name']}":
            return one | {"metadata": one["metadata"] | OURS}
    return None


@contextlib.contextmanager
def cluster(*there):
    """The flags with which Helm renders for a cluster that has these objects."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = answer(self.path.partition("?")[0], there)
            body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = pathlib.Path(folder, "kubeconfig")
        config.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "users": [{"name": "a", "user": {}}], "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        }))
        try:
            yield ["--kubeconfig", str(config), "--dry-run=server", "--disable-openapi-validation"]
        finally:
            server.shutdown()
