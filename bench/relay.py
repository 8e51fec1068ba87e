"""What a relay's thread costs, beside a forwarder that does nothing else, and beside coturn.

All figures are ratios of what takes turns within a few hundred milliseconds: on a shared machine nothing else can be compared.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import report

ROOT = Path(__file__).parent.parent
# As the workers' side of a network card that does not segment.
OWN, WORKER, SPACE, LINK = "10.213.7.1", "10.213.7.2", "streamfleet-bench", "sfbench0"
WAYS = {"to_worker": "client → worker", "to_client": "worker → clients"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="bench-relay")
    parser.add_argument("--turns", type=int, default=40, help="turns of each variant (default 40)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


def run(args, *arguments):
    """What a part of the program tells."""
    out = subprocess.run([args.program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


@contextmanager
def veth():
    """Two namespaces with a link that leaves segmentation to the kernel."""
    def call(*command):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    call("ip", "netns", "add", SPACE)
    try:
        call("ip", "link", "add", LINK, "type", "veth", "peer", "name", "peer0", "netns", SPACE)
        call("ip", "addr", "add", f"{OWN}/24", "dev", LINK)
        call("ip", "-n", SPACE, "addr", "add", f"{WORKER}/24", "dev", "peer0")
        call("ip", "-n", SPACE, "link", "set", "peer0", "up")
        call("ip", "link", "set", LINK, "up")
        call("ethtool", "-K", LINK, "tx-udp-segmentation", "off")
        yield
    finally:
        subprocess.run(["ip", "link", "del", LINK], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "netns", "del", SPACE], stderr=subprocess.DEVNULL, check=False)


def size_of(size):
    return "voice" if size == "voice" else f"{size:,} B".replace(",", " ")


def saturated_table(found):
    """Rows of variants, columns of flows: the share of a bare forwarder's CPU time."""
    rows, flows = [], sorted({row["flows"] for part in found for row in part["rows"] if row["variant"] != "bare"})
    for part in found:
        by_variant = {}
        for row in part["rows"]:
            by_variant.setdefault(row["variant"], {})[row["flows"]] = row
        for variant, each in by_variant.items():
            start = [WAYS[part["way"]], size_of(part["size"]), variant]
            if variant == "bare":
                rows.append([*start, f"1 ({each[1]['ns'] / 1000:.1f} µs)", *["" for _ in flows[1:]]])
            else:
                rows.append([*start, *(f"{each[count]['ratio']:.2f}" for count in flows)])
    return report.table(["way", "size", "variant", *(f"{count:,} flows".replace(",", " ") for count in flows)], rows)


def brief_table(found, label):
    """One row a variant."""
    rows = []
    for part in found:
        rows += [[label(part), size_of(part["size"]), row["variant"], f"{row['ratio']:.2f}"] for row in part["rows"] if not row["variant"].startswith("bare")]
    return report.table(["", "size", "variant", "of bare"], rows)


def rate_table(found):
    rows = []
    for part in found:
        for row in part["rows"]:
            cpu = "—" if row["variant"] == "directly" else f"{row['ns'] / 1000:.1f}"
            rows.append([size_of(part["size"]), row["variant"], f"{row['p50_us']:.1f}", f"{row['p99_us']:.1f}", cpu, f"{100 * row['lost'] / row['sent']:.2f}"])
    return report.table(["size", "variant", "p50, µs", "p99, µs", "CPU a packet, µs", "lost, %"], rows)


def coturn_table(found):
    rows = []
    for part in found:
        rows += [[WAYS[part["way"]], size_of(part["size"]), row["server"], f"{row['ns'] / 1000:.2f}", f"{row['coturn_costs_times']:.2f}"] for row in part["rows"]]
    return report.table(["way", "size", "server", "CPU a packet, µs", "coturn's, times this"], rows)


def flows_text(found):
    seconds, flows = found["again_s"], found["flows"]
    rate, octets = found["datagrams"] / seconds, found["datagram_octets"] / seconds
    return (
        f"{flows} flows take {found['heap_octets']:.0f} bytes each ({found['resident_octets']:.0f} resident), and {found['told_octets']:.0f} more at each relay that knows that it may come there next, its own included, once its client is there.\n\n"
        f"To be told to one other relay, every {seconds} s, they are {found['datagrams']} datagrams of {found['datagram_octets'] / found['datagrams']:.0f} octets: "
        f"{found['datagrams'] / flows:.2f} packets and {found['datagram_octets'] / flows:.0f} octets a flow and replica each time, {rate:.0f} packets and {octets / 1000:.0f} kB a second for all of them. "
        f"Saying it costs {found['saying_us']:.2f} µs of CPU a flow, hearing it {found['hearing_us']:.2f} µs."
    )


def main():
    args = arguments()
    began = time.monotonic()

    def note(text):
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    cpu = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    saturated = run(args, "turns", "--turns", args.turns)
    note("saturated")
    spread = [part for workers in (8, 64) for part in run(args, "turns", "--turns", args.turns // 2, "--flows", 10_000, "--workers", workers, "--way", "to_worker", "--sizes", "100,1200")]
    spread += run(args, "turns", "--turns", args.turns // 2, "--flows", 10_000, "--sizes", "voice")
    note("several workers, voices")
    with veth():
        software = run(args, "turns", "--turns", args.turns // 2, "--flows", 10_000, "--way", "to_worker", "--own", OWN, "--worker-ip", WORKER, "--worker-space", f"/run/netns/{SPACE}")
    note("segmentation in software")
    rate = run(args, "rate")
    note("fixed rate")
    coturn = run(args, "coturn")
    note("coturn")
    flows, = run(args, "flows")
    label = lambda part: f"{WAYS[part['way']]}, {part['workers']} worker{'s' if part['workers'] > 1 else ''}"
    parts = [
        f"`bench/relay.sh` on {os.cpu_count()} cores of {cpu}, Linux {report.kernel()}; medians of {args.turns} turns.",
        f"### Saturated, one worker\nCPU time of a packet, of a bare forwarder's that takes turns with it.\n\n{saturated_table(saturated)}",
        f"### Several workers, and packets of many lengths\n10 000 flows.\n\n{brief_table(spread, label)}",
        f"### A device that does not segment\nveth between two network namespaces, `tx-udp-segmentation` off: the kernel segments; 10 000 flows, bare over the same link.\n\n{brief_table(software, label)}",
        f"### At {rate[0]['rate']:,} packets a second\nFrom a client's `sendmmsg` to the worker's `recvmmsg`, {rate[0]['flows']} flows; medians of {rate[0]['turns']} turns of 0.4 s.\n\n{rate_table(rate)}",
        f"### Beside coturn\ncoturn with one relay thread, {coturn[0]['flows']} allocations, channel data; medians of {coturn[0]['turns']} turns of 0.3 s.\n\n{coturn_table(coturn)}",
        f"### A flow\n{flows_text(flows)}",
    ]
    report.write(args.out, "\n\n".join(parts), report.RELAY)
    note(f"written: {args.out}")


if __name__ == "__main__":
    main()
