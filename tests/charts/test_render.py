"""What the charts render: hardened pods, least rights, names that fit, secrets that are made once, nothing that an upgrade would have to change."""

import base64
import os
import pathlib
import re
import subprocess
import unittest

import yaml

from cluster import cluster
from rendered import CHARTS, ROOT, TESTS, cases, helm, objects, pods, template, tool

# What each component may do where StreamServices are. Whoever adds to it says why here.
OPERATOR = {
    ("streamfleet.dev", "streamservices"): {"get", "list", "watch", "patch", "update"},
    ("streamfleet.dev", "streamservices/status"): {"get", "patch", "update"},
    ("streamfleet.dev", "streamservices/finalizers"): {"update"},
    ("", "pods"): {"get", "list", "watch", "patch", "delete"},
    ("events.k8s.io", "events"): {"create", "patch"},
    # What it makes.
    **{what: {"get", "list", "watch", "create", "patch", "update", "delete"} for what in [
        ("apps", "deployments"), ("", "services"), ("", "serviceaccounts"), ("", "configmaps"), ("", "secrets"),
        ("policy", "poddisruptionbudgets"), ("networking.k8s.io", "networkpolicies"), ("monitoring.coreos.com", "podmonitors")]},
}
ROUTER = {("streamfleet.dev", "streamservices"): {"get", "list", "watch"}, ("", "secrets"): {"get"}}
NODES = {("", "nodes"): {"get", "list", "watch"}}
# The lease, and where the routers' load balancer is.
LEASE = {("coordination.k8s.io", "leases"): {"get", "patch", "update", "create"}, ("", "services"): {"get", "list", "watch"}}
ADDRESSES = {("", "services"): {"get", "list", "watch"}, ("discovery.k8s.io", "endpointslices"): {"get", "list", "watch"}}


def rights(role):
    found = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def named(objects_, kind, name=None):
    return [one for one in objects_ if one["kind"] == kind and name in (None, one["metadata"]["name"])]


class Unique(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise AssertionError(f"a key twice in {keys}")
        return super().construct_mapping(node, deep)


class Rendered(unittest.TestCase):
    def test_lint(self):
        for values in (TESTS / "values").glob("*.yaml"):
            done = helm("lint", "--strict", CHARTS / "streamfleet", "--values", values)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = helm("lint", "--strict", CHARTS / "streamfleet-crds")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_pods_are_restricted(self):
        """Pod Security "restricted", and what it does not ask for: a root that nobody writes to, no unneeded token."""
        seen = 0
        for case, made in cases().items():
            for owner, _, spec in pods(made):
                with self.subTest(case, pod=owner["metadata"]["name"]):
                    seen += 1
                    security = spec["securityContext"]
                    self.assertTrue(security["runAsNonRoot"])
                    self.assertGreater(security["runAsUser"], 0)
                    self.assertEqual(security["seccompProfile"]["type"], "RuntimeDefault")
                    self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & set(spec))
                    self.assertFalse(spec["enableServiceLinks"])
                    self.assertEqual("serviceAccountName" in spec, spec.get("automountServiceAccountToken", True))
                    self.assertLessEqual({next(k for k in volume if k != "name") for volume in spec.get("volumes", [])}, {"configMap", "secret", "emptyDir"})
                    for container in spec["containers"]:
                        of = container["securityContext"]
                        self.assertEqual((of["allowPrivilegeEscalation"], of["readOnlyRootFilesystem"]), (False, True))
                        self.assertEqual(of["capabilities"], {"drop": ["ALL"]})
                        self.assertFalse(any("hostPort" in port or port["containerPort"] < 1024 for port in container.get("ports", [])))
                        self.assertTrue(container["resources"]["requests"])
        self.assertGreater(seen, 15)

    def test_rights_are_the_least(self):
        for case, made in cases().items():
            wide = case == "production"
            everything = [one for one in made if one["kind"] in ("Role", "ClusterRole")]
            expected = {"-operator-nodes": NODES, "-operator-lease": LEASE, "-router-addresses": ADDRESSES, "-operator": OPERATOR, "-router": ROUTER}
            for role in everything:
                name = role["metadata"]["name"]
                with self.subTest(case, role=name):
                    suffix = next(suffix for suffix in expected if name.endswith(suffix))
                    self.assertEqual(rights(role), expected[suffix])
                    self.assertEqual(role["kind"] == "ClusterRole", suffix == "-operator-nodes" or (wide and suffix in ("-operator", "-router")))
            self.assertNotIn("*", str([role["rules"] for role in everything]))
            # Each is given to one account, of this release.
            accounts = {one["metadata"]["name"] for one in named(made, "ServiceAccount")}
            bound = [one for one in made if one["kind"] in ("RoleBinding", "ClusterRoleBinding")]
            self.assertEqual(len(bound), len(everything))
            for binding in bound:
                (subject,) = binding["subjects"]
                self.assertIn(subject["name"], accounts)
                self.assertEqual((subject["namespace"], subject["kind"]), ("voice", "ServiceAccount"))
                self.assertTrue(any(role["metadata"]["name"] == binding["roleRef"]["name"] and role["kind"] == binding["roleRef"]["kind"] for role in everything))

    def test_namespaces(self):
        def roles(values):
            return sorted(one["metadata"]["namespace"] for one in objects(values) if one["kind"] == "Role" and one["metadata"]["name"].endswith("-operator"))

        self.assertEqual(roles("{}"), ["voice"])
        self.assertEqual(roles("{scope: {namespaces: [b, a]}}"), ["a", "b"])
        self.assertEqual(roles("{scope: {clusterWide: true}}"), [])

    def test_labels_that_select_find_their_pods(self):
        for case, made in cases().items():
            labels = {one["metadata"]["name"]: metadata["labels"] for one, metadata, _ in pods(made)}
            selecting = [(one, one["spec"]["selector"]) for one in made if one["kind"] in ("Service", "Deployment", "PodDisruptionBudget", "PodMonitor")]
            selecting += [(one, one["spec"]["podSelector"]) for one in named(made, "NetworkPolicy")]
            for one, selector in selecting:
                selector = selector.get("matchLabels", selector)
                found = [name for name, has in labels.items() if selector.items() <= has.items()]
                with self.subTest(case, of=one["metadata"]["name"], kind=one["kind"]):
                    self.assertEqual(len(found), 1, found)

    def test_names_fit(self):
        """A label has 63 characters at most, and Deployments add ten to a pod's name."""
        for release, more in [("a" * 53, ""), ("streamfleet", ""), ("r", f"fullnameOverride: {'b' * 63}")]:
            for one in objects(more + "\nmonitoring: {rules: {enabled: true}, dashboard: {enabled: true}}", release=release):
                limit = {"Deployment": 52, "Service": 63, "Pod": 63, "Job": 63, "StreamService": 54}.get(one["kind"], 253)
                self.assertLessEqual(len(one["metadata"]["name"]), limit, one["metadata"]["name"])
                for value in one["metadata"].get("labels", {}).values():
                    self.assertLessEqual(len(value), 63, value)

    def test_every_object_is_labelled_and_in_its_namespace(self):
        for case, made in cases().items():
            for one in made:
                with self.subTest(case, of=one["metadata"]["name"]):
                    self.assertEqual(one["metadata"]["labels"]["app.kubernetes.io/part-of"], "streamfleet")
                    self.assertEqual("namespace" in one["metadata"], not one["kind"].startswith("ClusterRole"))

    def test_selectors_do_not_hang_on_versions(self):
        """They cannot be changed: an upgrade that would want to fails."""
        for made in cases().values():
            for one in named(made, "Deployment"):
                keys = set(one["spec"]["selector"]["matchLabels"])
                self.assertEqual(keys, {"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"})

    def test_a_router_is_never_missed(self):
        for case, made in cases().items():
            (router,) = (one for one in named(made, "Deployment") if one["metadata"]["name"].endswith("-router"))
            config = yaml.safe_load(named(made, "ConfigMap", router["metadata"]["name"])[0]["data"]["router.yaml"])
            with self.subTest(case):
                self.assertEqual(router["spec"]["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
                pod = router["spec"]["template"]["spec"]
                grace = int(config["drain"]["terminationGrace"].removesuffix("s"))
                wait = pod["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
                self.assertGreater(pod["terminationGracePeriodSeconds"], grace + wait)
                # It is out before it is gone: probes see its notice, as it is by default, with a second to spare. That of `gateway` is shorter than
                # values.yaml recommends.
                probe = pod["containers"][0]["readinessProbe"]
                if case != "gateway":
                    self.assertLess(probe["periodSeconds"] * probe["failureThreshold"] + 1, int(config["drain"]["notice"].removesuffix("s")))
                for service in named(made, "Service"):
                    if service["spec"]["selector"]["app.kubernetes.io/component"] == "router" and service["spec"].get("type") == "LoadBalancer":
                        self.assertEqual(service["spec"]["externalTrafficPolicy"], "Local")

    def test_an_autoscaler_owns_its_replicas(self):
        made = cases()["production"]
        (router,) = (one for one in named(made, "Deployment") if one["metadata"]["name"].endswith("-router"))
        self.assertNotIn("replicas", router["spec"])
        self.assertEqual(named(made, "HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"]["name"], router["metadata"]["name"])

    def test_an_upgrade_keeps_how_many_routers_there_are(self):
        """Also the one that gives them to an autoscaler: without a number Kubernetes would make one of them."""
        def replicas(values, *there):
            with cluster(*there) as flags:
                (router,) = named(objects(values, more=flags), "Deployment", "demo-streamfleet-router")
            return router["spec"].get("replicas")

        live = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "demo-streamfleet-router", "namespace": "voice"}, "spec": {"replicas": 7}}
        autoscaled = "{router: {autoscaling: {enabled: true}}}"
        self.assertEqual(replicas(autoscaled, live), 7)
        self.assertIsNone(replicas(autoscaled))
        self.assertEqual(replicas("{}", live), 2)

    def test_an_upgrade_keeps_secrets(self):
        def secrets(*there):
            with cluster(*there) as flags:
                made = objects("{}", more=flags)
            return [named(made, "Secret", f"demo-streamfleet-{name}")[0] | {"apiVersion": "v1"} for name in ("fleet", "redis")]

        first = secrets()
        again = secrets(*first)
        for before, after in zip(first, again, strict=True):
            self.assertEqual(before["data"], after["data"])
        self.assertNotEqual(first[0]["data"], secrets()[0]["data"])

    def test_what_is_named_is_there(self):
        """ConfigMaps, Secrets and ServiceAccounts of pods are made here, or are the user's and named in the values."""
        for case, made in cases().items():
            values = (TESTS / "values" / f"{case}.yaml").read_text()
            for one, _, spec in pods(made):
                text = yaml.safe_dump(spec)
                secrets = re.findall(r"(?:secretName: |secretKeyRef:\n\s+key: \S+\n\s+name: )(\S+)", text)
                for kind, names in [("Secret", secrets), ("ConfigMap", re.findall(r"configMap:\n\s+name: (\S+)", text)),
                                    ("ServiceAccount", re.findall(r"serviceAccountName: (\S+)", text))]:
                    for name in names:
                        with self.subTest(case, pod=one["metadata"]["name"], kind=kind, name=name):
                            made_by_cert_manager = any(one["spec"]["secretName"] == name for one in named(made, "Certificate"))
                            self.assertTrue(named(made, kind, name) or re.search(rf"(?:existingSecret|secretName): {name}\b", values) or made_by_cert_manager)

    def test_secrets_are_random_and_fit(self):
        first, second = (named(objects("{}"), "Secret", "demo-streamfleet-fleet")[0]["data"] for _ in range(2))
        for key in ("secret", "relay-key", "admin-token"):
            self.assertNotEqual(first[key], second[key])
        self.assertRegex(base64.b64decode(first["secret"]).decode(), "^[!-~]{16,256}$")
        self.assertRegex(base64.b64decode(first["admin-token"]).decode(), "^[!-~]{16,256}$")
        self.assertEqual(len(base64.b64decode(base64.b64decode(first["relay-key"]))), 32)
        # One password, wherever it stands.
        made = objects("{}")
        redis = named(made, "Secret", "demo-streamfleet-redis")[0]["data"]
        password = base64.b64decode(redis["password"]).decode()
        self.assertIn(f"requirepass {password}\n", base64.b64decode(redis["redis.conf"]).decode())
        checksums = {metadata["annotations"]["checksum/redis"] for one, metadata, _ in pods(made) if one["kind"] == "Deployment"}
        self.assertEqual(len(checksums), 1)

    def test_a_login_in_the_url_is_taken_as_it_is_written(self):
        """The programs decode nothing either: what is in the Secret is what Redis is told."""
        # Everything visible but what a URL's login cannot have.
        every = "".join(chr(c) for c in range(33, 127) if chr(c) not in "@/%")
        for scheme, login, user, password in [("redis", ":p!ss", "", "p!ss"), ("redis", "me:pa:ss*'", "me", "pa:ss*'"), ("rediss", "me:^#?{}\"", "me", "^#?{}\""),
                                              ("redis", f"me:{every}", "me", every), ("redis", ":1234", "", "1234")]:
            for host, address in [("redis", "redis:6379"), ("[fd00::1]:6380", "[fd00::1]:6380"), ("[fd00::1]", "[fd00::1]:6379")]:
                with self.subTest(login, host=host):
                    made = objects(yaml.safe_dump({"redis": {"url": f"{scheme}://{login}@{host}"}}))
                    (secret,) = named(made, "Secret", "demo-streamfleet-redis")
                    self.assertEqual(base64.b64decode(secret["data"]["password"]).decode(), password)
                    store = yaml.safe_load(named(made, "ConfigMap", "demo-streamfleet-router")[0]["data"]["router.yaml"])["store"]["redis"]
                    self.assertEqual((store["address"], store.get("user", ""), "tls" in store), (address, user, scheme == "rediss"))

    def test_sessions_are_controlled_at_the_public_name(self):
        def hosts(url, *more, config="{}"):
            made = objects(f"{{publicUrl: '{url}', router: {{http: {{hosts: {list(more)}}}, config: {config}}}}}")
            return yaml.safe_load(named(made, "ConfigMap", "demo-streamfleet-router")[0]["data"]["router.yaml"])["http"]["hosts"]

        for url, more, expected in [
            ("", [], []),
            ("", ["a.example.com"], ["a.example.com"]),
            ("https://Voice.example.com", [], ["voice.example.com"]),
            ("https://voice.example.com:8443", ["a.example.com"], ["a.example.com", "voice.example.com"]),
            ("https://voice.example.com", ["voice.example.com"], ["voice.example.com"]),
            ("http://203.0.113.10", [], ["203.0.113.10"]),
            # Sessions are controlled at every address anyhow.
            ("https://[2001:db8::1]:8443", [], []),
        ]:
            with self.subTest(url, more=more):
                self.assertEqual(hosts(url, *more), expected)
        self.assertEqual(hosts("https://voice.example.com", config="{http: {hosts: [b.example.com]}}"), ["b.example.com"])
        # A default that is taken away.
        for http in ["null", "{hosts: null}"]:
            made = objects(f"{{publicUrl: 'https://a.example.com', router: {{http: {http}}}}}")
            config = yaml.safe_load(named(made, "ConfigMap", "demo-streamfleet-router")[0]["data"]["router.yaml"])
            self.assertEqual(config["http"]["hosts"], ["a.example.com"], http)

    def test_the_test_can_be_pulled(self):
        """From the registry that everything else comes from: the test's worker too."""
        made = objects("{images: {pullSecrets: [{name: registry}]}}")
        (service,) = named(made, "StreamService")
        self.assertEqual(service["spec"]["workers"]["imagePullSecrets"], [{"name": "registry"}])
        for owner, _, spec in pods(made):
            self.assertEqual(spec["imagePullSecrets"], [{"name": "registry"}], owner["metadata"]["name"])

    def test_labels_are_said_once(self):
        """The one that is nearest wins: a key that stands twice is taken by chance."""
        text = template("{commonLabels: {team: all, site: a}, router: {podLabels: {team: edge}},"
                        " monitoring: {namespace: m, podMonitors: {enabled: true, labels: {team: sre}}, rules: {enabled: true, labels: {team: sre}}, dashboard: {enabled: true, labels: {team: sre}}}}")
        made = [one for one in yaml.load_all(text, Loader=Unique) if one]
        (router,) = (metadata for one, metadata, _ in pods(made) if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("-router"))
        self.assertEqual((router["labels"]["team"], router["labels"]["site"]), ("edge", "a"))
        for kind, name in [("PodMonitor", "demo-streamfleet-router"), ("PrometheusRule", None), ("ConfigMap", "demo-streamfleet-dashboard")]:
            self.assertEqual(named(made, kind, name)[0]["metadata"]["labels"]["team"], "sre", kind)

    def test_no_secret_stands_in_the_open(self):
        for one in objects("{redis: {url: 'redis://user:a-password@redis'}}"):
            if one["kind"] != "Secret":
                self.assertNotIn("a-password", yaml.safe_dump(one))

    def test_what_configuration_says_rolls_pods(self):
        def checksum(values, component):
            (found,) = (metadata["annotations"]["checksum/config"] for one, metadata, _ in pods(objects(values))
                        if one["kind"] == "Deployment" and one["metadata"]["name"].endswith(component))
            return found

        self.assertNotEqual(checksum("{}", "-router"), checksum("{log: {filter: debug}}", "-router"))
        self.assertEqual(checksum("{}", "-router"), checksum("{operator: {concurrency: 3}}", "-router"))
        self.assertNotEqual(checksum("{}", "-operator"), checksum("{operator: {concurrency: 3}}", "-operator"))

    def test_gateway_routes_are_of_the_version_that_is_served(self):
        values = (TESTS / "values/gateway.yaml").read_text()
        self.assertEqual(named(objects(values), "UDPRoute")[0]["apiVersion"], "gateway.networking.k8s.io/v1alpha2")
        made = objects(values, more=["--api-versions", "gateway.networking.k8s.io/v1/UDPRoute"])
        self.assertEqual(named(made, "UDPRoute")[0]["apiVersion"], "gateway.networking.k8s.io/v1")

    def test_kubernetes_is_new_enough(self):
        done = helm("template", CHARTS / "streamfleet", "--kube-version", "1.32.9")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("requires kubeVersion: >=1.33.0-0", done.stderr)

    def test_versions_agree(self):
        workspace = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        for chart in ("streamfleet", "streamfleet-crds"):
            about = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
            self.assertEqual((about["version"], about["appVersion"]), (workspace, workspace))
        images = {one["image"] for one in yaml.safe_load(yaml.safe_load((CHARTS / "streamfleet/Chart.yaml").read_text())["annotations"]["artifacthub.io/images"])}
        used = {container["image"] for _, _, spec in pods(cases()["default"]) for container in spec["containers"]}
        used.add(yaml.safe_load(named(cases()["default"], "ConfigMap", "demo-streamfleet-operator")[0]["data"]["operator.yaml"])["workerImage"])
        # Nobody can fetch ours: they are not published.
        self.assertEqual(images, {image for image in used if not image.startswith("ghcr.io/streamfleet/")})

    def test_the_resource_stays_unless_told(self):
        (kept,) = objects("{}", chart="streamfleet-crds")
        (left,) = objects("{keep: false, labels: {a: b}, annotations: {c: d}}", chart="streamfleet-crds")
        self.assertEqual(kept["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})
        self.assertEqual((left["metadata"]["annotations"], left["metadata"]["labels"]["a"]), ({"c": "d"}, "b"))
        committed = yaml.safe_load((ROOT / "crds/streamservices.yaml").read_text())
        self.assertEqual(kept["spec"], committed["spec"])


class Schemas(unittest.TestCase):
    """Against what each version of Kubernetes, and others' resources, say of themselves."""

    def conform(self, text, version):
        folder = tool("schemas")
        return subprocess.run(
            [tool("kubeconform"), "-strict", "-summary", "-schema-location", f"{folder}/{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
             "-schema-location", f"{os.environ['STREAMFLEET_TEST_CRDS']}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", "-"], input=text, capture_output=True, text=True)

    def versions(self):
        return sorted(one.name for one in pathlib.Path(tool("schemas")).iterdir())

    def test_everything_conforms(self):
        versions = self.versions()
        self.assertEqual([".".join(one.split(".")[:2]) for one in versions], ["1.33", "1.34", "1.35", "1.36"])
        texts = {file.stem: template(file.read_text()) for file in (TESTS / "values").glob("*.yaml")}
        texts |= {file.name: file.read_text() for file in (ROOT / "examples/kubernetes").glob("*.yaml")}
        texts["crds"] = template(chart="streamfleet-crds")
        texts["udp v1"] = template((TESTS / "values/gateway.yaml").read_text(), more=["--api-versions", "gateway.networking.k8s.io/v1/UDPRoute"])
        for version in versions:
            for name, text in texts.items():
                with self.subTest(name, version=version):
                    done = self.conform(text, version)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                    self.assertRegex(done.stdout, r"Valid: [1-9]\d*, Invalid: 0, Errors: 0, Skipped: 0")

    def test_what_does_not_conform_is_found(self):
        good = template()
        self.assertEqual(self.conform(good, self.versions()[-1]).returncode, 0)
        for old, new in [("terminationGracePeriodSeconds: 80", "terminationGraceSeconds: 80"), ("maxUnavailable: 1", "maxUnavailable: [1]"),
                         ("handler: {name: echo-frames}", "handlers: {name: echo-frames}"), ("kind: NetworkPolicy", "kind: NetworkPolices")]:
            with self.subTest(new):
                self.assertIn(old, good)
                self.assertNotEqual(self.conform(good.replace(old, new), self.versions()[-1]).returncode, 0)


if __name__ == "__main__":
    unittest.main()
