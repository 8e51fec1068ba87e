"""docs/charts.md, and the descriptions in the schemas: both of what values.yaml says."""

import json

from values import described

HEAD = """# The charts

Made of the comments in `values.yaml` by `charts/generate`: do not edit. How to install them is in [kubernetes.md](kubernetes.md).

| chart | |
|---|---|
| [`streamfleet-crds`](../charts/streamfleet-crds) | the resource StreamService. A chart of its own, since Helm never upgrades what a chart has in `crds/` |
| [`streamfleet`](../charts/streamfleet) | the operator, and the routers with their relays; monitoring; a Redis for trying |

Values are checked against `values.schema.json`: a key that does not exist or a value that does not fit is refused, with its name.
Kubernetes 1.33 or newer; Helm 3.18 or newer, or 4. Tried were Kubernetes 1.36 and Helm 4.3; Helm 3 was never run.
"""

# The heading of each first key, and what is said below it.
SECTIONS = {
    "": ("Names", ""),
    "images": ("Images", "All of them run as user 65532 on a root filesystem that they cannot write to."),
    "scope": ("Which StreamServices", "With `scope.namespaces` the operator has a Role in each of these, and beside them one ClusterRole: to read Nodes."),
    "publicUrl": ("Addresses", ""),
    "ipFamilies": ("Addresses", ""),
    "fleet": ("Secrets", "`helm upgrade` keeps what is in them, also what was changed by hand; `helm rollback` brings back what they had at that revision. `kubectl get secret streamfleet-fleet` shows them (`RELEASE-streamfleet-fleet` where the release's name does not have `streamfleet` in it)."),
    "redis": ("The store", "One of `redis.url`, `redis.sentinels` and `redis.nodes`, or none for the bundled one. Redis 7."),
    "operator": ("The operator", ""),
    "router": ("The routers", ""),
    "log": ("Logs and traces", ""),
    "otlp": ("Logs and traces", ""),
    "networkPolicy": ("NetworkPolicies", ""),
    "monitoring": ("Monitoring", "Alerts and dashboard go by the label `job` that the PodMonitors give: NAMESPACE/FULLNAME-operator and NAMESPACE/FULLNAME-router."),
    "gateway": ("Gateway API", "Its resources must be in the cluster."),
    "uninstall": ("Uninstalling", ""),
    "test": ("helm test", ""),
}


def default(value):
    if isinstance(value, str):
        return f"`{value}`" if value else "absent"
    if value in ({}, []):
        return "none"
    return f"`{json.dumps(value)}`"


def table(values):
    lines = ["| value | default | |", "|---|---|---|"]
    lines += [f"| `{value.name}` | {default(value.default)} | {value.about.replace('|', chr(92) + '|')} |" for value in values]
    return "\n".join(lines)


def document(charts):
    text = [HEAD, "## streamfleet\n"]
    last = None
    groups = {}
    for value in described((charts / "streamfleet/values.yaml").read_text()):
        key = value.path[0] if value.path[0] in SECTIONS else ""
        groups.setdefault(SECTIONS[key], []).append(value)
    for (title, about), values in groups.items():
        text.append(f"### {title}\n")
        if about:
            text.append(about + "\n")
        text.append(table(values) + "\n")
    text += ["## streamfleet-crds\n", table(described((charts / "streamfleet-crds/values.yaml").read_text())), ""]
    return "\n".join(text)


def schema(chart):
    """The schema with the descriptions of the values; an error where the two do not have the same keys."""
    found = json.loads((chart / "values.schema.json").read_text())
    leaves = set()
    for value in described((chart / "values.yaml").read_text()):
        node = found
        for key in value.path:
            node = node.get("properties", {}).get(key)
            if node is None:
                raise ValueError(f"{chart.name}: values.schema.json does not have {value.name}")
        # What stands beside a reference counts for nothing in draft 7: it is wrapped.
        if "$ref" in node:
            reference = node.pop("$ref")
            node["allOf"] = [{"$ref": reference}]
        node.pop("description", None)
        described_node = {"description": value.about, **node}
        node.clear()
        node.update(described_node)
        leaves.add(tuple(value.path))
    missing = [".".join(path) for path in properties(found, leaves) if path != ("global",)]
    if missing:
        raise ValueError(f"{chart.name}: values.yaml does not have {', '.join(missing)}")
    return json.dumps(found, indent=2) + "\n"


def properties(node, leaves, path=()):
    """Paths of the schema that lead to no value."""
    if path in leaves:
        return []
    below = node.get("properties")
    if not below:
        return [path]
    return [found for key, child in below.items() for found in properties(child, leaves, (*path, key))]
