//! What the API server refuses beyond types and bounds: rules in CEL, each at the part of the schema that it is about.
//!
//! They say no more than [`Service::from_resource`](crate::Service::from_resource) does; they say it before the object is there, to whoever
//! writes it. What is allowed to be absent may be absent here: the API server fills in no defaults but `autoscaling.replicas`.

/// One rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Where: keys from the root, `[]` for the items of a list.
    pub(super) at: &'static str,
    /// What has to be true.
    pub(super) rule: &'static str,
    /// What is said where it is not.
    pub(super) message: &'static str,
    /// The key below `at` that it is said of.
    pub(super) field: Option<&'static str>,
}

/// What is said of a service whose sessions may last for ever.
pub(super) const UNBOUNDED: &str = "is needed, or spec.autoscaling.scaleDown.maxDrainSeconds, or spec.disruption Always: a session without an \
     end would hold up the drain of its node for ever";

/// All of them.
pub(super) const RULES: &[Rule] = &[
    Rule {
        at: "",
        rule: "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
        message: "the name of a StreamService is a DNS label: at most 63 characters, and no dots",
        field: None,
    },
    Rule {
        at: "spec",
        rule: "(has(self.modality) ? self.modality : 'audio-video') == (has(oldSelf.modality) ? oldSelf.modality : 'audio-video')",
        message: "cannot be changed: make another StreamService",
        field: Some(".modality"),
    },
    Rule {
        at: "spec",
        rule: "(has(self.limits) && has(self.limits.timeLimitSeconds)) \
               || (has(self.autoscaling) && has(self.autoscaling.scaleDown) && has(self.autoscaling.scaleDown.maxDrainSeconds) \
               && self.autoscaling.scaleDown.maxDrainSeconds > 0) \
               || (has(self.disruption) && self.disruption == 'Always')",
        message: UNBOUNDED,
        field: Some(".limits.timeLimitSeconds"),
    },
    Rule {
        at: "spec",
        rule: "!has(self.routing) || !has(self.routing.affinity) || !has(self.routing.affinity.by) \
               || !self.routing.affinity.by.startsWith('path:') \
               || (has(self.path) && self.path.contains('{' + self.routing.affinity.by.substring(5) + '}'))",
        message: "names a parameter that spec.path does not have",
        field: Some(".routing.affinity.by"),
    },
    Rule {
        at: "spec.path",
        rule: "!self.split('/').exists(s, s in ['.', '..', 'webrtc', 'websocket', 'telephone', 'outputs', 'input_hook', \
               'trigger_response', 'rtc_configuration', 'sessions', 'whip'])",
        message: "has a segment that is . or .., or the name of a route that every service has",
        field: None,
    },
    Rule {
        at: "spec.path",
        rule: "self.split('/').filter(s, s.startsWith('{')).all(s, self.indexOf(s) == self.lastIndexOf(s))",
        message: "has a parameter twice",
        field: None,
    },
    Rule {
        at: "spec.aliases[]",
        rule: "!self.split('/').exists(s, s in ['.', '..', 'webrtc', 'websocket', 'telephone', 'outputs', 'input_hook', \
               'trigger_response', 'rtc_configuration', 'sessions', 'whip'])",
        message: "has a segment that is . or .., or the name of a route that every service has",
        field: None,
    },
    Rule {
        at: "spec.workers.env[]",
        rule: "!self.name.startsWith('STREAMFLEET_')",
        message: "variables that begin with STREAMFLEET_ are the operator's",
        field: Some(".name"),
    },
    Rule {
        at: "spec.workers.env[]",
        rule: "has(self.value) != has(self.valueFrom)",
        message: "a variable has either value or valueFrom",
        field: None,
    },
    Rule {
        at: "spec.workers.env[].valueFrom",
        rule: "has(self.secretKeyRef) != has(self.configMapKeyRef)",
        message: "needs exactly one of secretKeyRef and configMapKeyRef",
        field: None,
    },
    Rule {
        at: "spec.autoscaling",
        rule: "(has(self.minReplicas) ? self.minReplicas : 1) <= (has(self.maxReplicas) ? self.maxReplicas : 10)",
        message: "is more than maxReplicas (10 where it is not said)",
        field: Some(".minReplicas"),
    },
    Rule {
        at: "spec.autoscaling",
        rule: "!has(self.schedule) || self.schedule.all(s, s.minReplicas <= (has(self.maxReplicas) ? self.maxReplicas : 10))",
        message: "has more minReplicas than maxReplicas (10 where it is not said)",
        field: Some(".schedule"),
    },
    Rule {
        at: "spec.identity",
        rule: "!has(self.required) || !self.required || has(self.jwt)",
        message: "identity is required, and nothing says how it is proved",
        field: Some(".jwt"),
    },
    Rule {
        at: "spec.identity",
        rule: "!has(self.required) || !self.required || !has(self.userIdFrom) || self.userIdFrom.exists(s, s.startsWith('jwt:'))",
        message: "identity is required, and no jwt:CLAIM is named to take it from",
        field: Some(".userIdFrom"),
    },
    Rule {
        at: "spec.identity.jwt",
        rule: "[has(self.jwksUrl), has(self.publicKey), has(self.secret)].exists_one(given, given)",
        message: "needs exactly one of jwksUrl, publicKey and secret",
        field: None,
    },
    Rule {
        at: "spec.media.iceServers[]",
        rule: "!self.urls.exists(u, u.startsWith('turn')) || (has(self.username) && has(self.credential))",
        message: "a TURN server needs a username and a credential",
        field: Some(".credential"),
    },
    Rule {
        at: "spec.media.turn",
        rule: "(has(self.urls) && size(self.urls) > 0) == has(self.secret)",
        message: "urls and secret belong together",
        field: Some(".secret"),
    },
    Rule {
        at: "spec.routing",
        rule: "!has(self.variants) || self.variants.map(v, v.weight).sum() <= 100",
        message: "the weights are more than 100 together",
        field: Some(".variants"),
    },
    Rule {
        at: "spec.routing.variants[]",
        rule: "self.name != 'base'",
        message: "base is the service itself",
        field: Some(".name"),
    },
    Rule {
        at: "spec.routing.variants[].workers.env[]",
        rule: "!self.name.startsWith('STREAMFLEET_')",
        message: "variables that begin with STREAMFLEET_ are the operator's",
        field: Some(".name"),
    },
    Rule {
        at: "spec.routing.variants[].workers.env[]",
        rule: "has(self.value) != has(self.valueFrom)",
        message: "a variable has either value or valueFrom",
        field: None,
    },
    Rule {
        at: "spec.routing.variants[].workers.env[].valueFrom",
        rule: "has(self.secretKeyRef) != has(self.configMapKeyRef)",
        message: "needs exactly one of secretKeyRef and configMapKeyRef",
        field: None,
    },
];
