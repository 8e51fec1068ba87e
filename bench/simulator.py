"""How long `streamfleet simulate` takes for a day of a million sessions, each side of it and the command as a whole.

Each side is timed by the command itself, from a load that has been made to what came of it. Ends with an error where the rule's side takes
longer than it may.
"""

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

import report

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ["simulate", "--sessions-per-day", "1000000", "--max", "2000", "--output", "json"]
SIDES = {"streamfleet": "the rule that ships", "hpa5h": "HPA, 5 h", "hpa30s": "HPA, 30 s"}
# What the rule's side may take, on one core.
MOST_S = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streamfleet", type=Path, required=True, help="the release program")
    parser.add_argument("--rounds", type=int, default=3, help="how often it is played (default 3)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks.md")
    return parser.parse_args()


def played(program):
    """One day, and what the command took for it."""
    began = time.monotonic()
    done = subprocess.run([program, *COMMAND], capture_output=True, text=True, check=True)
    (day,) = json.loads(done.stdout)
    return day, time.monotonic() - began


def text(host, rounds):
    """Markdown between the markers, and whether the rule's side takes no longer than it may."""
    rows, medians = [], {}
    for side, name in SIDES.items():
        took = [day[side]["seconds"] for day, _ in rounds]
        medians[side] = statistics.median(took)
        of = rounds[0][0][side]
        rows.append([name, str(of["offered"]), str(of["mostPods"]), f"{medians[side]:.1f}", f"{max(took):.1f}"])
    took = [took for _, took in rounds]
    rows.append(["the command", "", "", f"{statistics.median(took):.1f}", f"{max(took):.1f}"])
    aims, is_reached = report.aims([
        ("the rule's side of a day of a million sessions", f"under {MOST_S} s", f"{medians['streamfleet']:.1f} s", medians["streamfleet"] < MOST_S),
    ])
    parts = [
        f"`bench/simulator.sh` on {host['cores']} cores of {host['cpu']}, Linux {host['kernel']}, {host['streamfleet']}: `streamfleet {' '.join(COMMAND)}`, {len(rounds)} rounds.",
        aims,
        report.table(["", "sessions", "pods at most", "median, s", "worst, s"], rows),
    ]
    return "\n\n".join(parts), is_reached


def main():
    args = arguments()
    written, is_reached = text(report.machine(args.streamfleet), [played(args.streamfleet) for _ in range(args.rounds)])
    report.write(args.out, written, report.SIMULATOR)
    if not is_reached:
        raise SystemExit(f"the rule's side takes {MOST_S} s or more: {args.out}")


if __name__ == "__main__":
    main()
