"""Images: what pack.py makes is what runtimes take, and what the Dockerfile says."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

from rendered import ROOT

sys.path.insert(0, str(ROOT / "images"))
import pack  # noqa: E402
import sbom  # noqa: E402

PROGRAMS = ["streamfleet-worker", "streamfleet-router", "streamfleet-operator", "streamfleet"]
# Each program's package, some of what is linked into it, and of what is not.
LISTED = {
    "streamfleet-worker": ("streamfleet-worker", {"rtc", "streamfleet-audio"}, {"kube", "streamfleet-placement"}),
    "streamfleet-router": ("streamfleet-router", {"kube", "streamfleet-relay"}, {"rtc-dtls", "streamfleet-handler"}),
    "streamfleet-operator": ("streamfleet-operator", {"kube", "streamfleet-scaling"}, {"rtc-dtls", "streamfleet-relay"}),
    # It plays the operator's steps.
    "streamfleet": ("streamfleet-cli", {"kube", "rtc", "streamfleet-simulator", "streamfleet-operator"}, {"streamfleet-tests", "custom-worker"}),
}


def built(name):
    """A program of the `build` stage."""
    path = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"), "debug", name)
    if not path.exists():
        raise AssertionError(f"{path} is missing: the stage `build` makes it")
    return path


def packed(*words):
    return subprocess.run([sys.executable, ROOT / "images/pack.py", *map(str, words)], capture_output=True, text=True)


class Images(unittest.TestCase):
    def test_what_ldd_says(self):
        said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibm.so.6 => /lib/libm.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
        self.assertEqual(pack.libraries(said), ["/lib/libm.so.6", "/lib64/ld-linux-x86-64.so.2"])
        self.assertEqual(pack.libraries("\tstatically linked\n"), [])
        self.assertEqual(pack.libraries("\tnot a dynamic executable\n"), [])
        for wrong in ["\tlibx.so => not found\n", "ldd: no such file\n"]:
            with self.assertRaises(pack.Refused):
                pack.libraries(wrong)

    def test_names_in_full(self):
        for name, expected in [("redis:7", "docker.io/library/redis:7"), ("a/b:1", "docker.io/a/b:1"), ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
                               ("localhost/a:1", "localhost/a:1"), ("registry:5000/a:1", "registry:5000/a:1")]:
            self.assertEqual(pack.full(name), expected)

    def test_architectures(self):
        head = b"\x7fELF" + bytes(14)
        self.assertEqual(pack.architecture(head + b"\x3e\x00"), "amd64")
        self.assertEqual(pack.architecture(head + b"\xb7\x00"), "arm64")
        for wrong in [head + b"\x03\x00", b"#!/bin/sh\necho hello there", b""]:
            with self.assertRaises(pack.Refused):
                pack.architecture(wrong)

    def test_an_image(self):
        with tempfile.TemporaryDirectory() as folder:
            out, again = (pathlib.Path(folder, name) for name in ("a.tar", "b.tar"))
            for path in (out, again):
                done = packed("image", path, "registry.example.com/streamfleet-worker:1", built("streamfleet-worker"), "--strip")
                self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(out.read_bytes(), again.read_bytes())
            with tarfile.open(out) as archive:
                files = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}
                owners = {(one.uid, one.gid, one.mtime) for one in archive}
            self.assertEqual(owners, {(0, 0, 0)})
            # The OCI layout: each blob is called by its digest, and said to be as large as it is.
            self.assertEqual(json.loads(files["oci-layout"]), {"imageLayoutVersion": "1.0.0"})
            (entry,) = json.loads(files["index.json"])["manifests"]
            manifest = json.loads(self.blob(files, entry))
            config = json.loads(self.blob(files, manifest["config"]))
            layers = [self.blob(files, layer) for layer in manifest["layers"]]
            # And docker-archive, of the same blobs.
            (docker,) = json.loads(files["manifest.json"])
            self.assertEqual(docker["RepoTags"], ["registry.example.com/streamfleet-worker:1"])
            self.assertEqual(docker["Layers"], ["blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]])
            self.assertEqual((config["config"]["User"], config["config"]["Entrypoint"], config["os"]), ("65532:65532", ["/streamfleet-worker"], "linux"))
            unpacked = [gzip.decompress(layer) for layer in layers]
            self.assertEqual(config["rootfs"]["diff_ids"], [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in unpacked])
            found = self.names(unpacked)
            self.assertIn("streamfleet-worker", found)
            self.assertLessEqual({"etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/nsswitch.conf"}, found)
            # FROM scratch: the program, its loader and libraries, names and roots; no shell, nobody's home.
            for name in found - {"streamfleet-worker"}:
                self.assertRegex(name, r"^(etc/(ssl/certs/ca-certificates\.crt|passwd|group|nsswitch\.conf)|(usr/)?lib(64)?/.*\.so(\.\d+)*)$")

    def blob(self, files, described):
        data = files["blobs/" + described["digest"].replace(":", "/")]
        self.assertEqual((f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)), (described["digest"], described["size"]))
        return data

    def names(self, layers):
        found = set()
        for layer in layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                found |= {one.name for one in archive if one.isfile()}
        return found

    def test_it_runs_from_scratch(self):
        """In a root filesystem that has nothing else, as somebody without rights."""
        if os.getuid():
            raise AssertionError("needs root, to change the root directory")
        for name, words in [("streamfleet-worker", "--version"), ("streamfleet-router", "--version"), ("streamfleet-operator", "--version"), ("streamfleet", "--version")]:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                os.chmod(folder, 0o755)
                done = packed("tree", folder, built(name), "--strip")
                self.assertEqual(done.returncode, 0, done.stderr)
                done = subprocess.run(["chroot", "--userspec=65532:65532", folder, f"/{name}", words], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, rf"^{name} \d+\.\d+\.\d+")

    def test_what_is_too_large_or_no_program_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            text = pathlib.Path(folder, "text")
            text.write_text("no program")
            program = built("streamfleet-router")
            for words, said in [((f"{folder}/a.tar", "a:1", program, "--most", "1000000"), "more than 1000000"), ((f"{folder}/a.tar", "a", program), "a has no tag"),
                                ((f"{folder}/a.tar", "a:1", text), "is no ELF file"), ((f"{folder}/a.tar", "a:1", f"{folder}/nothing"), "pack.py: ")]:
                done = packed("image", *words)
                self.assertEqual(done.returncode, 1, words)
                self.assertIn(said, done.stderr)
            self.assertFalse(pathlib.Path(folder, "a.tar").exists())

    def test_a_list_of_contents(self):
        """Of each program, beside it in its image: what `images/build.sh` makes."""
        self.assertEqual(list(LISTED), PROGRAMS)
        for program, (package, linked, absent) in LISTED.items():
            with self.subTest(program), tempfile.TemporaryDirectory() as folder:
                listed, out = pathlib.Path(folder, "list.json"), pathlib.Path(folder, "image.tar")
                subprocess.run([sys.executable, ROOT / "images/sbom.py", package, built(program), listed], check=True)
                text = listed.read_text()
                made = json.loads(text)
                self.assertEqual(made, sbom.bom(package, built(program)))
                self.check_list(made, program, linked, absent)
                done = packed("image", out, f"{program}:1", built(program), "--strip", "--plain", "--sbom", listed)
                self.assertEqual(done.returncode, 0, done.stderr)
                with tarfile.open(out) as archive:
                    (image,) = json.load(archive.extractfile("manifest.json"))
                    layers = [archive.extractfile(layer).read() for layer in image["Layers"]]
                with tarfile.open(fileobj=io.BytesIO(layers[-1])) as own:
                    self.assertEqual({one.name for one in own if one.isfile()}, {program, f"usr/share/sbom/{program}.cdx.json"})
                    self.assertEqual(own.extractfile(f"usr/share/sbom/{program}.cdx.json").read().decode(), text)

    def check_list(self, made, program, linked, absent):
        self.assertEqual((made["bomFormat"], made["specVersion"]), ("CycloneDX", "1.6"))
        self.assertEqual(made["metadata"]["component"]["name"], program)
        components = {one["bom-ref"]: one for one in made["components"]}
        names = {one["name"] for one in made["components"]}
        self.assertLessEqual(linked | {"tokio", "rustls", "libc6", "ca-certificates"}, names)
        # What only tests or builds need is not in the program.
        self.assertFalse((absent | {"proptest", "cc"}) & names)
        for one in components.values():
            if one["purl"].startswith("pkg:cargo/"):
                self.assertTrue(one["licenses"][0]["expression"], one["name"])
                self.assertEqual("hashes" in one, not one["name"].startswith("streamfleet-"), one["name"])
        root = made["metadata"]["component"]["bom-ref"]
        known = set(components) | {root}
        for one in made["dependencies"]:
            self.assertLessEqual({one["ref"], *one["dependsOn"]}, known)

    def test_the_dockerfile_makes_the_same(self):
        text = (ROOT / "Dockerfile").read_text()
        stages = re.findall(r"^FROM \S+ AS (\w+)$", text, re.M)
        self.assertEqual(set(stages), {"build", "base", "worker", "router", "operator", "streamfleet"})
        for name in PROGRAMS:
            target = name.removeprefix("streamfleet-")
            part = re.search(rf"^FROM base AS {target}$(.*?)(?=^FROM |\Z)", text, re.M | re.S)[1]
            self.assertIn(f"COPY --from=build /images/{name} /\n", part)
            self.assertIn(f'ENTRYPOINT ["/{name}"]', part)
            self.assertIn(name, (ROOT / "images/build.sh").read_text())
        base = re.search(r"^FROM scratch AS base$(.*?)^FROM ", text, re.M | re.S)[1]
        self.assertIn(f"USER {pack.USER}\n", base)
        self.assertIn(f"ENV PATH=/ SSL_CERT_FILE=/{pack.ROOTS}\n", base)
        needed = re.search(r'^rust-version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        self.assertIn(f"FROM docker.io/library/rust:{needed}-", text)


if __name__ == "__main__":
    unittest.main()
