"""Sessions per core, CPU, latency and memory of Streamfleet beside FastRTC and bare aiortc.

The server has one core to itself, the client the other; a fresh server for every point; the servers take turns, so that a
slow minute of the machine falls on all of them. Everything is bounded: counts by --most, time by --seconds.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import report
from servers import Server, cpu_s, kinds

ROOT = Path(__file__).parent.parent
SERVER_CORE, CLIENT_CORE = 0, 1
# The criterion of a carried session count.
MIN_ECHOED_PCT, MAX_P95_MS = 99.0, 300.0
# After the last session has started: time for the slowest to connect, before the window in which CPU is read.
SETTLE_S = 3.0
# Sessions started a second: what the slowest server sets up while it carries its calls. The same for all.
RAMP = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streamfleet", type=Path, required=True, help="the release program")
    parser.add_argument("--seconds", type=float, default=15, help="steady window of each point (default 15)")
    parser.add_argument("--rounds", type=int, default=3, help="times each point is measured; tables show medians (default 3)")
    parser.add_argument("--counts", default="1,10,20,30,100,300,1000", help="session counts of the tables")
    parser.add_argument("--most", type=int, default=2000, help="largest count that is tried (default 2000)")
    parser.add_argument("--only", default="", help="names of servers that contain this")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks.md")
    parser.add_argument("--no-search", dest="search", action="store_false", help="leave out the search for sessions per core")
    return parser.parse_args()


def measure(kind, count, seconds, streamfleet):
    """One point: a fresh server, `count` sessions for `seconds`."""
    # A faster ramp for counts that would otherwise spend minutes on it; those servers set up a session in 10 ms or less.
    ramp = max(RAMP, count // 10)
    with Server(kind, SERVER_CORE) as server:
        idle = server.resident_bytes()
        # The client measures from the moment when all sessions are there: its window holds ours.
        lasts = math.ceil(SETTLE_S + seconds + 1)
        command = [
            "taskset", "-c", str(CLIENT_CORE), str(streamfleet), "load", server.url,
            "-n", str(count), "--ramp", str(ramp), "--seconds", str(lasts), "--json", "-",
        ]
        started = time.monotonic()
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_until(started + count / ramp + SETTLE_S, server)
            before, client_before, at = server.cpu_s(), cpu_s(client.pid), time.monotonic()
            wait_until(at + seconds / 2, server)
            resident = server.resident_bytes()
            wait_until(at + seconds, server)
            cpu, client_cpu, window = server.cpu_s() - before, cpu_s(client.pid) - client_before, time.monotonic() - at
            # The client reports when its sessions are closed; a server that hangs must not hang the benchmark.
            out, said = client.communicate(timeout=count / ramp + lasts + 60)
        finally:
            client.kill()
            client.wait()
    if not out.strip():
        raise RuntimeError(f"no report: {' '.join(command)}\n{said.decode(errors='replace')}")
    # Status 1 and 2 say that sessions failed; the report says how many.
    load = json.loads(out)
    return {
        "server": kind.name,
        "sessions": count,
        "core_pct": 100 * cpu / window,
        "client_core_pct": 100 * client_cpu / window,
        "core_pct_per_session": 100 * cpu / window / count,
        "kb_per_session": (resident - idle) / count / 1000,
        "resident_mb": resident / 1e6,
        "load": load,
    }


def wait_until(moment, server):
    while (left := moment - time.monotonic()) > 0:
        server.drain_log()
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}")
        time.sleep(min(left, 0.25))


def carried(point):
    """Whether every session was served well enough."""
    load = point["load"]
    p95 = report.quantile(load["echo"], "p95")
    return load["sessions"]["failed"] == 0 and 100 * load["packets"]["share"] >= MIN_ECHOED_PCT and p95 is not None and p95 < MAX_P95_MS


def search(kind, args, note):
    """The largest count that is carried, to a twentieth: doubling, then bisection; and why it is not larger."""
    good, best, bad, failed = 0, None, None, None
    count = 8
    while count <= args.most and bad is None:
        point = attempt(kind, count, args, note)
        if point and carried(point):
            good, best, count = count, point, count * 2
        else:
            bad, failed = count, point
    while bad is not None and bad - good > max(1, good // 20):
        middle = (good + bad) // 2
        point = attempt(kind, middle, args, note)
        if point and carried(point):
            good, best = middle, point
        else:
            bad, failed = middle, point
    return {"server": kind.name, "sessions": good, "point": best, "limit": limit(bad, failed)}


def limit(bad, failed):
    """What kept the next larger count from being carried: a core that is nearly full says so."""
    if bad is None:
        return "the largest count tried"
    if failed is None:
        return f"no measurement at {bad}"
    cores = {"the server's core": failed["core_pct"], "the client's core": failed["client_core_pct"]}
    name, pct = max(cores.items(), key=lambda item: item[1])
    return f"{name}: {pct:.0f} % at {bad}" if pct > 85 else f"latency or loss at {bad}, neither core full"


def attempt(kind, count, args, note):
    """A point, or None when the server or the client gave up: that count is not carried."""
    try:
        point = measure(kind, count, args.seconds, args.streamfleet)
    except (RuntimeError, subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        note(f"{kind} × {count}: {error}")
        return None
    load = point["load"]
    p95 = report.number(report.quantile(load["echo"], "p95"), 1)
    note(
        f"{kind} × {count}: {point['core_pct']:.1f} % of a core, client {point['client_core_pct']:.0f} %, {100 * load['packets']['share']:.2f} % back, "
        f"p95 {p95} ms, {load['sessions']['failed']} failed{'' if carried(point) else '; not carried'}"
    )
    return point


def main():
    args = arguments()
    if {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0):
        sys.exit(f"cores {SERVER_CORE} and {CLIENT_CORE} are needed")
    compared = [kind for kind in kinds(args.streamfleet) if args.only.lower() in kind.name.lower()]
    began = time.monotonic()

    def note(text):
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    found = [search(kind, args, note) for kind in compared] if args.search else []
    most = {entry["server"]: entry["sessions"] for entry in found}
    counts = sorted({int(count) for count in args.counts.split(",")})
    points = []
    for round_number in range(args.rounds):
        for count in counts:
            for kind in compared:
                # Beyond what a server carries its figures say nothing.
                if count <= most.get(kind.name, args.most):
                    note(f"round {round_number + 1} of {args.rounds}")
                    if point := attempt(kind, count, args, note):
                        points.append(point)
    result = {
        "command": "make bench" + (f' ARGS="{" ".join(shown(sys.argv[1:]))}"' if shown(sys.argv[1:]) else ""),
        "machine": report.machine(args.streamfleet),
        "criterion": {"min_echoed_pct": MIN_ECHOED_PCT, "max_p95_ms": MAX_P95_MS},
        "seconds": args.seconds,
        "rounds": args.rounds,
        "sessions_per_core": found,
        "points": points,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    report.write(args.out, report.tables(result, statistics.median))
    note(f"written: {args.out} and {args.out.with_suffix('.json')}")


def shown(argv):
    """The arguments that the reader of the report would give: not where this machine keeps the program and the report."""
    kept, skip = [], False
    for argument in argv:
        if skip or argument.startswith(("--streamfleet", "--out")):
            skip = argument in ("--streamfleet", "--out")
            continue
        kept.append(argument)
    return kept


if __name__ == "__main__":
    main()
