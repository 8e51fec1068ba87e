"""`helm template` of the charts with the values of tests/charts/values, as committed in tests/charts/golden."""

import base64
import json
import re
import subprocess

# What is made at random, or of something that is.
SECRETS = re.compile(r"^  (secret|relay-key|admin-token|password|redis\.conf): ([A-Za-z0-9+/=]+)$", re.M)
DASHBOARD = re.compile(r"(  streamfleet\.json: \|\n)((?:    .*\n|\n)+)")
CHECKSUM = re.compile(r"checksum/redis: [0-9a-f]{64}")


def render(helm, chart, values, release="demo", namespace="voice"):
    command = [helm, "template", release, str(chart), "--namespace", namespace, "--kube-version", "1.36.0"]
    for file in values:
        command += ["--values", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def steady(text):
    """The same text at every rendering: secrets are told by their length."""
    text = SECRETS.sub(lambda found: f"  {found[1]}: <{len(base64.b64decode(found[2]))} bytes>", text)
    text = DASHBOARD.sub(lambda found: f"{found[1]}    <dashboard of {len(json.loads(found[2])['panels'])} rows and panels>\n", text)
    return CHECKSUM.sub("checksum/redis: <of the password>", text)


def notes(helm, chart, values, release="demo", namespace="voice"):
    """What `helm install` says at its end."""
    command = [helm, "install", release, str(chart), "--namespace", namespace, "--dry-run=client"]
    for file in values:
        command += ["--values", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout[done.stdout.index("NOTES:\n"):]


def goldens(helm, root):
    """Each golden file with what it should be."""
    tests, charts = root / "tests/charts", root / "charts"
    found = {tests / "golden/streamfleet-crds.yaml": render(helm, charts / "streamfleet-crds", [])}
    for values in sorted((tests / "values").glob("*.yaml")):
        found[tests / "golden" / values.name] = steady(render(helm, charts / "streamfleet", [values]))
        found[tests / "golden" / f"{values.stem}.notes.txt"] = notes(helm, charts / "streamfleet", [values])
    return found
