"""What a router costs, beside a reverse proxy that does nothing else.

Router or proxy has one core to itself; clients, workers and Redis share the other. The two take turns; every point is a fresh
server. Offers come at a steady rate, whether they are answered or not.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report
from run import CLIENT_CORE, SERVER_CORE
from servers import HERE, Kind, Server, cpu_s, free_port

ROOT = HERE.parent
PROXY, ROUTER = "plain hyper proxy", "Streamfleet's router"
SECRET = "a-secret-of-the-bench"
# Before the window: connections are made, buffers grow.
WARM_S = 2.0
WORKER_RATE = 20
# As fast as one core of clients, workers and Redis gives: only memory is looked at.
FILL_RATE = 500


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the release programs")
    parser.add_argument("--rate", type=int, default=200, help="offers a second (default 200)")
    parser.add_argument("--seconds", type=float, default=10, help="steady window of each point (default 10)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each point is measured (default 3)")
    parser.add_argument("--known", type=int, default=100_000, help="sessions that fill a router (default 100000; 0 leaves it out)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


class Beside:
    """A process on the clients' core; a context manager."""

    def __init__(self, command, port=None):
        self.command, self.port = [str(part) for part in command], port

    def __enter__(self):
        self.process = subprocess.Popen(["taskset", "-c", str(CLIENT_CORE), *self.command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        deadline = time.monotonic() + 30
        while self.port is not None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError(f"it did not start: {' '.join(self.command)}") from None
                time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def redis(folder):
    port = free_port(socket.SOCK_STREAM)
    return Beside(["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder], port)


def double(programs, redis_port):
    port = free_port(socket.SOCK_STREAM)
    return Beside([programs / "bench-router", "double", "--listen", f"127.0.0.1:{port}", "--redis", redis_port], port)


def router(programs, folder, redis_port):
    """The command of a router with the service `bench`."""
    services, config = Path(folder) / "services.yaml", Path(folder) / "router.yaml"
    # JSON is YAML.
    services.write_text(json.dumps({"apiVersion": "streamfleet.dev/v1alpha1", "kind": "StreamService", "metadata": {"name": "bench"}, "spec": {"path": "/bench", "handler": {"name": "echo"}}}))
    config.write_text(json.dumps({
        "services": [str(services)], "secret": SECRET, "admin": {"token": "a-token-of-the-bench"}, "log": {"filter": "warn"},
        "store": {"redis": {"address": f"127.0.0.1:{redis_port}"}},
    }))
    return Kind(ROUTER, "/bench", (str(programs / "streamfleet-router"), "--config", str(config), "--listen", "127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"))


def worker(programs, folder, redis_port):
    """A real one, on the clients' core."""
    port, config = free_port(socket.SOCK_STREAM), Path(folder) / "worker.yaml"
    config.write_text(json.dumps({
        "listen": f"127.0.0.1:{port}", "media": {"udp": "127.0.0.1:0", "loops": 1}, "admin": {"listen": "127.0.0.1:0"}, "log": {"filter": "warn"},
        "services": [{"name": "bench", "path": "/bench", "handler": {"name": "echo"}}],
        "fleet": {"worker": "w", "http": f"127.0.0.1:{port}", "secret": SECRET, "store": {"redis": {"address": f"127.0.0.1:{redis_port}"}}},
    }))
    return Beside([programs / "streamfleet-worker", "--config", config], port)


def drive(programs, url, rate, seconds):
    command = ["taskset", "-c", str(CLIENT_CORE), str(programs / "bench-router"), "drive", url, "--rate", str(rate), "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process):
    out, _ = process.communicate(timeout=120)
    return json.loads(out)


def answers(url, seconds=20):
    """Waits until a service has a worker."""
    deadline = time.monotonic() + seconds
    while subprocess.run(["curl", "-sf", "-o", "/dev/null", f"{url}/rtc_configuration"]).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} has no worker")
        time.sleep(0.1)


def point(server, url, args):
    """CPU of a server while offers come at a steady rate, and how long they take."""
    finish(drive(args.programs, url, args.rate, WARM_S))
    before = server.cpu_s()
    found = finish(drive(args.programs, url, args.rate, args.seconds))
    cpu = server.cpu_s() - before
    if found["failed"]:
        raise RuntimeError(f"{found['failed']} of {found['offers']} offers failed: {found['first_failure']}")
    return {"server": server.kind, "cpu_us": 1e6 * cpu / found["offers"], **found}


def offers(args, folder, note):
    """The router and the proxy in turns, before the same doubles; and the doubles without either."""
    points = []
    with redis(folder) as store, double(args.programs, store.port) as behind:
        direct = f"http://127.0.0.1:{behind.port}/bench/webrtc/offer"
        proxy = Kind(PROXY, "/bench", (str(args.programs / "bench-router"), "proxy", "--listen", "127.0.0.1:{port}", "--to", f"127.0.0.1:{behind.port}"))
        for _ in range(args.rounds):
            points.append({"server": "directly", "cpu_us": None, **finish(drive(args.programs, direct, args.rate, args.seconds))})
            for kind in (proxy, router(args.programs, folder, store.port)):
                with Server(kind, SERVER_CORE) as server:
                    server.kind = kind.name
                    if kind.name == ROUTER:
                        answers(server.url)
                    points.append(point(server, f"{server.url}/webrtc/offer", args))
                note(f"{kind}: {points[-1]['cpu_us']:.0f} µs an offer, p50 {points[-1]['p50_ms']:.2f} ms, p99 {points[-1]['p99_ms']:.2f} ms")
    return points


def offers_table(points):
    of = lambda server: [p for p in points if p["server"] == server]
    cpu = lambda server: statistics.median(p["cpu_us"] for p in of(server))
    # Whoever else is on the machine only adds to delays: the round in which it was quietest says most.
    quietest = lambda server: min(of(server), key=lambda p: p["p99_ms"])
    rows = []
    for server in ("directly", PROXY, ROUTER):
        p50, p99 = quietest(server)["p50_ms"], quietest(server)["p99_ms"]
        row = [server, f"{p50:.2f}", f"{p99:.2f}"]
        if server == "directly":
            rows.append([*row, "—", "—", "—", "—"])
            continue
        added = p50 - quietest("directly")["p50_ms"], p99 - quietest("directly")["p99_ms"]
        rows.append([*row, f"{added[0]:.2f}", f"{added[1]:.2f}", f"{cpu(server):.0f}", f"{100 * cpu(PROXY) / cpu(server):.0f} %"])
    return report.table(["way", "p50, ms", "p99, ms", "added p50, ms", "added p99, ms", "CPU an offer, µs", "offers a CPU second, of the proxy's"], rows)


def with_a_worker(args, folder, note):
    """Real calls through the router to a real worker."""
    with redis(folder) as store, worker(args.programs, folder, store.port), Server(router(args.programs, folder, store.port), SERVER_CORE) as server:
        answers(server.url)
        before, count = server.cpu_s(), int(WORKER_RATE * args.seconds)
        # Each call lasts until all are there: nothing but offers, candidates and ends goes by the router.
        command = ["taskset", "-c", str(CLIENT_CORE), str(args.programs / "streamfleet"), "load", server.url, "-n", str(count), "--ramp", str(WORKER_RATE), "--seconds", "3", "--json", "-"]
        load = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=180).stdout)
        cpu = server.cpu_s() - before
    found = {"sessions": count, "failed": load["sessions"]["failed"], "cpu_us": 1e6 * cpu / count, "answer_ms": report.quantile(load["offer_to_answer_ms"], "p50")}
    note(f"with a worker: {found}")
    return found


def memory(args, folder, note):
    """A router that knows so many sessions."""
    with redis(folder) as store, double(args.programs, store.port), Server(router(args.programs, folder, store.port), SERVER_CORE) as server:
        answers(server.url)
        url = f"{server.url}/webrtc/offer"
        finish(drive(args.programs, url, 100, 2))
        idle, made = server.resident_bytes(), 0
        while made < args.known:
            seconds = min(30.0, (args.known - made) / FILL_RATE)
            found = finish(drive(args.programs, url, FILL_RATE, seconds))
            made += found["offers"] - found["failed"]
            if found["failed"] > found["offers"] / 2:
                raise RuntimeError(f"{found['failed']} of {found['offers']} offers failed: {found['first_failure']}")
        full = server.resident_bytes()
    note(f"{made} sessions known: {idle / 1e6:.1f} MB before, {full / 1e6:.1f} MB after")
    return {"known": made, "idle_mb": idle / 1e6, "full_mb": full / 1e6}


def commands(port):
    """Commands that clients have sent, and all that were carried out: scripts carry out some of their own."""
    out = subprocess.run(["redis-cli", "-p", str(port), "INFO", "all"], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    scripts = int(fields.get("cmdstat_evalsha", "calls=0,").split("=")[1].split(",")[0])
    return scripts, int(fields["total_commands_processed"])


def liveness(args, folder, note):
    """What Redis is asked for nothing but that workers live."""
    with redis(folder) as store, Beside([args.programs / "bench-router", "liveness", "--redis", store.port, "--seconds", args.seconds + 2]) as workers:
        assert workers.process.stdout.readline().strip() == "begun"
        time.sleep(1)
        before, cpu, at = commands(store.port), cpu_s(store.process.pid), time.monotonic()
        time.sleep(args.seconds)
        window = time.monotonic() - at
        cpu = 100 * (cpu_s(store.process.pid) - cpu) / window
        scripts, every = ((after - earlier) / window for after, earlier in zip(commands(store.port), before))
    note(f"liveness: {scripts:.0f} scripts a second, {every:.0f} commands in all, {cpu:.1f} % of a core")
    return {"scripts": scripts, "commands": every, "core_pct": cpu}


def main():
    args = arguments()
    if {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0):
        sys.exit(f"cores {SERVER_CORE} and {CLIENT_CORE} are needed")
    os.sched_setaffinity(0, {CLIENT_CORE})
    began = time.monotonic()

    def note(text):
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    host = report.machine(args.programs / "streamfleet")
    with tempfile.TemporaryDirectory() as folder:
        points = offers(args, folder, note)
        real = with_a_worker(args, folder, note)
        alive = liveness(args, folder, note)
        parts = [
            f"`bench/router.sh` on {host['cores']} cores of {host['cpu']}, Linux {host['kernel']}, {host['streamfleet']}. The router or the proxy has one core, clients, workers and Redis the other.",
            f"### Offers\n{args.rate} a second before workers that answer at once, {args.rounds} rounds of {args.seconds:g} s in turns: medians of the CPU, delays of the quietest round.",
            offers_table(points),
            f"With a real worker behind it, {real['sessions']} calls at {WORKER_RATE} a second ({real['failed']} failed): {real['cpu_us']:.0f} µs of the router's CPU a call, candidates and end included; offer to answer {real['answer_ms']:.1f} ms (p50).",
            f"### The store\n100 workers with 50 sessions each that do nothing but live: {alive['scripts']:.0f} scripts a second ({alive['commands']:.0f} commands, those within them counted), {alive['core_pct']:.1f} % of a core of Redis.",
        ]
        if args.known:
            full = memory(args, folder, note)
            each = 1e6 * (full["full_mb"] - full["idle_mb"]) / full["known"]
            parts.append(f"### Memory\nA router has {full['idle_mb']:.1f} MB at the start and {full['full_mb']:.1f} MB after {full['known']} sessions: {each:.0f} bytes for each that it remembers.")
    report.write(args.out, "\n\n".join(parts), report.ROUTER)
    note(f"written: {args.out}")


if __name__ == "__main__":
    main()
