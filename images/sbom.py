#!/usr/bin/env python3
"""What is in an image's program: sbom.py PACKAGE PROGRAM OUT.cdx.json writes a CycloneDX 1.6 list of it.

The crates are those that `cargo tree` links into PACKAGE for this machine, with the checksums of Cargo.lock; the libraries are those that the
program loads, with the Debian packages that they are of. No time and no random number: the same program has the same list.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

from pack import architecture, libraries

ROOT = pathlib.Path(__file__).resolve().parent.parent


def said(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def crates(package):
    """Each linked crate with its version and features' worth of dependencies: {(name, version): set of the same}, and the root's key."""
    lines = said("cargo", "tree", "--locked", "--package", package, "--edges", "normal", "--no-dedupe", "--prefix", "depth", "--format", " {p}").splitlines()
    found, above = {}, []
    for line in lines:
        depth, name, version = re.match(r"(\d+) (\S+) v(\S+)", line).groups()
        depth, key = int(depth), (name, version)
        del above[depth:]
        found.setdefault(key, set())
        if above:
            found[above[-1]].add(key)
        above.append(key)
    return found, next(iter(found))


def packages(paths):
    """The Debian packages that these files are of: (name, version, architecture, files)."""
    owners = {}
    for path in paths:
        for place in (path, f"/usr{path}", str(pathlib.Path(path).resolve())):
            owner = subprocess.run(["dpkg-query", "--search", place], capture_output=True, text=True)
            if owner.returncode == 0:
                owners.setdefault(owner.stdout.split(": ")[0].split(",")[0], []).append(path)
                break
        else:
            raise SystemExit(f"sbom.py: {path} is of no Debian package: the list would lack it")
    owners["ca-certificates"] = ["/etc/ssl/certs/ca-certificates.crt"]
    shown = []
    for owner, files in sorted(owners.items()):
        name, version, machine = said("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}", owner).split()
        shown.append((name, version, machine, files))
    return shown


def crate_component(name, version, licence, checksum):
    purl = f"pkg:cargo/{name}@{version}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence:
        # Older crates write an alternative as A/B.
        component["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", licence)}]
    if checksum:
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return component


def bom(package, program):
    linked, root = crates(package)
    metadata = json.loads(said("cargo", "metadata", "--locked", "--format-version", "1"))
    licences = {(one["name"], one["version"]): one["license"] for one in metadata["packages"]}
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in locked}
    components = [crate_component(*key, licences.get(key), checksums.get(key)) for key in sorted(linked) if key != root]
    loaded = subprocess.run(["ldd", program], capture_output=True, text=True)
    system = []
    for name, version, machine, files in packages(libraries(loaded.stdout + loaded.stderr)):
        purl = f"pkg:deb/debian/{name}@{version}?arch={machine}"
        system.append(purl)
        components.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
                           "properties": [{"name": "streamfleet:file", "value": file} for file in files]})
    reference = "pkg:cargo/{}@{}".format(*root)
    dependencies = [{"ref": "pkg:cargo/{}@{}".format(*key), "dependsOn": sorted("pkg:cargo/{}@{}".format(*below) for below in linked[key])}
                    for key in sorted(linked)]
    for one in dependencies:
        if one["ref"] == reference:
            one["dependsOn"] += system
    body = {
        "metadata": {"component": {"type": "application", "bom-ref": reference, "name": program.name, "version": root[1], "purl": reference,
                                   "licenses": [{"expression": licences[root]}],
                                   "properties": [{"name": "streamfleet:architecture", "value": architecture(program.read_bytes()[:20])}]}},
        "components": components, "dependencies": dependencies,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 64
    package, program, out = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(bom(package, program), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
