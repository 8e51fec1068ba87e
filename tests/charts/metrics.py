"""The metrics that the programs export, by the sources that define them: names as Prometheus has them."""

import pathlib
import re

METHOD = re.compile(r"\b(?:u64|i64|f64)_(?:observable_)?(counter|gauge|histogram|up_down_counter)\(")
NAME = re.compile(r'(\w*)\(\s*"(streamfleet_[a-z0-9_]+)"(?:\s*,\s*"([^"]*)")?')
UNIT = re.compile(r'\.with_unit\(\s*(?:"([^"]*)"|(\w+))\s*\)')
CLOSURE = re.compile(r"let (\w+)\s*=\s*\|[^|]*\|")
# What a loop over names makes of each. Names of values are as Prometheus has them.
LOOP = re.compile(r"\b(?:(?:u64|i64|f64)_(?:observable_)?(counter|gauge|histogram)\(name\)|values\(name,)")
SUFFIX = {"s": "_seconds", "By": "_bytes", "ms": "_milliseconds"}


def without_tests(text):
    """A file's own code: tests come last."""
    return re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", text)[0]


def statement(text, start):
    """From here to the end of the statement, or of the closure's block."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in "({[":
            depth += 1
        elif text[at] in ")}]":
            depth -= 1
        if depth < 0 or (depth == 0 and text[at] == ";"):
            return text[start:at]
    return text[start:]


def exported(name, kind, unit):
    suffix = SUFFIX.get(unit or "", "")
    if suffix and not name.endswith(suffix):
        name += suffix
    if kind == "counter":
        return {name if name.endswith("_total") else f"{name}_total"}
    if kind == "histogram":
        return {f"{name}{part}" for part in ("_bucket", "_sum", "_count")}
    return {name}


def defined(text):
    """The metrics of one file."""
    text = without_tests(text)
    # Instruments that several names share: a closure takes the name, or a loop.
    closures = {}
    for found in CLOSURE.finditer(text):
        body = statement(text, found.end())
        if method := METHOD.search(body):
            unit = UNIT.search(body)
            closures[found[1]] = (method[1], unit[1] if unit else None, bool(unit and unit[2]))
    names = set()
    for found in NAME.finditer(text):
        word, name, second = found.groups()
        if method := METHOD.fullmatch(f"{word}("):
            unit = UNIT.search(text[found.start():text.find(".build()", found.end())])
            names |= exported(name, method[1], unit[1] if unit else None)
        elif word in closures:
            kind, unit, given = closures[word]
            names |= exported(name, kind, second if given else unit)
        elif word == "histograms":
            names |= exported(name, "histogram", None)
        elif word == "values":
            names.add(name)
        elif not word and (method := LOOP.search(text, found.end())):
            names |= exported(name, method[1], None) if method[1] else {name}
    return names


def sources(root):
    for folder in ("crates", "router/src", "worker/src", "operator/src"):
        for file in (root / folder).rglob("*.rs"):
            parts = file.relative_to(root).parts
            if "tests" not in parts and not file.name.endswith(("_tests.rs", "tests.rs")):
                yield file.read_text()


def of_sources(root):
    return {name for text in sources(root) for name in defined(text)}


# Where the values of a label stand: of what begins there, the words in quotes.
VALUES = {
    ("streamfleet_fleet_state", "state"): [("worker/src/fleet/gauges.rs", "impl State {")],
    ("streamfleet_offers_total", "outcome"): [("router/src/attempt.rs", "impl Outcome {"), ("router/src/http/offer.rs", "let label = match")],
    ("streamfleet_operator_reconciles_total", "outcome"): [("operator/src/metrics.rs", "impl Outcome {")],
    ("streamfleet_relay_dropped_total", "reason"): [("crates/relay/src/relay.rs", "impl Drop {")],
    ("streamfleet_relay_unheard_total", "reason"): [("crates/relay/src/announce.rs", "impl Unheard {")],
    ("streamfleet_relay_unopened_total", "reason"): [("crates/session/src/ufrag/mod.rs", "impl Unopened {")],
    ("streamfleet_service_workers", "state"): [("operator/src/metrics.rs", 'values("streamfleet_service_workers"')],
    ("streamfleet_sessions_ended_total", "reason"): [("crates/session/src/lifecycle.rs", "impl CloseReason {")],
}


def inside(text, marker):
    """What the first brackets at the marker or behind it have in them."""
    (start,) = (found.start() for found in re.finditer(re.escape(marker), text))
    opens = re.compile(r"[({\[]").search(text, start).end()
    depth = 1
    for at in range(opens, len(text)):
        depth += (text[at] in "({[") - (text[at] in ")}]")
        if depth == 0:
            return text[opens:at]
    raise ValueError(marker)


def values(root, metric, label):
    """All that a label of a metric may say."""
    said = set()
    for file, marker in VALUES[metric, label]:
        said |= set(re.findall(r'"([a-z0-9_]+)"', inside(without_tests((root / file).read_text()), marker)))
    if metric == "streamfleet_offers_total":
        said |= refusals(root)
    return said


def refusals(root):
    """What routers answer offers with: failures that they make, and words of their own. The last net, in http/mod.rs, counts none."""
    said = set()
    for file in (root / "router/src").rglob("*.rs"):
        if file.name.endswith("tests.rs") or file.relative_to(root) == pathlib.Path("router/src/http/mod.rs"):
            continue
        text = without_tests(file.read_text())
        said |= {re.sub(r"\B([A-Z])", r"_\1", name).lower() for name in re.findall(r"\bFailure::([A-Z]\w+)", text)}
        said |= set(re.findall(r'record\.offer\("(\w+)"\)', text))
    return said


def literals(root):
    """Every word that stands in quotes: among them are the names of labels."""
    return {word for text in sources(root) for word in re.findall(r'"([a-z0-9_]+)"', without_tests(text))}
