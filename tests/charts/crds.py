"""JSON schemas of the kinds that CustomResourceDefinitions describe, as kubeconform reads them: crds.py DIRECTORY FILE...

What has properties allows no others, as `kubectl apply` with strict validation does. CEL rules are the API server's: the cluster's tests hold
them against it.
"""

import json
import pathlib
import sys

import yaml


def strict(node):
    if isinstance(node, list):
        return [strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items() if not key.startswith("x-kubernetes-") and key not in ("properties", "description")}
    if node.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    # Go's regular expressions, of which some are no Python's or JavaScript's; kubeconform reads Go's.
    if "properties" in node:
        made["properties"] = {name: strict(value) for name, value in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in node:
            made["additionalProperties"] = False
    return made


def schemas(crd):
    group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
    for version in crd["spec"]["versions"]:
        made = strict(version["schema"]["openAPIV3Schema"])
        made["properties"] |= {
            "apiVersion": {"enum": [f"{group}/{version['name']}"]}, "kind": {"enum": [kind]}, "metadata": {"type": "object"},
        }
        yield f"{kind}-{group.split('.')[0]}-{version['name']}.json".lower(), made


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for file in sys.argv[2:]:
        for crd in yaml.safe_load_all(pathlib.Path(file).read_text()):
            if crd:
                for name, made in schemas(crd):
                    (directory / name).write_text(json.dumps(made))


if __name__ == "__main__":
    main()
