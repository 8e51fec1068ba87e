"""What the charts' tests share: the programs, and what `helm template` makes of values."""

import functools
import os
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHARTS, TESTS = ROOT / "charts", ROOT / "tests/charts"
sys.path.insert(0, str(CHARTS / "generate"))


def tool(name):
    """A program of tests/setup/kubernetes.sh."""
    folder = os.environ.get("STREAMFLEET_TEST_KUBERNETES")
    if not folder:
        raise SystemExit("STREAMFLEET_TEST_KUBERNETES is not set: run tests/setup/charts.sh")
    return str(pathlib.Path(folder, name))


def helm(*words, text=None):
    return subprocess.run([tool("helm"), *map(str, words)], capture_output=True, text=True, input=text)


def template(values="", chart="streamfleet", release="demo", more=()):
    """The rendered text, or what Helm refuses it with."""
    done = helm("template", release, CHARTS / chart, "--namespace", "voice", "--kube-version", "1.36.0", *more, "--values", "-", text=values or "{}")
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def objects(values="", **more):
    return [one for one in yaml.safe_load_all(template(values, **more)) if one]


class Refused(Exception):
    """Helm's words."""


@functools.cache
def cases():
    """The values of tests/charts/values with the objects that they make."""
    return {file.stem: objects(file.read_text()) for file in sorted((TESTS / "values").glob("*.yaml"))}


def pods(objects_):
    """Every pod that these objects make: what makes it, and its specification."""
    for one in objects_:
        if one["kind"] == "Pod":
            yield one, one["metadata"], one["spec"]
        elif "template" in one.get("spec", {}) and one["kind"] in ("Deployment", "Job"):
            yield one, one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]
