"""The tables of docs/benchmarks.md, from the figures of run.py. What is written outside the markers stays as it is."""

import os
import platform
import subprocess
from collections import defaultdict
from pathlib import Path

# What is between a pair of markers is written; everything else in the page stays as it is.
SESSIONS = "<!-- tables: written by `make bench`, do not edit -->", "<!-- end of tables -->"
CONVERSATIONS = "<!-- conversations: written by `bench/conversations.sh`, do not edit -->", "<!-- end of conversations -->"
ROUTER = "<!-- router: written by `bench/router.sh`, do not edit -->", "<!-- end of router -->"
RELAY = "<!-- relay: written by `bench/relay.sh`, do not edit -->", "<!-- end of relay -->"
OPERATOR = "<!-- operator: written by `bench/operator.sh`, do not edit -->", "<!-- end of operator -->"
SIMULATOR = "<!-- simulator: written by `bench/simulator.sh`, do not edit -->", "<!-- end of simulator -->"
BEGIN, END = SESSIONS


def kernel():
    """Its version; what a distribution or a host adds to it tells a reader nothing."""
    return ".".join(platform.release().split(".")[:2])


def machine(streamfleet):
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1000**2
    version = subprocess.run([streamfleet, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": memory,
        "kernel": kernel(),
        "python": platform.python_version(),
        "streamfleet": version,
    }


def number(value, digits):
    return "—" if value is None else f"{value:.{digits}f}"


def quantile(summary, name):
    """A quantile of the client's report; None where nothing was measured."""
    return summary and summary[name]


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(row) + " |" for row in rows)])


def aims(rows):
    """The table of (what, aim, measured, whether that is reached; None where nothing is aimed at), if there are any, and whether all are."""
    verdicts = {True: "reached", False: "**missed**", None: ""}
    told = [[what, aim, measured, verdicts[is_reached]] for what, aim, measured, is_reached in rows]
    return table(["", "aim", "measured", ""], told) if told else "", all(is_reached is not False for *_, is_reached in rows)


def grouped(points, figure, median):
    """server → count → median of a figure over the rounds."""
    values = defaultdict(lambda: defaultdict(list))
    for point in points:
        value = figure(point)
        if value is not None:
            values[point["server"]][point["sessions"]].append(value)
    return {server: {count: median(each) for count, each in counts.items()} for server, counts in values.items()}


FIGURES = [
    ("Server CPU per session, % of one core", 3, lambda p: p["core_pct_per_session"]),
    ("Server CPU in total, % of one core", 1, lambda p: p["core_pct"]),
    ("Packets back, %", 2, lambda p: 100 * p["load"]["packets"]["share"]),
    ("Echo latency p50, ms", 2, lambda p: quantile(p["load"]["echo"], "p50")),
    ("Echo latency p95, ms", 2, lambda p: quantile(p["load"]["echo"], "p95")),
    ("Offer to answer p50, ms", 1, lambda p: quantile(p["load"]["offer_to_answer_ms"], "p50")),
    ("Offer to first media p50, ms", 1, lambda p: quantile(p["load"]["offer_to_first_media_ms"], "p50")),
    ("Resident memory per session, kB", 0, lambda p: p["kb_per_session"]),
]


def tables(result, median):
    """Markdown between the markers."""
    host, points = result["machine"], result["points"]
    counts = sorted({point["sessions"] for point in points})
    criterion = result["criterion"]
    parts = [
        f"`{result['command']}` on {host['cores']} cores of {host['cpu']}, {host['memory_gb']} GB, Linux {host['kernel']}, Python {host['python']}, "
        f"{host['streamfleet']}. Server on one core, client on the other; {result['rounds']} rounds of {result['seconds']:g} s, in turns; medians.",
    ]
    if result["sessions_per_core"]:
        rows = [[entry["server"], str(entry["sessions"]), number(entry["point"] and entry["point"]["core_pct"], 0), entry["limit"]] for entry in result["sessions_per_core"]]
        parts += [
            f"### Sessions per core\nAt least {criterion['min_echoed_pct']:g} % of packets back, p95 echo under {criterion['max_p95_ms']:g} ms, no session failed.",
            table(["server", "sessions", "% of its core then", "what ended the search"], rows),
        ]
    for title, digits, figure in FIGURES:
        values = grouped(points, figure, median)
        rows = [[server, *(number(by_count.get(count), digits) for count in counts)] for server, by_count in values.items()]
        parts += [f"### {title}", table(["sessions", *map(str, counts)], rows)]
    cost = grouped(points, FIGURES[0][2], median)
    base = cost.get("FastRTC 0.0.34")
    if base:
        floor = base[max(base)]
        rows = [
            [server, str(max(by_count)), number(by_count[max(by_count)], 3), f"1/{floor / by_count[max(by_count)]:.1f}"]
            for server, by_count in cost.items()
            if by_count[max(by_count)] > 0
        ]
        parts += ["### CPU per session against FastRTC, each at the largest count measured", table(["server", "sessions", "% of a core each", "of FastRTC's"], rows)]
    return "\n\n".join(parts)


PREAMBLE = f"""# Benchmarks

Every server answers the same route and sends the audio it gets back. The client is `streamfleet load`: real ICE, DTLS and SRTP
sessions that send pre-encoded Opus, 20 ms a packet. Run it yourself: `make bench` (two cores, Linux).

{BEGIN}
{END}

## How to read it
- CPU is user and system time of the server process (`/proc/PID/stat`) over the window in which all sessions are up; set-up is not in it.
- Memory is resident memory in that window less that of the idle server, divided by the sessions.
- *Encoded* forwards payloads; *frames* decodes, resamples and encodes, which is what FastRTC does with every frame.
- FastRTC runs as its documentation shows: one process, uvicorn, an asynchronous echo handler. Python servers are usually scaled by
  processes; the figures are per core, so that multiplies both sides alike.
- Echo latency is of each packet where packets come back as they went; where they are decoded and encoded again, of tone bursts that some
  of the sessions send, without any buffer of the client's own.
- Loopback has no loss, no jitter and no network card: the kernel's part is smaller than on a network.
"""


def write(path, text, markers=SESSIONS):
    """Puts the tables between the markers of the page, or makes the page."""
    begin, end = markers
    page = path.read_text() if path.exists() else PREAMBLE if markers == SESSIONS else f"{begin}\n{end}\n"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{path} has lost its markers: {begin} … {end}")
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}")
