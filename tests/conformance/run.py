"""The conformance suite: one set of clients and cases, held against any server of FastRTC's protocol.

  python tests/conformance/run.py --server fastrtc
  python tests/conformance/run.py --server streamfleet=http://127.0.0.1:8080

The first starts the real FastRTC (its interpreter: --fastrtc-python or $FASTRTC_PYTHON) and expects of it what it was
measured to do. The second expects what the protocol notes promise. docs/conformance.md has the services that a server must
offer, and what the marks mean."""

import argparse
import asyncio
import json
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass

import cases  # noqa: F401, registers them
from case import CASES, Mark, Promise, Schedule, differences
from servers import FastRtc, Running

HERE = os.path.dirname(os.path.abspath(__file__))
# Sessions at once. FastRTC is one thread of Python: beyond this, its own delays would be measured.
TOGETHER = 3
# Of all cases together; a hung one is cut off long before.
RUN_LIMIT_S = 300


@dataclass
class Result:
    case: object
    observed: dict
    found: list
    seconds: float

    def as_json(self, promise):
        return {
            "name": self.case.name,
            "mark": self.case.mark.value,
            "checks": self.case.checks,
            "ok": not self.found,
            "differences": self.found,
            "observed": self.observed,
            "expected": {key: repr(value) for key, value in self.case.expected[promise].items()},
            "seconds": round(self.seconds, 2),
        }


async def judge(case, server, promise):
    began = time.monotonic()
    observed, found = {}, []
    try:
        async with asyncio.timeout(case.deadline_s):
            observed = await case.run(server)
        found = differences(case.expected[promise], observed)
    # Whatever a server makes a client fail with is that case's result, and no other's.
    except Exception as error:  # noqa: BLE001
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(HERE)][-1]
        found = [f"{type(error).__name__} {error} in line {ours.lineno} of {os.path.relpath(ours.filename, HERE)}"]
    return Result(case, observed, found, time.monotonic() - began)


async def run(selected, server, promise, report):
    """Runs all cases, each when its schedule allows, and reports each as it is done."""
    results = []

    async def one(case):
        result = await judge(case, server, promise)
        results.append(result)
        report(result)

    def of(schedule):
        return [case for case in selected if case.schedule is schedule]

    gate = asyncio.Semaphore(TOGETHER)

    async def gated(case):
        async with gate:
            await one(case)

    async with asyncio.timeout(RUN_LIMIT_S):
        long = asyncio.gather(*(one(case) for case in of(Schedule.LONG)))
        await asyncio.gather(*(gated(case) for case in of(Schedule.SHARED)))
        for case in of(Schedule.ALONE):
            await one(case)
        await long
    return results


def server_of(text):
    kind, _, url = text.partition("=")
    if kind not in ("fastrtc", "streamfleet") or (kind == "streamfleet") != bool(url):
        raise argparse.ArgumentTypeError("fastrtc, or streamfleet=URL")
    return url


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=server_of, required=True, help="fastrtc, or streamfleet=URL")
    parser.add_argument("--only", action="append", default=[], help="part of the names of the cases to run; repeatable")
    parser.add_argument("--json", help="file for the results, with all that was observed")
    parser.add_argument(
        "--expect", choices=[promise.value for promise in Promise], help="hold the server against the other table"
    )
    parser.add_argument("--list", action="store_true", help="print the cases, and run none")
    parser.add_argument("--verbose", action="store_true", help="print all that was observed")
    parser.add_argument("--fastrtc-python", default=os.environ.get("FASTRTC_PYTHON", sys.executable))
    return parser.parse_args()


def printer(verbose):
    def report(result):
        verdict = "FAILED" if result.found else "ok"
        print(f"{verdict:6} {result.case.mark.value:4} {result.case.name:32} {result.seconds:5.1f} s", flush=True)
        for sentence in result.found:
            print(f"         {sentence}", flush=True)
        if verbose:
            print(f"         {result.observed}", flush=True)

    return report


def main():
    options = arguments()
    selected = [case for case in CASES if not options.only or any(part in case.name for part in options.only)]
    if not selected:
        sys.exit(f"no case is called {' or '.join(options.only)}")
    if options.list:
        for case in selected:
            print(f"{case.mark.value:4} {case.name:32} {case.checks}")
        return
    # aiortc logs what a closing peer causes; asyncio, what nobody awaits of it.
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    with Running(options.server, Promise.WIRE) if options.server else FastRtc(options.fastrtc_python) as server:
        promise = Promise(options.expect) if options.expect else server.promise
        results = asyncio.run(run(selected, server, promise, printer(options.verbose)))
    failed = [result for result in results if result.found]
    counts = {
        mark.value: f"{sum(r.case.mark is mark and not r.found for r in results)} of {sum(r.case.mark is mark for r in results)}"
        for mark in Mark
    }
    print(f"{len(results) - len(failed)} of {len(results)} as expected by {promise.value}", end="")
    print(f" ({', '.join(f'{mark} {count}' for mark, count in counts.items())}) in {time.monotonic() - began:.0f} s")
    if options.json:
        with open(options.json, "w") as file:
            json.dump([result.as_json(promise) for result in results], file, indent=1, default=repr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
