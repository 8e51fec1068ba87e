#!/usr/bin/env python3
"""Container images without a container engine: a program, what it loads, and roots of trust, FROM scratch.

    pack.py tree DIRECTORY PROGRAM             writes the image's files: what the Dockerfile copies
    pack.py image OUT.tar NAME:TAG PROGRAM     writes an archive that `docker load`, `podman load`, `skopeo copy oci-archive:OUT.tar`
                                               and `ctr images import` take (an OCI image layout and a docker-archive in one)

Options of both: --strip leaves symbols out; --sbom FILE puts a list of what is in it beside the program. Of `image`: --plain leaves the layers
uncompressed, --most BYTES fails when the image, unpacked, is larger. The same input gives the same bytes: nothing has a time or an owner.
"""

import argparse
import gzip
import hashlib
import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

ROOTS = "etc/ssl/certs/ca-certificates.crt"
# Nobody: no right that an image needs to have. Kubernetes checks `runAsNonRoot` by the number.
USER = "65532:65532"
SHARED = {
    "etc/nsswitch.conf": b"hosts: files dns\n",
    "etc/passwd": b"root:x:0:0:root:/:/sbin/nologin\nstreamfleet:x:65532:65532:streamfleet:/:/sbin/nologin\n",
    "etc/group": b"root:x:0:\nstreamfleet:x:65532:\n",
}
MACHINES = {0x3E: "amd64", 0xB7: "arm64"}
SOURCE = "https://github.com/streamfleet/streamfleet"


class Refused(Exception):
    """What cannot be packed, and why."""


def architecture(program):
    """What the program was built for, by its ELF header (e_machine)."""
    head = program[:20]
    machine = int.from_bytes(head[18:20], "little")
    if head[:4] != b"\x7fELF" or machine not in MACHINES:
        raise Refused("the program is no ELF file for amd64 or arm64")
    return MACHINES[machine]


def libraries(said):
    """The paths in what `ldd` says; none for a program that loads nothing."""
    found = []
    for line in filter(None, map(str.strip, said.splitlines())):
        if line in ("statically linked", "not a dynamic executable"):
            return []
        path = re.fullmatch(r"(?:\S+ => )?(\S+) \(0x[0-9a-f]+\)", line)
        if not path:
            raise Refused(f"ldd: {line}")
        # The kernel's own (linux-vdso.so.1) has no path.
        if path[1].startswith("/"):
            found.append(path[1])
    return sorted(found)


def content(path, strip, sbom):
    """The image's files, by their paths: those that programs of one build share, and the program's own."""
    said = subprocess.run(["ldd", path], capture_output=True, text=True)
    shared = {name: (text, 0o644) for name, text in SHARED.items()}
    roots = pathlib.Path("/", ROOTS)
    if not roots.exists():
        raise Refused(f"{roots} is missing: install ca-certificates")
    shared[ROOTS] = (roots.read_bytes(), 0o644)
    for library in libraries(said.stdout + said.stderr):
        shared[library.lstrip("/")] = (pathlib.Path(library).read_bytes(), 0o755)
    program = path.read_bytes()
    if strip:
        with tempfile.TemporaryDirectory() as folder:
            stripped = pathlib.Path(folder, path.name)
            subprocess.run(["strip", "-o", stripped, path], check=True)
            program = stripped.read_bytes()
    own = {path.name: (program, 0o755)}
    if sbom:
        own[f"usr/share/sbom/{path.name}.cdx.json"] = (sbom.read_bytes(), 0o644)
    return shared, own


def layer(files):
    """A tar of these files and the folders above them, the same at every run."""
    folders = {str(above) for name in files for above in pathlib.PurePath(name).parents if str(above) != "."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(folders | set(files)):
            entry = tarfile.TarInfo(name)
            if name in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                text, entry.mode = files[name]
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def full(name):
    """A reference as runtimes keep it, with the registry that a short one means."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def image(out, name, path, strip, sbom, plain, most):
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        raise Refused(f"{name} has no tag")
    shared, own = content(path, strip, sbom)
    layers = [layer(shared), layer(own)]
    size = sum(map(len, layers))
    if most and size > most:
        raise Refused(f"{name} has {size} bytes, more than {most}")
    packed = layers if plain else [gzip.compress(one, 9, mtime=0) for one in layers]
    media = "application/vnd.oci.image.layer.v1.tar" + ("" if plain else "+gzip")
    labels = {"org.opencontainers.image.title": path.name, "org.opencontainers.image.version": tag,
              "org.opencontainers.image.source": SOURCE, "org.opencontainers.image.licenses": "Apache-2.0"}
    config = json.dumps({
        "architecture": architecture(own[path.name][0]), "os": "linux",
        "config": {"Entrypoint": [f"/{path.name}"], "User": USER, "WorkingDir": "/", "Labels": labels,
                   "Env": ["PATH=/", f"SSL_CERT_FILE=/{ROOTS}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(one)}" for one in layers]},
        "history": [{"created_by": "libraries and roots of trust"}, {"created_by": path.name}],
    }, sort_keys=True).encode()

    def described(kind, data, **more):
        return {"mediaType": kind, "digest": f"sha256:{digest(data)}", "size": len(data), **more}

    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", config),
        "layers": [described(media, one) for one in packed],
    }, sort_keys=True).encode()
    index = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described(
        "application/vnd.oci.image.manifest.v1+json", manifest,
        annotations={"io.containerd.image.name": full(name), "org.opencontainers.image.ref.name": tag})]}, sort_keys=True).encode()

    def blob(data):
        return f"blobs/sha256/{digest(data)}"

    files = {blob(data): (data, 0o644) for data in (config, manifest, *packed)}
    files |= {
        "oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644),
        "index.json": (index, 0o644),
        "manifest.json": (json.dumps([{"Config": blob(config), "RepoTags": [name], "Layers": [blob(one) for one in packed]}]).encode(), 0o644),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(layer(files))
    partial.rename(out)
    print(f"{out}: {name}, {size / 1e6:.1f} MB unpacked, {sum(map(len, packed)) / 1e6:.1f} MB in the archive")


def tree(folder, path, strip, sbom):
    shared, own = content(path, strip, sbom)
    for name, (text, mode) in {**shared, **own}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
        file.chmod(mode)


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = words.add_subparsers(dest="kind", required=True)
    one, other = kinds.add_parser("tree"), kinds.add_parser("image")
    one.add_argument("directory", type=pathlib.Path)
    other.add_argument("out", type=pathlib.Path)
    other.add_argument("name")
    other.add_argument("--plain", action="store_true")
    other.add_argument("--most", type=int, default=0)
    for kind in (one, other):
        kind.add_argument("program", type=pathlib.Path)
        kind.add_argument("--strip", action="store_true")
        kind.add_argument("--sbom", type=pathlib.Path)
    words = words.parse_args()
    try:
        if words.kind == "tree":
            tree(words.directory, words.program, words.strip, words.sbom)
        else:
            image(words.out, words.name, words.program, words.strip, words.sbom, words.plain, words.most)
    except (Refused, OSError, subprocess.CalledProcessError) as error:
        print(f"pack.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
