"""Voice activity, the delay of replies to pauses, and the cost of WebSocket sessions, beside WebRTC's detector and FastRTC.

Everything that is compared is measured in one run, in turns, with the server on one core and the client on the other.
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

import pauses
import report
from run import CLIENT_CORE, SERVER_CORE, SETTLE_S, wait_until
from servers import HERE, Kind, Server, cpu_s

ROOT = HERE.parent
# The rate of both echoes, both ways: nothing is resampled on either side.
ECHO_RATE = 24000
# What a reply waits before it speaks, here and in bench/worker. FastRTC detects a pause on one thread, which wakes the reply and
# then empties the queue of what is to be played; a reply that speaks at once is thrown away with it.
THOUGHT_S = 0.1
# New sessions a second: FastRTC sets up as many beside those that it carries.
RAMP = 20
FRAMES_MS = (20, 40)
FASTRTC = "FastRTC 0.0.34"
OURS = "Streamfleet"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the release programs")
    parser.add_argument("--turns", type=int, default=24, help="turns of each conversation (default 24)")
    parser.add_argument("--sessions", type=int, default=100, help="WebSocket sessions of each server (default 100)")
    parser.add_argument("--seconds", type=float, default=12, help="steady window of each point (default 12)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each point is measured; tables show medians (default 2)")
    parser.add_argument("--only", choices=("voice", "pauses", "sockets"), help="one part; the others are left out of the page")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


def python(script, *more):
    return (sys.executable, str(HERE / "servers" / script), "{port}", *more)


def ours(program, *more):
    return (str(program), *more, "--listen", "127.0.0.1:{port}", "--udp", "127.0.0.1:{udp}", "--admin-listen", "127.0.0.1:0", "--loops", "1")


def answerers(programs):
    worker = ours(programs / "bench-worker", "--config", str(HERE / "worker/worker.yaml"))
    return [
        Kind(f"{FASTRTC}, webrtcvad mode 2", "", python("fastrtc_pause.py", str(THOUGHT_S))),
        Kind(f"{FASTRTC}, webrtcvad mode 2, without a thought", "", python("fastrtc_pause.py", "0")),
        Kind(f"{OURS}, webrtc-vad mode 2", "/webrtc-vad", worker),
        Kind(f"{OURS}, its own detector", "/earshot", worker),
    ]


def echoes(programs):
    return [
        Kind(FASTRTC, "", python("fastrtc_echo.py", str(ECHO_RATE))),
        Kind(OURS, "/echo-frames", ours(programs / "streamfleet", "dev")),
    ]


def voice(args, note):
    """The table of voice activity, as the example prints it."""
    note("voice activity")
    done = subprocess.run([args.programs / "examples/compare"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def conversations(args, note):
    found = []
    for kind in answerers(args.programs):
        with Server(kind, SERVER_CORE) as server:
            measured = pauses.measure(server.url, args.turns, seed=7)
        note(f"{kind}: {args.turns - measured['lost']} of {args.turns} turns answered")
        found.append({"server": kind.name, **measured})
    return found


def socket_load(kind, frame_ms, args):
    """One point: a fresh server, `sessions` sockets for `seconds`."""
    lasts = math.ceil(SETTLE_S + args.seconds + 1)
    with Server(kind, SERVER_CORE) as server:
        command = [
            "taskset", "-c", str(CLIENT_CORE), str(args.programs / "streamfleet"), "load", server.url, "--transport", "websocket",
            "--frame-ms", str(frame_ms), "--input-rate", str(ECHO_RATE), "--output-rate", str(ECHO_RATE),
            "-n", str(args.sessions), "--ramp", str(RAMP), "--seconds", str(lasts), "--json", "-",
        ]
        started = time.monotonic()
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_until(started + args.sessions / RAMP + SETTLE_S, server)
            before, client_before, at = server.cpu_s(), cpu_s(client.pid), time.monotonic()
            wait_until(at + args.seconds, server)
            cpu, client_cpu, window = server.cpu_s() - before, cpu_s(client.pid) - client_before, time.monotonic() - at
            out, said = client.communicate(timeout=args.sessions / RAMP + lasts + 60)
        finally:
            client.kill()
            client.wait()
    if not out.strip():
        raise RuntimeError(f"no report: {' '.join(command)}\n{said.decode(errors='replace')}")
    load = json.loads(out)
    return {
        "server": kind.name,
        "frame_ms": frame_ms,
        "core_pct": 100 * cpu / window,
        "client_core_pct": 100 * client_cpu / window,
        "back_pct": 100 * load["packets"]["share"],
        "echo_p50_ms": report.quantile(load["echo"], "p50"),
        "failed": load["sessions"]["failed"],
    }


def sockets(args, note):
    points = []
    for round_number in range(args.rounds):
        for frame_ms in FRAMES_MS:
            for kind in echoes(args.programs):
                point = socket_load(kind, frame_ms, args)
                note(f"{kind}, {frame_ms} ms: {point['core_pct']:.1f} % of a core, {point['back_pct']:.1f} % back, client {point['client_core_pct']:.0f} %")
                points.append(point)
    return points


def pauses_table(found):
    rows = []
    for each in found:
        delays = each["delays_ms"]
        p95 = delays[max(0, math.ceil(0.95 * len(delays)) - 1)] if delays else None
        row = [statistics.median(delays) if delays else None, p95, delays[0] if delays else None, delays[-1] if delays else None]
        rows.append([each["server"], f"{each['turns'] - each['lost']} of {each['turns']}", *(report.number(value, 0) for value in row)])
    return report.table(["server", "turns answered", "median, ms", "p95, ms", "least, ms", "most, ms"], rows)


def sockets_table(points, sessions):
    rows, cost = [], {}
    for frame_ms in FRAMES_MS:
        for server in dict.fromkeys(point["server"] for point in points):
            of_it = [point for point in points if (point["server"], point["frame_ms"]) == (server, frame_ms)]
            median = {name: statistics.median([point[name] for point in of_it if point[name] is not None] or [math.nan]) for name in of_it[0] if name not in ("server", "frame_ms")}
            each = median["core_pct"] / sessions
            cost[server, frame_ms] = each
            share = cost[FASTRTC, frame_ms] / each if each else math.inf
            rows.append([
                server, str(frame_ms), f"{median['core_pct']:.1f}", f"{10 * each:.3f}", f"1/{share:.1f}",
                f"{median['back_pct']:.1f}", f"{median['echo_p50_ms']:.0f}" if not math.isnan(median["echo_p50_ms"]) else "—", f"{median['failed']:.0f}",
            ])
    head = ["server", "frame, ms", "% of a core", "CPU a session-second, ms", "of FastRTC's", "audio back, %", "echo p50, ms", "sessions failed"]
    return report.table(head, rows)


def main():
    args = arguments()
    if {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0):
        sys.exit(f"cores {SERVER_CORE} and {CLIENT_CORE} are needed")
    os.sched_setaffinity(0, {CLIENT_CORE})
    began = time.monotonic()

    def note(text):
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    wanted = lambda part: args.only in (None, part)
    host = report.machine(args.programs / "streamfleet")
    parts = [f"`bench/conversations.sh` on {host['cores']} cores of {host['cpu']}, Linux {host['kernel']}, Python {host['python']}, {host['streamfleet']}."]
    if wanted("voice"):
        parts += ["### Voice activity", voice(args, note)]
    if wanted("pauses"):
        parts += [f"### From the last sample of speech to the first of the reply\nReplies think for {1000 * THOUGHT_S:.0f} ms before they speak; the delays contain it.", pauses_table(conversations(args, note))]
    if wanted("sockets"):
        parts += [
            f"### WebSocket sessions: server CPU\n{args.sessions} sessions that echo {ECHO_RATE} Hz both ways; {args.rounds} rounds of {args.seconds:g} s, medians.",
            sockets_table(sockets(args, note), args.sessions),
        ]
    report.write(args.out, "\n\n".join(parts), report.CONVERSATIONS)
    note(f"written: {args.out}")


if __name__ == "__main__":
    main()
