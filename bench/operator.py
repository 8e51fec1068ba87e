"""What the operator costs on a real cluster, and how soon a step of load has its workers.

StreamServices without workers (`minReplicas: 0`) are made in steps; of each number the time until all have been reconciled, the
requests to the API server that it took, and what a minute costs in which nothing happens. Then calls come all at once to a service
with one worker, and what happens until there are workers for them is noted as a watch tells of it. As root. Ends with an error where
something aimed at is missed.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import report

ROOT = Path(__file__).resolve().parent.parent
NAME, HOME = "bench-operator", "voice"
PARTS = ["operator", "router", "worker"]
IMAGES = {part: f"streamfleet-{part}:test" for part in PARTS} | {"streamfleet": "streamfleet:test", "redis": "redis:test"}
# Figures of a status wait for ten seconds, so that is how long "settled" takes to be sure of.
SETTLES_S = 30
STEADY_S = 60
# What 1 000 StreamServices that are steady may take.
AIMED_AT, MOST_MB = 1000, 60
# Places of one worker in the step, and calls that come at once.
PLACES, CALLS = 8, 24


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", type=Path, required=True, help="the program streamfleet-cluster")
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the release programs")
    parser.add_argument("--services", type=int, nargs="*", default=[10, 100, 1000], help="how many StreamServices (default 10 100 1000)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of load (default 5)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


class Cluster:
    """A cluster with the product on it; a context manager."""

    def __init__(self, program, programs):
        self.program, self.programs = program, programs

    def run(self, *command, **more):
        done = subprocess.run([self.program, "--name", NAME, *command], capture_output=True, text=True, **more)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, command))[:200]}: {done.stdout}{done.stderr}")
        return done.stdout

    def kubectl(self, *command, **more):
        return self.run("kubectl", *command, **more)

    def __enter__(self):
        self.run("up", "--nodes", "2")
        with tempfile.TemporaryDirectory() as folder:
            server = subprocess.run(["sh", "-c", 'realpath "$(command -v redis-server)"'], capture_output=True, text=True, check=True).stdout.strip()
            image = f"{folder}/redis.tar"
            program = f"{folder}/redis-server"
            subprocess.run(["cp", server, program], check=True)
            pack = [sys.executable, ROOT / "images/pack.py", "image", "--plain", "--strip", image, "docker.io/library/redis:test", program]
            subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
            self.run("load", "--from", self.programs)
            self.run("load", image)
        values = [f"images.{part}={name}" for part, name in IMAGES.items()] + ["redis.bundled.command={/redis-server}"]
        sets = [word for value in values for word in ("--set", value)]
        place = ["--namespace", HOME, "--create-namespace", "--wait", "--timeout", "180s"]
        self.run("helm", "install", "streamfleet-crds", str(ROOT / "charts/streamfleet-crds"), *place)
        self.run("helm", "install", "streamfleet", str(ROOT / "charts/streamfleet"), *place, *sets)
        return self

    def __exit__(self, *_):
        self.run("down")

    def json(self, *command):
        return json.loads(self.kubectl("--namespace", HOME, "get", "--output=json", *command))

    def metrics(self, pod):
        text = self.kubectl("get", "--raw", f"/api/v1/namespaces/{HOME}/pods/{pod}:9090/proxy/metrics")
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def leader(self):
        """The pod of the operator that works, and its process."""
        for pod in self.json("pods", "--selector=app.kubernetes.io/component=operator")["items"]:
            name = pod["metadata"]["name"]
            if self.metrics(name).get("streamfleet_operator_leader") == 1:
                return name, process(pod["status"]["containerStatuses"][0]["containerID"].split("/")[-1])
        raise RuntimeError("no operator leads")


def process(container):
    """The process of a container. Its cgroup is named by the container."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if container in (folder / "cgroup").read_text():
                return int(folder.name)
        except OSError:
            continue
    raise RuntimeError(f"no process in container {container}")


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid, part="VmRSS"):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{part}:\s+(\d+) kB", status)[1]) * 1024 / 1e6


def requests(metrics):
    """Requests to the API server, by what they are."""
    found = {}
    for name, value in metrics.items():
        if name.startswith("streamfleet_operator_requests_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            key = labels["verb"], labels["resource"]
            found[key] = found.get(key, 0) + value
    return found


def more(before, after):
    counts = {key: value - before.get(key, 0) for key, value in after.items()}
    return {key: value for key, value in counts.items() if value > 0}


def service(number):
    return {
        "apiVersion": "streamfleet.dev/v1alpha1",
        "kind": "StreamService",
        "metadata": {"name": f"s{number}", "namespace": HOME},
        "spec": {
            "handler": {"name": "echo"},
            "limits": {"timeLimitSeconds": 600},
            "autoscaling": {"minReplicas": 0, "maxReplicas": 4},
        },
    }


def reconciled(cluster):
    """Of how many the status has been written for what they are now."""
    template = '{range .items[*]}{.metadata.generation} {.status.observedGeneration} {.status.conditions[?(@.type=="Ready")].reason}{"\\n"}{end}'
    lines = cluster.kubectl("--namespace", HOME, "get", "streamservices", "--chunk-size=0", f"--output=jsonpath={template}").splitlines()
    words = [line.split() for line in lines]
    return sum(len(line) == 3 and line[0] == line[1] for line in words)


def steady(cluster, args, note):
    """Memory, CPU and requests of the operator that leads, for each number of StreamServices."""
    rows, there = [], 0
    pod, pid = cluster.leader()
    rows.append({"services": 0, "mb": rss_mb(pid), "file_mb": rss_mb(pid, "RssFile")})
    for count in args.services:
        first, started, spent = cluster.metrics(pod), time.monotonic(), cpu_s(pid)
        items = {"apiVersion": "v1", "kind": "List", "items": [service(number) for number in range(there, count)]}
        cluster.kubectl("create", "-f", "-", input=json.dumps(items))
        created = time.monotonic() - started
        while (known := reconciled(cluster)) < count:
            if time.monotonic() - started > 600:
                raise RuntimeError(f"{known} of {count} after ten minutes")
            time.sleep(0.5)
        took = time.monotonic() - started
        time.sleep(SETTLES_S)
        after = cluster.metrics(pod)
        asked, fresh = more(requests(first), requests(after)), count - there
        row = {"services": count, "created_s": created, "took_s": took, "requests": sum(asked.values()) / fresh, "cpu_ms": 1e3 * (cpu_s(pid) - spent) / fresh}
        looks, looked_s = (after[name] - first.get(name, 0) for name in (f"streamfleet_operator_reconcile_seconds_{of}" for of in ("count", "sum")))
        row["looks_ms"] = 1e3 * looked_s / looks
        before, spent = requests(after), cpu_s(pid)
        time.sleep(STEADY_S)
        idle = more(before, requests(cluster.metrics(pod)))
        writes = {key: value for key, value in idle.items() if key[0] not in ("get", "list", "watch")}
        row |= {"mb": rss_mb(pid), "file_mb": rss_mb(pid, "RssFile"), "core_pct": 100 * (cpu_s(pid) - spent) / STEADY_S, "idle": sum(idle.values()), "writes": writes}
        note(f"{count} StreamServices: {row}")
        rows.append(row)
        there = count
    for number in range(0, there, 200):
        cluster.kubectl("--namespace", HOME, "delete", "streamservices", *(f"s{n}" for n in range(number, min(there, number + 200))))
    return rows


class Watch:
    """What is told of the workers of a service, when it is told; a context manager."""

    def __init__(self, cluster, name):
        self.cluster, self.name, self.at = cluster, name, {}

    def __enter__(self):
        command = ["kubectl", "--namespace", HOME, "get", "pods", f"--selector=streamfleet.dev/service={self.name}"]
        command += ["--watch", "--output-watch-events", "--output=json"]
        # A group of its own: what it starts goes with it.
        self.process = subprocess.Popen([self.cluster.program, "--name", NAME, *command], stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()
        return self

    def read(self):
        # An event a line.
        for line in self.process.stdout:
            self.note(json.loads(line)["object"], time.monotonic())

    def note(self, pod, now):
        stages = self.at.setdefault(pod["metadata"]["name"], {})
        status = pod.get("status", {})
        containers = status.get("containerStatuses", [])
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))
        for stage, is_there in [
            ("made", True),
            ("scheduled", "nodeName" in pod["spec"]),
            ("started", any("running" in each.get("state", {}) for each in containers)),
            ("ready", ready),
        ]:
            if is_there:
                stages.setdefault(stage, now)

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.thread.join()


def step(cluster, args, note):
    """Seconds from the calls to each stage, of the last worker that they needed."""
    address = cluster.json("service", "streamfleet-router")["status"]["loadBalancer"]["ingress"][0]["ip"]
    # With the buffer, which is a quarter.
    wanted, rounds = -(-CALLS * 5 // 4 // PLACES), []
    for number in range(args.rounds):
        name = f"step{number}"
        made = service(number)
        made["metadata"]["name"] = name
        made["spec"] |= {
            "path": f"/{name}",
            "workers": {"sessionsPerWorker": PLACES},
            "autoscaling": {"minReplicas": 1, "maxReplicas": 8},
        }
        cluster.kubectl("create", "-f", "-", input=json.dumps(made))
        cluster.kubectl("--namespace", HOME, "wait", "--for=condition=Ready", "--timeout=120s", f"streamservice/{name}")
        with Watch(cluster, name) as watch, tempfile.NamedTemporaryFile() as said:
            while not any("ready" in stages for stages in list(watch.at.values())):
                time.sleep(0.1)
            first = set(watch.at)
            time.sleep(2)
            url = f"http://{address}/{name}"
            load = [args.programs / "streamfleet", "load", url, "--sessions", CALLS, "--ramp", "200", "--seconds", "15", "--json", said.name]
            began = time.monotonic()
            caller = subprocess.Popen([cluster.program, "--name", NAME, "client", *map(str, load)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                while True:
                    new = [stages for pod, stages in list(watch.at.items()) if pod not in first and "ready" in stages]
                    if len(new) + len(first) >= wanted:
                        break
                    if time.monotonic() - began > 120:
                        raise RuntimeError(f"no {wanted} workers after two minutes: {watch.at}")
                    time.sleep(0.05)
                caller.wait(120)
            finally:
                caller.kill()
                caller.wait()
            sums = json.loads(Path(said.name).read_text())["sessions"]
        new.sort(key=lambda stages: stages["ready"])
        last = new[wanted - len(first) - 1]
        stages = {stage: at - began for stage, at in last.items()}
        note(f"step {number}: {stages}, {sums}")
        rounds.append(stages | {"ok": sums["ok"], "asked": sums["asked"]})
        cluster.kubectl("--namespace", HOME, "delete", "streamservice", name)
    return wanted, rounds


def aimed(rows):
    """What is aimed at of the row with so many StreamServices, and what came out: none without it."""
    least = next((row for row in rows if row["services"]), None)
    row = next((row for row in rows if row["services"] == AIMED_AT), None)
    if not row:
        return []
    each = f", {1e3 * (row['mb'] - least['mb']) / (AIMED_AT - least['services']):.0f} kB a StreamService" if least is not row else ""
    leases = sum(count for (_, resource), count in row["writes"].items() if resource == "leases")
    writes = sum(row["writes"].values()) - leases
    lease = f"its lease, every {STEADY_S / leases:.0f} s" if leases else "nothing"
    return [
        ("memory at 1 000 StreamServices that are steady", f"{MOST_MB} MB", f"{row['mb']:.1f} MB{each}", row["mb"] < MOST_MB),
        ("what it writes when nothing happens", "its lease", f"{lease}, and {writes:.0f} others" if writes else lease, writes == 0),
        ("CPU at 1 000", "", f"{row['core_pct']:.1f} % of a core", None),
    ]


def text(args, rows, wanted, rounds):
    """Markdown between the markers, and whether all that is aimed at was reached."""
    host = report.machine(args.programs / "streamfleet")
    aims, is_reached = report.aims(aimed(rows))
    head = ["StreamServices", "reconciled after, s", "requests for each", "CPU for each, ms", "a look, ms", "resident, MB", "of it pages of the program, MB", "core in a quiet minute, %", "requests in it", "writes but leases"]
    table = []
    for row in rows:
        if not row["services"]:
            table.append(["0", *["—"] * 4, f"{row['mb']:.1f}", f"{row['file_mb']:.1f}", *["—"] * 3])
            continue
        writes = sum(count for (_, resource), count in row["writes"].items() if resource != "leases")
        table.append(
            [
                str(row["services"]),
                f"{row['took_s']:.1f} ({row['created_s']:.1f} of them kubectl's)",
                f"{row['requests']:.1f}",
                f"{row['cpu_ms']:.1f}",
                f"{row['looks_ms']:.1f}",
                f"{row['mb']:.1f}",
                f"{row['file_mb']:.1f}",
                f"{row['core_pct']:.1f}",
                f"{row['idle']:.0f}",
                f"{writes:.0f}",
            ]
        )
    parts = [
        f"`bench/operator.sh` on {host['cores']} cores of {host['cpu']}, Linux {host['kernel']}, {host['streamfleet']}: release programs on a cluster of two nodes whose control plane shares these cores.",
        aims,
        "### StreamServices\nWithout workers (`minReplicas: 0`), made at once; the operator that leads.",
        report.table(head, table),
    ]
    if rounds:
        stages = ["made", "scheduled", "started", "ready"]
        median = [f"{statistics.median(each[stage] for each in rounds):.2f}" for stage in stages]
        worst = [f"{max(each[stage] for each in rounds):.2f}" for stage in stages]
        answered = sum(each["ok"] for each in rounds), sum(each["asked"] for each in rounds)
        parts += [
            f"### A step of load\n{CALLS} calls at once to a service with one worker of {PLACES} places; seconds from the first call until the last of the {wanted} workers that they need is made, scheduled, started, and ready; {len(rounds)} rounds. {answered[0]} of {answered[1]} calls were answered.",
            report.table(["", "pod made", "scheduled", "started", "ready"], [["median", *median], ["worst", *worst]]),
        ]
    return "\n\n".join(filter(None, parts)), is_reached


def main():
    args = arguments()
    began = time.monotonic()

    def note(line):
        print(f"[{time.monotonic() - began:6.0f} s] {line}", file=sys.stderr, flush=True)

    with Cluster(args.cluster, args.programs) as cluster:
        note("installed")
        # First, while the operator has seen nothing else.
        rows = steady(cluster, args, note)
        wanted, rounds = step(cluster, args, note)
    written, is_reached = text(args, rows, wanted, rounds)
    report.write(args.out, written, report.OPERATOR)
    note(f"written: {args.out}")
    if not is_reached:
        raise SystemExit(f"missed what was aimed at: {args.out}")


if __name__ == "__main__":
    main()
