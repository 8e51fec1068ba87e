"""Which values are refused, with what, and which are taken."""

import json
import unittest

from rendered import Refused, template

# Values, and what the message has: the key that is wrong, or words of ours.
REFUSED = [
    ("{unknown: 1}", "additional properties 'unknown' not allowed"),
    ("{router: {unknown: 1}}", "'/router': additional properties 'unknown' not allowed"),
    ("{router: {replicas: 0}}", "/router/replicas"),
    ("{router: {replicas: two}}", "/router/replicas"),
    ("{operator: {replicas: 0}}", "/operator/replicas"),
    ("{operator: {replicas: 6}}", "/operator/replicas"),
    ("{images: {pullPolicy: Sometimes}}", "/images/pullPolicy"),
    ("{images: {router: 'a b'}}", "/images/router"),
    ("{images: {tag: 'a:b'}}", "/images/tag"),
    ("{images: {pullSecrets: [registry]}}", "/images/pullSecrets/0"),
    ("{scope: {namespaces: [Voice]}}", "/scope/namespaces/0"),
    ("{scope: {clusterWide: true, namespaces: [a]}}", "/scope/namespaces"),
    ("{scope: {namespaces: [a, a]}}", "/scope/namespaces"),
    ("{publicUrl: voice.example.com}", "/publicUrl"),
    ("{publicUrl: 'https://voice.example.com/path'}", "/publicUrl"),
    ("{publicUrl: 'https://stimme-ü.example.com'}", "/publicUrl"),
    ("{publicUrl: 'https://voice.example.com:a'}", "/publicUrl"),
    ("{publicUrl: 'https://[2001:db8::1'}", "/publicUrl"),
    ("{ipFamilies: []}", "/ipFamilies"),
    ("{ipFamilies: [IPv5]}", "/ipFamilies/0"),
    ("{ipFamilies: [IPv4, IPv4]}", "/ipFamilies"),
    ("{ipFamilies: [IPv6]}", "/router/relay/workerPrefix"),
    ("{redis: {url: 'redis.example.com:6379'}}", "redis.url must be redis://"),
    ("{redis: {url: 'redis://redis/0'}}", "redis.url must be redis://"),
    ("{redis: {url: 'redis://:a%20b@redis'}}", "without @, / and %"),
    ("{redis: {url: 'redis://:a@b@redis'}}", "redis.existingSecret"),
    ("{redis: {url: 'redis://:a b@redis'}}", "redis.url must be redis://"),
    ("{redis: {url: 'redis://:ä@redis'}}", "redis.url must be redis://"),
    ("{redis: {url: 'redis://user:@redis'}}", "redis.url must be redis://"),
    ("{redis: {url: 'redis://redis', nodes: ['a:1']}}", "/redis/nodes"),
    ("{redis: {url: 'redis://redis', sentinels: ['a:1'], primary: p}}", "/redis/sentinels"),
    ("{redis: {url: 'redis://:secret@redis', existingSecret: a}}", "/redis/existingSecret"),
    ("{redis: {sentinels: ['a:1']}}", "/redis/primary"),
    ("{redis: {sentinels: ['a:1'], primary: p, nodes: ['a:1']}}", "/redis/nodes"),
    ("{redis: {nodes: [a]}}", "/redis/nodes/0"),
    ("{redis: {url: 'rediss://redis', tls: {clientCertificate: true}}}", "/redis/tls/existingSecret"),
    ("{redis: {user: fleet}}", "redis.user and redis.tls are of a Redis that is there"),
    ("{redis: {existingSecret: redis}}", "say where with redis.url"),
    ("{redis: {tls: {enabled: true}}}", "say where with redis.url"),
    ("{redis: {tls: {existingSecret: ca}}}", "say where with redis.url"),
    ("{redis: {url: 'redis://redis', tls: {existingSecret: ca}}}", "nothing says TLS"),
    ("{redis: {sentinels: ['a:1'], primary: p, tls: {existingSecret: ca}}}", "nothing says TLS"),
    ("{redis: {nodes: ['a:1'], tls: {existingSecret: ca}}}", "nothing says TLS"),
    ("{redis: {bundled: {command: []}}}", "/redis/bundled/command"),
    ("{router: {autoscaling: {minReplicas: 1}}}", "/router/autoscaling/minReplicas"),
    ("{router: {autoscaling: {minReplicas: 5, maxReplicas: 4}}}", "router.autoscaling.minReplicas must be no more"),
    ("{router: {tls: {certManager: {enabled: true, dnsNames: [a]}}}}", "missing property 'name'"),
    ("{router: {tls: {certManager: {enabled: true, issuerRef: {name: a}}}}}", "/router/tls/certManager/dnsNames"),
    ("{router: {tls: {certManager: {duration: 90d}}}}", "/router/tls/certManager/duration"),
    ("{router: {tls: {certManager: {enabled: true, issuerRef: {name: a}, dnsNames: [a]}}, config: {tls: {selfSigned: [a]}}}}",
     "both say which certificate"),
    ("{router: {service: {layout: Both}}}", "/router/service/layout"),
    ("{router: {service: {type: ClusterIP}}}", "/router/relay/mediaAddresses"),
    ("{router: {service: {type: NodePort}}}", "/router/relay/mediaAddresses"),
    ("{router: {service: {externalTrafficPolicy: local}}}", "/router/service/externalTrafficPolicy"),
    ("{router: {service: {loadBalancerSourceRanges: [10.0.0.0]}}}", "/router/service/loadBalancerSourceRanges/0"),
    ("{router: {service: {media: {port: 0}}}}", "/router/service/media/port"),
    ("{router: {service: {http: {port: 70000}}}}", "/router/service/http/port"),
    ("{router: {relay: {workers: []}}}", "/router/relay/workers"),
    ("{router: {relay: {workers: [pods]}}}", "/router/relay/workers/0"),
    ("{router: {relay: {workers: ['fd00::/48']}}}", "/router/relay/workerPrefix"),
    ("{router: {relay: {flows: 16777217}}}", "/router/relay/flows"),
    ("{router: {drain: {noticeSeconds: 0}}}", "/router/drain/noticeSeconds"),
    ("{router: {drain: {noticeSeconds: 61}}}", "router.drain.noticeSeconds must be no more than router.drain.graceSeconds"),
    ("{router: {http: {origins: []}}}", "/router/http/origins"),
    ("{router: {resources: {request: {cpu: 1}}}}", "/router/resources"),
    ("{router: {env: [{value: a}]}}", "/router/env/0"),
    ("{log: {format: xml}}", "/log/format"),
    ("{otlp: {endpoint: 'collector:4317'}}", "/otlp/endpoint"),
    ("{otlp: {sample: 2}}", "/otlp/sample"),
    ("{monitoring: {podMonitors: {enabled: true}}}", "monitoring.namespace must say where Prometheus is"),
    ("{monitoring: {podMonitors: {interval: 15}}}", "/monitoring/podMonitors/interval"),
    ("{gateway: {http: {enabled: true}}}", "/gateway/http/parentRefs"),
    ("{gateway: {udp: {enabled: true, parentRefs: [{name: a}]}}}", "/router/relay/mediaAddresses"),
    ("{test: {waitSeconds: 601}}", "/test/waitSeconds"),
    ("{commonLabels: {a: 1}}", "/commonLabels/a"),
    ("{commonLabels: {app.kubernetes.io/component: a}}", "/commonLabels"),
    ("{commonLabels: {helm.sh/chart: a}}", "/commonLabels"),
    ("{router: {podLabels: {app.kubernetes.io/name: a}}}", "/router/podLabels"),
    ("{operator: {podLabels: {app.kubernetes.io/name: a}}}", "/operator/podLabels"),
    ("{redis: {bundled: {podLabels: {app.kubernetes.io/name: a}}}}", "/redis/bundled/podLabels"),
    ("{monitoring: {rules: {labels: {app.kubernetes.io/name: a}}}}", "/monitoring/rules/labels"),
    ("{fleet: {existingSecret: Fleet}}", "/fleet/existingSecret"),
]

TAKEN = [
    "{}",
    "{global: {anything: true}}",
    "{redis: {url: redis://redis}}",
    "{redis: {url: 'redis://:secret@[fd00::1]:6380'}}",
    "{redis: {url: 'rediss://user@redis.example.com', existingSecret: redis}}",
    "{redis: {url: 'rediss://redis', tls: {existingSecret: ca}}}",
    "{redis: {nodes: ['a:1'], tls: {enabled: true, existingSecret: ca}}}",
    "{router: {service: {type: NodePort}, relay: {mediaAddresses: ['203.0.113.7:30478']}}}",
    "{ipFamilies: [IPv6, IPv4], router: {relay: {workers: ['fd00:10:244::/56'], workerPrefix: 'fd00:10:244::/56'}}}",
    "{monitoring: {podMonitors: {enabled: true}}, networkPolicy: {enabled: false}}",
    "{router: {config: {http: {connections: 16384}}}}",
]


class Values(unittest.TestCase):
    def test_refused(self):
        for values, said in REFUSED:
            with self.subTest(values):
                with self.assertRaises(Refused) as refused:
                    template(values)
                self.assertIn(said, str(refused.exception))

    def test_a_refusal_shows_no_password(self):
        for url in ("redis://:quite%secret@redis", "redis://:quite@secret@redis", "redis://:quite/secret@redis", "quite-secret"):
            with self.subTest(url):
                with self.assertRaises(Refused) as refused:
                    template(json.dumps({"redis": {"url": url}}))
                self.assertNotIn("quite", str(refused.exception))

    def test_taken(self):
        for values in TAKEN:
            with self.subTest(values):
                template(values)

    def test_the_resource_takes_its_values(self):
        with self.assertRaises(Refused) as refused:
            template("{keep: maybe}", chart="streamfleet-crds")
        self.assertIn("/keep", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
