"""Alerts and dashboard: every metric is exported, every alert has its runbook, and both are understood by whoever reads them."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

from metrics import VALUES, defined, literals, of_sources, values
from rendered import CHARTS, ROOT, cases, objects

METRIC = re.compile(r"\b(streamfleet_[a-z0-9_]+)\b")
ALL = "monitoring: {namespace: monitoring, podMonitors: {enabled: true}, rules: {enabled: true}, dashboard: {enabled: true}}"
SELECTOR = re.compile(r'(\w+)=~?"([^"]*)"')
SELECTED = re.compile(r"\b(streamfleet_\w+)\{([^}]*)\}")
RATE = re.compile(r"\brate\((\w+\{[^}]*\})\[\w+\]\)")
GROUP = re.compile(r"\b(?:by|on|without) \(([^)]*)\)")
# Labels that Prometheus gives, or histograms have.
PROMETHEUS = {"job", "pod", "le"}
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
# What Grafana knows by itself, as it writes it.
GRAFANA = {"__interval": "15s", "__rate_interval": "1m0s", "__range": "3600s"}
# What Prometheus refuses, with its words.
WRONG_EXPRESSIONS = [
    ("sum by (job (a)", 'unexpected "("'),
    ("rate(a)", "expected type range vector"),
    ("rate(a[$__rate_interval])", "unexpected"),
    ('a{b=~"("}', "missing closing )"),
]
WRONG_RULES = [
    ({"expr": "histogram_quantile(0.95)"}, "expected 2 argument"),
    ({"for": "5 minutes"}, "unknown unit"),
    ({"labels": {"severity": "{{ $lables.job }}"}}, "undefined variable"),
    ({"labels": {"__name__": "a"}}, "invalid label name"),
    ({"annotations": {"summary": "{{ $value | human }}"}}, '"human" not defined'),
    ({"annotations": {"summary": "{{ $value"}}, "unclosed action"),
    ({"fro": "5m"}, "field fro not found"),
]


def expressions():
    """Each expression of the dashboard and the alerts, with where it stands."""
    yield from drawn()
    for group in groups(objects(ALL)):
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def drawn():
    """Each expression of the dashboard as Prometheus gets it from Grafana, with where it stands."""
    (made,) = (one for one in objects(ALL) if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-dashboard"))
    dashboard = json.loads(made["data"]["streamfleet.json"])
    variables = dashboard["templating"]["list"]
    # Of several that are chosen Grafana makes a regular expression.
    values = GRAFANA | {one["name"]: r"(voice/a|voice\\.b)" if one.get("multi") else "voice/a" for one in variables}

    def filled(text):
        return VARIABLE.sub(lambda found: values[found[1] or found[2]], text)

    for one in variables:
        if one["type"] == "query":
            # A function of Grafana's, around series.
            yield f"variable {one['name']}", filled(re.fullmatch(r"label_values\((.+), \w+\)", one["query"]["query"])[1])
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield f"panel {panel['id']}, {panel['title']}, {target['refId']}", filled(target["expr"])


def groups(made):
    (rule,) = (one for one in made if one["kind"] == "PrometheusRule")
    return rule["spec"]["groups"]


def during(value, since=24.0, until=0.0):
    """What a series was: this, from and until so many hours before the question."""
    return {"value": value, "since": 3600 * since, "until": 3600 * until}


def evaluated(questions):
    """What Prometheus' code answers to (expression, series): the values by the labels that are left. A number is what a series has always been."""
    asked = [
        {"expr": expression, "series": {name: was if isinstance(was, dict) else during(was) for name, was in series.items()}}
        for expression, series in questions
    ]
    done = subprocess.run([os.environ["STREAMFLEET_TEST_PROMQL"], "evaluate"], capture_output=True, text=True, check=True, input=json.dumps(asked))
    return json.loads(done.stdout)


def figures(**values):
    """Series of one service, as an operator shows them."""
    of = 'job="voice/demo-streamfleet-operator",namespace="voice",service="echo"'
    return {f"streamfleet_service_{name}{{{of}}}": value for name, value in values.items()}


def offers(**rates):
    """Offers in a second at a router, by what became of them."""
    return {f'streamfleet_offers_total{{job="voice/demo-streamfleet-router",outcome="{name}"}}': rate for name, rate in rates.items()}


def draining(**pods):
    """Workers of a service that drain, as operators of these names show them while they lead."""
    of = 'job="voice/demo-streamfleet-operator",namespace="voice",service="echo",state="draining"'
    return {f'streamfleet_service_workers{{{of},pod="{pod}"}}': was for pod, was in pods.items()}


def addresses(relayed, **pods):
    """How many addresses for media routers of these names know, and how many services need one."""
    series = {}
    for pod, count in pods.items():
        of = f'job="voice/demo-streamfleet-router",pod="{pod}"'
        series |= {f"streamfleet_router_media_addresses{{{of}}}": count, f"streamfleet_router_relayed_services{{{of}}}": relayed}
    return series


# Alerts over series, most of which stay as they are, of counters the rates: which of them fire.
FIRING = [
    ("StreamfleetServiceFull", figures(sessions=98, serving_sessions=98, capacity=100), True),
    ("StreamfleetServiceFull", figures(sessions=90, serving_sessions=90, capacity=100), False),
    # Two workers drain with 100 calls, one serves with 10 of its 50 places.
    ("StreamfleetServiceFull", figures(sessions=110, serving_sessions=10, capacity=50), False),
    ("StreamfleetServiceFull", figures(sessions=0, serving_sessions=0, capacity=0), False),
    ("StreamfleetNoOperator", {'streamfleet_operator_leader{job="voice/demo-streamfleet-operator",pod="a"}': 1}, False),
    ("StreamfleetNoOperator", {'streamfleet_operator_leader{job="voice/demo-streamfleet-operator",pod="a"}': 0}, True),
    ("StreamfleetNoOperator", {'streamfleet_operator_leader{job="voice/another-operator",pod="a"}': 1}, True),
    ("StreamfleetNoRouters", {'up{job="voice/demo-streamfleet-router",pod="a"}': 1}, False),
    ("StreamfleetNoRouters", {}, True),
    ("StreamfleetOneRouter", {'up{job="voice/demo-streamfleet-router",pod="a"}': 1, 'up{job="voice/demo-streamfleet-router",pod="b"}': 0}, True),
    ("StreamfleetOneRouter", {'up{job="voice/demo-streamfleet-router",pod="a"}': 1, 'up{job="voice/demo-streamfleet-router",pod="b"}': 1}, False),
    ("StreamfleetOffersHeld", figures(held_offers=1), True),
    ("StreamfleetOffersHeld", figures(held_offers=0), False),
    ("StreamfleetCallsRefused", offers(accepted=97, no_capacity=2, upstream_unavailable=1), True),
    ("StreamfleetCallsRefused", offers(accepted=99, no_capacity=1), False),
    # Workers that answer with a fault of their own, and with what is wrong with an offer.
    ("StreamfleetCallsRefused", offers(failed=100), True),
    ("StreamfleetCallsRefused", offers(accepted=50, declined=50), False),
    ("StreamfleetCallsRefused", offers(accepted=50, user_limit_reached=50), False),
    ("StreamfleetDrainLong", draining(a=1), True),
    ("StreamfleetDrainLong", draining(a=0), False),
    ("StreamfleetDrainLong", draining(a=during(1, since=5.9)), False),
    ("StreamfleetDrainLong", draining(a=during(1, since=6.1)), True),
    # Another operator leads, and begins to show a worker that has just been asked to drain.
    ("StreamfleetDrainLong", draining(a=during(0, until=0.3), b=during(1, since=0.3)), False),
    ("StreamfleetDrainLong", draining(b=during(1, since=0.3)), False),
    # Or one that has drained all the while: who leads is nothing to it, six hours ago either.
    ("StreamfleetDrainLong", draining(a=during(1, until=3.02), b=during(2, since=3)), True),
    ("StreamfleetDrainLong", draining(a=during(1, until=6.12), b=during(1, since=5.98)), True),
    # All had gone for some minutes.
    ("StreamfleetDrainLong", draining(a=during(1, until=3), b=during(0, since=3, until=2.9), c=during(1, since=2.9)), False),
    ("StreamfleetNoMediaAddress", addresses(relayed=3, a=0, b=0), True),
    ("StreamfleetNoMediaAddress", addresses(relayed=3, a=1, b=2), False),
    # One that cannot look a name up.
    ("StreamfleetNoMediaAddress", addresses(relayed=1, a=1, b=0), True),
    # All media goes to workers' hosts; or routers have no relay, and show neither.
    ("StreamfleetNoMediaAddress", addresses(relayed=0, a=0, b=0), False),
    ("StreamfleetNoMediaAddress", {'up{job="voice/demo-streamfleet-router",pod="a"}': 1}, False),
]


def refused(queries, groups):
    """What Prometheus says against expressions, each with its name, and against groups of alerts; nothing when it takes them."""
    files = {"all.yaml": groups}
    # Each alone as well: an error that is met before its name is read says only the file.
    for group in groups:
        files |= {f"{rule['alert']}.yaml": [group | {"rules": [rule]}] for rule in group["rules"]}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            pathlib.Path(folder, name).write_text(yaml.safe_dump({"groups": content}))
        done = subprocess.run([os.environ["STREAMFLEET_TEST_PROMQL"], *files], cwd=folder, capture_output=True, text=True,
                              input=json.dumps([{"name": name, "expr": expression} for name, expression in queries]))
    if done.returncode != bool(done.stdout):
        raise AssertionError(f"{done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def panels(dashboard):
    for row in dashboard["panels"]:
        for one in [row, *row.get("panels", [])]:
            if one["type"] != "row":
                yield one


def rules():
    return [rule for group in groups(objects(ALL)) for rule in group["rules"]]


class Monitoring(unittest.TestCase):
    def test_every_metric_is_exported(self):
        exported = of_sources(ROOT)
        seen = set()
        for where, expression in expressions():
            for metric in METRIC.findall(expression):
                seen.add(metric)
                with self.subTest(where):
                    self.assertTrue(metric in exported, metric)
        self.assertGreater(len(seen), 40)

    def test_what_fires(self):
        """Prometheus' own code over series, but for how long an alert waits."""
        expressions = {rule["alert"]: rule["expr"] for rule in rules()}
        answers = evaluated((RATE.sub(r"\1", expressions[alert]), series) for alert, series, _ in FIRING)
        for (alert, series, fires), answer in zip(FIRING, answers, strict=True):
            with self.subTest(alert, series=series):
                self.assertEqual(bool(answer), fires, answer)

    def test_every_label_and_value_is_exported(self):
        """What groups name stands in a source as it is written; what selectors ask of a label is what that metric says there."""
        known = literals(ROOT)
        seen, asked = set(), set()
        for where, expression in expressions():
            names = {name for found in GROUP.findall(expression) for name in re.findall(r"\w+", found)}
            names |= {name for name, _ in SELECTOR.findall(expression)}
            for metric, selectors in SELECTED.findall(expression):
                for name, value in SELECTOR.findall(selectors):
                    if name not in PROMETHEUS | {"namespace", "service"}:
                        asked.add((metric, name))
                        seen |= set(value.split("|"))
                        with self.subTest(where, label=name):
                            self.assertLessEqual(set(value.split("|")), values(ROOT, metric, name))
            with self.subTest(where):
                self.assertLessEqual(names - PROMETHEUS, known)
        self.assertGreater(len(seen), 10)
        self.assertEqual(asked, set(VALUES))
        self.assertNotIn("no_capacities", known)
        # Of which workers answer, and routers never.
        self.assertLessEqual({"accepted", "declined", "failed", "no_capacity", "invalid_body"}, values(ROOT, "streamfleet_offers_total", "outcome"))
        self.assertTrue({"internal", "draining"}.isdisjoint(values(ROOT, "streamfleet_offers_total", "outcome")))

    def test_prometheus_reads_them(self):
        queries = list(drawn())
        self.assertGreater(len(queries), 60)
        for made in (objects(ALL), cases()["production"]):
            if said := refused(queries, groups(made)):
                self.fail(said)

    def test_what_prometheus_refuses(self):
        """The program that asks Prometheus' code: it tells what is wrong, where, and nothing else."""
        good = {"alert": "Good", "expr": "sum by (job) (rate(a_total[5m])) > 0", "for": "5m", "labels": {"severity": "info"},
                "annotations": {"summary": "{{ $value | humanize }} of {{ $labels.job }}"}}
        self.assertEqual(refused([("panel 1", good["expr"])], [{"name": "a", "rules": [good]}]), "")
        for expression, error in WRONG_EXPRESSIONS:
            with self.subTest(expression):
                said = refused([("panel 1", "a"), ("panel 2, Calls", expression)], [])
                self.assertRegex(said, rf"\Apanel 2, Calls: .*{re.escape(error)}.*\n\Z")
        for change, error in WRONG_RULES:
            with self.subTest(change):
                said = refused([], [{"name": "a", "rules": [good, good | {"alert": "Bad"} | change]}])
                self.assertIn("\nBad.yaml: ", said)
                self.assertIn(error, said)
                self.assertNotIn("Good", said)
        self.assertIn("is repeated", refused([], [{"name": "a", "rules": [good]}] * 2))

    def test_what_sources_define(self):
        """The reader of the sources itself: what it knows of, and that it does not take a name for another."""
        text = '''
            let counter = |name, about| meter.u64_counter(name).with_description(about).build();
            let timed = |name, about| { let made = meter.f64_histogram(name).with_unit("s"); made.with_description(about).build() };
            let by = |name: &'static str, unit: &'static str| { meter.u64_observable_counter(name).with_unit(unit).build(); };
            Self {
                a: counter("streamfleet_a", "A"), b: timed("streamfleet_b_duration", "B"),
                c: meter.u64_counter("streamfleet_c").build(), d: meter.f64_histogram("streamfleet_d").with_unit("s").build(),
            };
            by("streamfleet_e", "By"); by("streamfleet_f", "{packet}");
            let gauges = [("streamfleet_g", "G", read)]; for (name, ..) in gauges { meter.u64_observable_gauge(name).build(); }
            metrics.histograms("streamfleet_h_seconds", "H", read);
            let gauges = [("streamfleet_i", "I", read)]; for (name, ..) in gauges { metrics.values(name, about, Kind::Gauge, read); }
            metrics.values("streamfleet_j_total", "J", Kind::Counter, read);
            #[cfg(test)] mod tests { fn x() { meter.u64_counter("streamfleet_not").build(); } }
        '''
        found = {name for name in defined(text) if not name.endswith(("_sum", "_count"))}
        self.assertEqual(found, {"streamfleet_a_total", "streamfleet_b_duration_seconds_bucket", "streamfleet_c_total", "streamfleet_d_seconds_bucket",
                                 "streamfleet_e_bytes_total", "streamfleet_f_total", "streamfleet_g", "streamfleet_h_seconds_bucket",
                                 "streamfleet_i", "streamfleet_j_total"})

    def test_alerts_have_runbooks(self):
        text = (ROOT / "docs/runbooks.md").read_text()
        headings = re.findall(r"^## (Streamfleet\w+)$", text, re.M)
        names = [rule["alert"] for rule in rules()]
        self.assertEqual(sorted(headings), sorted(names))
        for rule in rules():
            self.assertTrue(rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks.md#{rule['alert'].lower()}"))

    def test_alerts_are_told_well(self):
        for rule in rules():
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
                self.assertLess(len(rule["annotations"]["summary"]), 80)
                self.assertTrue(rule["annotations"]["description"].endswith("."))
                # Labels that a text names are those that its expression leaves.
                for label in re.findall(r"\$labels\.(\w+)", yaml.safe_dump(rule["annotations"])):
                    grouped = re.search(r"(?:by|on) \(([^)]*)\)", rule["expr"])
                    self.assertTrue(label in (grouped[1] if grouped else label), label)

    def test_they_go_by_this_release(self):
        made = objects(ALL)
        jobs = {f"voice/{one['metadata']['name']}" for one in made if one["kind"] == "PodMonitor"}
        asked = set(re.findall(r'job="([^"]*)"', yaml.safe_dump(rules())))
        self.assertEqual(jobs, asked)
        self.assertNotRegex(yaml.safe_dump(rules()), "OPERATOR|ROUTER")

    def test_labels_are_added(self):
        (made,) = (one for one in objects("monitoring: {rules: {enabled: true, alertLabels: {team: voice}, labels: {release: p}}}") if one["kind"] == "PrometheusRule")
        self.assertEqual(made["metadata"]["labels"]["release"], "p")
        for group in made["spec"]["groups"]:
            for rule in group["rules"]:
                self.assertEqual(rule["labels"]["team"], "voice")
                self.assertIn("severity", rule["labels"])

    def test_the_dashboard_is_whole(self):
        dashboard = json.loads((CHARTS / "streamfleet/files/dashboard.json").read_text())
        numbers = [one["id"] for row in dashboard["panels"] for one in [row, *row.get("panels", [])]]
        self.assertEqual(len(numbers), len(set(numbers)))
        variables = {one["name"] for one in dashboard["templating"]["list"]}
        for panel in panels(dashboard):
            self.assertEqual(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24, True)
            for target in panel["targets"]:
                self.assertEqual(target["expr"].count("("), target["expr"].count(")"))
                self.assertLessEqual({name for name in re.findall(r"\$(\w+)", target["expr"]) if not name.startswith("__")}, variables)


if __name__ == "__main__":
    unittest.main()
