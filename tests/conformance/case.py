"""A case: one thing that a client can observe, and what FastRTC and the protocol notes say that it observes.

A case talks to a server and returns its observation, a flat dict. Nothing in it knows which server that was: two tables
of expectations do. `keep` has one table for both."""

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


class Mark(enum.Enum):
    """What the protocol notes say about a behaviour of FastRTC."""

    KEEP = "keep"
    """Clients rely on it: both servers, the same expectation."""
    FIX = "fix"
    """FastRTC gets it wrong. Its table has what it was measured to do."""
    ADD = "add"
    """FastRTC has nothing like it. Its table has what a client gets that asks all the same."""


class Promise(enum.Enum):
    """Whose expectations a run is held against."""

    FASTRTC = "fastrtc"
    WIRE = "wire"


class Schedule(enum.Enum):
    SHARED = "shared"
    """Among others of its kind."""
    ALONE = "alone"
    """With the server to itself: it measures its load, or drives FastRTC into turning a whole core."""
    LONG = "long"
    """Mostly waits: begun first, awaited last."""


@dataclass(frozen=True)
class Case:
    name: str
    mark: Mark
    checks: str
    run: Callable[[Any], Awaitable[dict]]
    expected: dict
    schedule: Schedule
    deadline_s: float


@dataclass(frozen=True)
class Between:
    low: float
    high: float

    def accepts(self, value):
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True)
class OneOf:
    values: tuple

    def accepts(self, value):
        return value in self.values


def at_least(low):
    return Between(low, float("inf"))


def at_most(high):
    return Between(float("-inf"), high)


def tone(hz):
    """A clean tone of that frequency, as `sound.judge` reports it. The nearest tone of any other service is 110 Hz away."""
    return {"hz": Between(hz - 6, hz + 6), "over_rest_db": at_least(10)}


def differences(expected, observed):
    """One sentence for each expectation that the observation does not meet. What is not expected may be anything."""
    found = []
    for key, want in expected.items():
        if key not in observed:
            found.append(f"{key} was not observed")
            continue
        got = observed[key]
        if not (want.accepts(got) if hasattr(want, "accepts") else type(want) is type(got) and want == got):
            found.append(f"{key} is {got!r}, expected {want!r}")
    return found


CASES = []


def _case(mark, name, checks, expected, schedule=Schedule.SHARED, deadline_s=20):
    def register(run):
        if any(case.name == name for case in CASES):
            raise ValueError(f"two cases are called {name}")
        CASES.append(Case(name, mark, checks, run, expected, schedule, deadline_s))
        return run

    return register


def keep(name, checks, expect, **options):
    return _case(Mark.KEEP, name, checks, {Promise.FASTRTC: expect, Promise.WIRE: expect}, **options)


def fix(name, checks, *, fastrtc, wire, **options):
    return _case(Mark.FIX, name, checks, {Promise.FASTRTC: fastrtc, Promise.WIRE: wire}, **options)


def add(name, checks, *, fastrtc, wire, **options):
    return _case(Mark.ADD, name, checks, {Promise.FASTRTC: fastrtc, Promise.WIRE: wire}, **options)
