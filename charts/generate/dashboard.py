"""The Grafana dashboard, as JSON (schema version 39, Grafana 10 and later)."""

OPERATOR, ROUTER = 'job="$operator"', 'job="$router"'
SERVICE = 'job="$operator",namespace=~"$namespace",service=~"$service"'
WORKER = 'job=~"$worker"'


def rate(metric, by, labels=ROUTER):
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share, metric, labels=ROUTER, by="le"):
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def quantiles(metric, labels=ROUTER):
    return [(quantile(share, metric, labels), name) for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


def graph(title, targets, unit="short", about="", stacked=False):
    return {"type": "timeseries", "title": title, "targets": targets, "unit": unit, "about": about, "stacked": stacked}


def stat(title, expression, unit="short", about="", thresholds=None):
    steps = [{"color": colour, "value": value} for colour, value in thresholds or [("green", None)]]
    return {"type": "stat", "title": title, "targets": [(expression, "")], "unit": unit, "about": about, "steps": steps}


# Rows: a title, whether it is folded, panels. Each panel's metrics are looked for in what the programs export.
ROWS = [
    ("Fleet", False, [
        stat("Sessions", f"sum(streamfleet_service_sessions{{{SERVICE}}})"),
        stat("Places", f"sum(streamfleet_service_capacity{{{SERVICE}}})", about="Of serving workers."),
        stat("Workers serving", f'sum(streamfleet_service_workers{{{SERVICE},state="serving"}})'),
        stat("Calls held", f"sum(streamfleet_service_held_offers{{{SERVICE}}})", thresholds=[("green", None), ("orange", 1)]),
        stat("Routers", f"count(up{{{ROUTER}}} == 1)", thresholds=[("red", None), ("orange", 1), ("green", 2)]),
        stat("Operator", f"sum(streamfleet_operator_leader{{{OPERATOR}}})", about="1 when one of them holds the lease.", thresholds=[("red", None), ("green", 1)]),
    ]),
    ("Services", False, [
        graph("Sessions and places", [
            (f"sum by (namespace, service) (streamfleet_service_sessions{{{SERVICE}}})", "{{namespace}}/{{service}} sessions"),
            (f"sum by (namespace, service) (streamfleet_service_capacity{{{SERVICE}}})", "{{namespace}}/{{service}} places"),
        ], about="Places are those of serving workers."),
        graph("Workers", [(f"sum by (state) (streamfleet_service_workers{{{SERVICE}}})", "{{state}}"),
                          (f"sum(streamfleet_service_desired_workers{{{SERVICE}}})", "wanted")],
              about="Draining workers finish their sessions and are given none."),
        graph("Scaling decisions", [(f"sum by (kind) (rate(streamfleet_operator_decisions_total{{{SERVICE}}}[$__rate_interval])) * 60", "{{kind}}")],
              about="A minute: workers created, put back to serving, drained, removed."),
        graph("Calls held", [(f"sum by (namespace, service) (streamfleet_service_held_offers{{{SERVICE}}})", "{{namespace}}/{{service}}")],
              about="They wait for a worker to be ready."),
        graph("Start of a worker, p95", [(f"streamfleet_service_start_seconds{{{SERVICE}}}", "{{namespace}}/{{service}}")], "s",
              "From the pod's creation until it is ready."),
        graph("Places taken", [(f"streamfleet_service_serving_sessions{{{SERVICE}}} / (streamfleet_service_capacity{{{SERVICE}}} > 0)", "{{namespace}}/{{service}}")], "percentunit",
              "Of serving workers: sessions of those that drain are not counted."),
    ]),
    ("Calls", False, [
        graph("Calls by outcome", [(rate("streamfleet_offers_total", "outcome"), "{{outcome}}")], "cps", stacked=True),
        graph("From offer to answer", quantiles("streamfleet_offer_duration_seconds"), "s", "Accepted calls, the time that they were held included."),
        graph("Claims by outcome", [(rate("streamfleet_claims_total", "outcome"), "{{outcome}}")], "cps", "What the store said."),
        graph("The store's answer to a claim", quantiles("streamfleet_claim_duration_seconds"), "s"),
        graph("What workers said", [(rate("streamfleet_forwarded_offers_total", "outcome"), "{{outcome}}")], "cps"),
        graph("Placements", [(rate("streamfleet_placements_total", "standing"), "{{standing}}")], "cps", "Provisional ones were placed without the store."),
        graph("Calls held, by router", [(f"streamfleet_router_held{{{ROUTER}}}", "{{pod}}")]),
        graph("Age of the directory", [(f"streamfleet_router_directory_age_seconds{{{ROUTER}}}", "{{pod}}")], "s", "Of the service of which the store has told longest ago."),
    ]),
    ("Relays", False, [
        graph("Packets", [(rate("streamfleet_relay_packets_total", "direction"), "{{direction}}")], "pps"),
        graph("Traffic", [(f"8 * {rate('streamfleet_relay_octets_bytes_total', 'direction')}", "{{direction}}")], "bps"),
        graph("In the relay's hands, p99", [(quantile(0.99, "streamfleet_relay_delay_seconds", by="le, direction"), "{{direction}}")], "s"),
        graph("Dropped", [(rate("streamfleet_relay_dropped_total", "reason"), "{{reason}}")], "pps", "Why is in docs/security.md."),
        graph("Lost in the kernel", [(rate("streamfleet_relay_overflowed_total", "direction"), "overflowed {{direction}}"),
                                     (rate("streamfleet_relay_unsent_total", "direction"), "unsent {{direction}}")], "pps"),
        graph("Flows", [(f"sum by (of) (streamfleet_relay_flows{{{ROUTER}}})", "{{of}}")]),
        graph("Packets at once, p95", [(quantile(0.95, "streamfleet_relay_batch_packets", by="le, direction"), "{{direction}}")], about="Hundreds are a thread that has more to do than it can."),
        graph("Not understood", [(rate("streamfleet_relay_unopened_total", "reason"), "check: {{reason}}"),
                                 (rate("streamfleet_relay_unheard_total", "reason"), "other relay: {{reason}}")], "pps"),
    ]),
    ("Workers", True, [
        graph("Sessions with media", [(f"sum by (job) (streamfleet_media_sessions{{{WORKER}}})", "{{job}}")]),
        graph("Sessions that ended", [(rate("streamfleet_sessions_ended_total", "reason", WORKER), "{{reason}}")], "cps"),
        graph("Length of sessions", quantiles("streamfleet_session_duration_seconds", WORKER), "s"),
        graph("Packets", [(rate("streamfleet_media_packets_received_total", "job", WORKER), "{{job}} received"),
                          (rate("streamfleet_media_datagrams_sent_total", "job", WORKER), "{{job}} sent")], "pps"),
        graph("Dropped", [(rate("streamfleet_media_dropped_total", "reason", WORKER), "{{reason}}"),
                          (f"sum(rate(streamfleet_media_datagrams_unsent_total{{{WORKER}}}[$__rate_interval]))", "unsent")], "pps"),
        graph("Part in the fleet", [(f"sum by (state) (streamfleet_fleet_state{{{WORKER}}})", "{{state}}")]),
        graph("Leases renewed", [(rate("streamfleet_fleet_renewals_total", "outcome", WORKER), "{{outcome}}")], "cps"),
        graph("The store's answers, p99", [(quantile(0.99, "streamfleet_store_seconds", WORKER, "le, command"), "{{command}}")], "s"),
        graph("Clients followed to another address", [(rate("streamfleet_media_paths_moved_total", "job", WORKER), "{{job}}")], "cps"),
        graph("Memory allocated", [(f"streamfleet_process_heap_bytes{{{WORKER}}}", "{{pod}}")], "bytes"),
    ]),
    ("Sockets and telephones", True, [
        graph("Sockets", [(f"sum by (state) (streamfleet_router_sockets{{{ROUTER}}})", "{{state}}")]),
        graph("Sockets that closed", [(rate("streamfleet_router_sockets_closed_total", "reason"), "{{reason}}")], "cps"),
        graph("Traffic", [(f"8 * {rate('streamfleet_router_spliced_octets_total', 'direction')}", "{{direction}}")], "bps"),
    ]),
    ("Operator", True, [
        graph("Reconciliations", [(rate("streamfleet_operator_reconciles_total", "outcome", OPERATOR), "{{outcome}}")], "ops"),
        graph("Time of a reconciliation", quantiles("streamfleet_operator_reconcile_seconds", OPERATOR), "s"),
        graph("Requests to the API server", [(rate("streamfleet_operator_requests_total", "verb, outcome", OPERATOR), "{{verb}} {{outcome}}")], "reqps"),
        graph("StreamServices that wait", [(f"sum by (pod) (streamfleet_operator_queue{{{OPERATOR}}})", "{{pod}}")]),
    ]),
    ("Processes", True, [
        graph("Memory allocated", [(f"streamfleet_process_heap_bytes{{{ROUTER}}}", "{{pod}}"), (f"streamfleet_process_heap_bytes{{{OPERATOR}}}", "{{pod}}")], "bytes"),
        graph("Sight of the API server", [(f"streamfleet_router_kubernetes_synced{{{ROUTER}}}", "{{pod}}")], about="0: a router goes on with what it has read last."),
        graph("Services without a fresh directory", [(f"streamfleet_router_stale_directories{{{ROUTER}}}", "{{pod}}")]),
        graph("Log lines lost", [("sum by (pod) (rate(streamfleet_log_lines_dropped_total[$__rate_interval]))", "{{pod}}")], "cps"),
        graph("Faults", [("sum by (pod) (increase(streamfleet_http_panics_total[$__rate_interval]))", "{{pod}}")]),
    ]),
]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number, made, x, y, width, height):
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    if made.get("stacked"):
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal"}}
    defaults = {"unit": made["unit"], "min": 0}
    options = {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list", "placement": "bottom"}}
    if made["type"] == "timeseries":
        defaults["custom"] = custom
    else:
        defaults["thresholds"] = {"mode": "absolute", "steps": made["steps"]}
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {
        "id": number, "type": made["type"], "title": made["title"], "description": made["about"], "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height}, "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
        "targets": [{"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend, "datasource": DATASOURCE}
                    for n, (expression, legend) in enumerate(made["targets"])],
    }


def variable(name, label, query, several=False):
    return {"type": "query", "name": name, "label": label, "datasource": DATASOURCE, "query": {"query": query, "refId": name}, "refresh": 2,
            "sort": 1, "multi": several, "includeAll": several, "allValue": ".*" if several else None,
            "current": {"text": "All", "value": "$__all"} if several else {}}


def dashboard():
    panels, number, y = [], 0, 0
    for title, folded, made in ROWS:
        number += 1
        row = {"id": number, "type": "row", "title": title, "collapsed": folded, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []}
        panels.append(row)
        y += 1
        across, height = (6, 4) if made[0]["type"] == "stat" else (3, 8)
        for n, one in enumerate(made):
            number += 1
            placed = panel(number, one, n % across * (24 // across), y + n // across * height, 24 // across, height)
            (row["panels"] if folded else panels).append(placed)
        if not folded:
            y += -(-len(made) // across) * height
    return {
        "uid": "streamfleet", "title": "Streamfleet", "tags": ["streamfleet"], "schemaVersion": 39, "version": 1, "editable": True,
        "timezone": "browser", "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "graphTooltip": 1, "panels": panels,
        "links": [{"type": "link", "title": "Runbooks", "url": "https://github.com/streamfleet/streamfleet/blob/main/docs/runbooks.md", "targetBlank": True}],
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "current": {}},
            variable("operator", "Operator", "label_values(streamfleet_operator_leader, job)"),
            variable("router", "Routers", "label_values(streamfleet_router_held, job)"),
            variable("namespace", "Namespace", 'label_values(streamfleet_service_capacity{job="$operator"}, namespace)', True),
            variable("service", "StreamService", 'label_values(streamfleet_service_capacity{job="$operator",namespace=~"$namespace"}, service)', True),
            variable("worker", "Workers", "label_values(streamfleet_fleet_state, job)", True),
        ]},
        "annotations": {"list": []},
    }
