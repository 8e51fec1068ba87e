"""JSON schemas of all kinds of a Kubernetes version, as kubeconform reads them, from the description of its API.

Usage: schemas.py SWAGGER DIRECTORY. One file a kind, KIND-GROUP-VERSION.json in lower case (KIND-VERSION.json for the core group);
what has properties allows no others, so that a misspelt field is found.
"""
import json
import pathlib
import sys

swagger, directory = sys.argv[1], pathlib.Path(sys.argv[2])
definitions = json.load(open(swagger))["definitions"]
PREFIX = "#/definitions/"
# What is described as one type and written as another.
WRITTEN = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
}


def schema(node, above):
    """A node with all that it refers to in it. A definition within itself, as in CustomResourceDefinitions, is anything."""
    if "$ref" in node:
        name = node["$ref"].removeprefix(PREFIX)
        if name in WRITTEN:
            return WRITTEN[name]
        return {} if name in above else schema(definitions[name], above | {name})
    made = {key: node[key] for key in ("type", "format", "enum", "required") if key in node}
    if "type" in made and made["type"] in ("object", "array"):
        # The API server takes null for what is not there.
        made["type"] = [made["type"], "null"]
    if "items" in node:
        made["items"] = schema(node["items"], above)
    if "properties" in node:
        made["properties"] = {name: optional(schema(value, above), name in node.get("required", ())) for name, value in node["properties"].items()}
        made["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), dict):
        made["additionalProperties"] = schema(node["additionalProperties"], above)
    return made


def optional(made, required):
    """What need not be there may be null."""
    if required or not isinstance(made.get("type"), str):
        return made
    return {**made, "type": [made["type"], "null"]}


for name, definition in definitions.items():
    kinds = definition.get("x-kubernetes-group-version-kind", [])
    # Others, as DeleteOptions, are of every group: nobody writes them into files.
    if len(kinds) != 1:
        continue
    made = schema(definition, {name})
    (kind,) = kinds
    if "properties" in made:
        version = f"{kind['group']}/{kind['version']}".removeprefix("/")
        made["properties"].update({"apiVersion": {"enum": [version]}, "kind": {"enum": [kind["kind"]]}})
        made["required"] = sorted({"apiVersion", "kind", *made.get("required", ())})
    group = kind["group"].split(".")[0]
    parts = [part for part in (kind["kind"], group, kind["version"]) if part]
    (directory / ("-".join(parts).lower() + ".json")).write_text(json.dumps(made, separators=(",", ":")))
