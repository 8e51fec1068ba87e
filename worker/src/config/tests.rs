use std::collections::BTreeSet;

use serde_json::json;
use streamfleet_process::config::{Loaded, Mistakes};
use streamfleet_process::tls::Certificate;
use streamfleet_service::spec::Modality;
use streamfleet_session::metadata::AllowList;
use streamfleet_session::{FleetKey, Limits};
use streamfleet_store::Backend;

use super::*;
use crate::http::{Callers, Hosts, Origins, Proxy};

fn handler(name: &str, config: &Value) -> Result<(), String> {
    match (name, config) {
        ("echo" | "tone", Value::Null | Value::Object(_)) => Ok(()),
        ("echo" | "tone", _) => Err("the configuration must be an object".to_owned()),
        _ => Err(format!("there is no handler {name:?}")),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn surroundings() -> Surroundings<'static> {
    Surroundings {
        cores: NonZeroUsize::new(2).unwrap(),
        random: [7; 32],
        handler: &handler,
        manifests: &|_, _| Vec::new(),
        store: None,
    }
}

fn build(yaml: &str) -> Result<WorkerPlan, Mistakes> {
    let Loaded { config, mistakes, .. } = WorkerConfig::layers().yaml("w.yaml", yaml).load::<WorkerConfig>();
    assert_eq!(mistakes.to_string(), "", "{yaml}");
    config.build(surroundings())
}

#[test]
fn the_defaults_are_a_worker_that_echoes() {
    let plan = build("").unwrap();
    assert_eq!(plan.listen, "0.0.0.0:8081".parse::<SocketAddr>().unwrap());
    assert_eq!((plan.udp, plan.loops.get()), (address("0.0.0.0:5000"), 2));
    assert_eq!(plan.handler_threads.get(), 16, "the least");
    assert_eq!(plan.admin_token_origin, TokenOrigin::Made);
    assert!(plan.admin_token.matches(&"07".repeat(32)));
    let [service] = plan.services.as_slice() else { panic!("{:?}", plan.services) };
    assert_eq!((service.name.as_str(), service.path.is_root(), service.handler.as_str()), ("echo", true, "echo"));
    assert_eq!(service.limits, Limits::default());
    assert_eq!(service.identity, IdentityPolicy::default());
    assert_eq!((plan.origins, plan.hosts), (Origins::Any, Hosts::Only(BTreeSet::new())));
}

#[test]
fn everything_said_arrives_in_the_plan() {
    let plan = build(
        r#"
listen: "[::]:443"
tls: { certificate: /etc/tls/tls.crt, key: /etc/tls/tls.key }
media: { udp: "0.0.0.0:6000", advertise: [192.0.2.1, "2001:db8::1"], loops: 3 }
handlers: { threads: 8 }
maxSessions: 500
services:
  - name: voice/assistant
    path: /assistant/
    aliases: ["/"]
    modality: audio
    handler: { name: tone, config: { hz: 440 } }
    limits: { concurrency: 100, perUser: 5, offersPerMinute: 60, timeLimitSeconds: 3600, connectTimeoutSeconds: 10 }
    identity:
      userIdFrom: ["header:X-User", "metadata:sub"]
      metadata: { maxBytes: 100, maxDepth: 2, maxKeys: 3, allow: [sub, plan] }
    telephone: { before: Hello., after: "", authToken: south, trustForwarded: true }
http: { origins: ["https://app.example.com"], hosts: [voice.example.com], connections: 10, socketsPerAddress: 1024 }
ice:
  servers: [{ urls: ["stun:stun.example.com"] }]
  turn: { urls: ["turn:turn.example.com"], secret: north-by-north-west, ttlSeconds: 600 }
admin: { listen: "127.0.0.1:9000", token: correct-horse-battery }
drain: { terminationGrace: 10m }
log: { format: json }
"#,
    )
    .unwrap();
    assert_eq!(plan.listen, "[::]:443".parse::<SocketAddr>().unwrap());
    assert_eq!(
        plan.certificate,
        Some(Certificate::Files { chain: "/etc/tls/tls.crt".into(), key: "/etc/tls/tls.key".into() })
    );
    assert_eq!((plan.udp.port(), plan.advertise.len(), plan.loops.get()), (6000, 2, 3));
    assert_eq!((plan.handler_threads.get(), plan.max_sessions.get(), plan.serve.connections.get()), (8, 500, 10));
    assert_eq!(plan.sockets_per_address, NonZeroUsize::new(1024));
    let service = &plan.services[0];
    assert_eq!((service.path.as_str(), service.aliases[0].is_root()), ("/assistant", true));
    assert_eq!((service.modality, &service.handler_config), (Modality::Audio, &json!({ "hz": 440 })));
    assert_eq!(
        service.limits,
        Limits {
            concurrency: NonZeroU32::new(100),
            per_user: NonZeroU32::new(5),
            offers_per_minute: NonZeroU32::new(60),
            time_limit: Some(Duration::from_secs(3600)),
            connect_timeout: Duration::from_secs(10),
            ..Limits::default()
        }
    );
    let sources: Vec<String> = service.identity.user_id_from.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["header:x-user", "metadata:sub"]);
    assert_eq!(service.identity.metadata.allow, AllowList::from_keys(["sub", "plan"]));
    assert_eq!(service.identity.metadata.max_depth, 2);
    let telephone = &service.telephone;
    assert_eq!((telephone.before.as_str(), telephone.after.as_str(), telephone.proxy), ("Hello.", "", Proxy::Trusted));
    assert!(matches!(&telephone.callers, Callers::Signed(token) if &**token == "south"));
    assert_eq!(plan.hosts, Hosts::Only(["voice.example.com".parse().unwrap()].into()));
    assert_eq!((plan.admin_listen.port(), plan.admin_token_origin), (9000, TokenOrigin::Configured));
    assert!(plan.admin_token.matches("correct-horse-battery"));
    assert_eq!(plan.termination_grace, Duration::from_secs(600));
}

#[test]
fn every_mistake_is_named() {
    let check = |yaml: &str, expected: &[&str]| {
        let mistakes = build(yaml).err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
        assert_eq!(mistakes, expected.join("\n"), "{yaml}");
    };
    check("services: []", &["services: at least one service is needed"]);
    check("services: [{}]", &["services[0].name: a service needs a name"]);
    check(
        "services: [{ name: a }, { name: a, path: /b }, { name: c, aliases: [/b] }]",
        &[
            "services[1].name: a is the name of services[0] already",
            "services[2].path: / is taken already by services[0]",
            "services[2].aliases[0]: /b is taken already by services[1]",
        ],
    );
    check(
        "services: [{ name: a, handler: { name: nobody }, identity: { userIdFrom: [\"cookie:x\"] } }]",
        &[
            "services[0].handler: there is no handler \"nobody\"",
            "services[0].identity.userIdFrom[0]: a user id source must be metadata:KEY or header:NAME",
        ],
    );
    check(
        "services: [{ name: a, identity: { metadata: { maxBytes: 65537, maxDepth: 65, maxKeys: 4096 } } }]",
        &[
            "services[0].identity.metadata.maxBytes: 65537 is more than 65536",
            "services[0].identity.metadata.maxDepth: 65 is more than 64",
        ],
    );
    check(
        "services: [{ name: a, telephone: { authToken: ' ' } }]",
        &["services[0].telephone.authToken: the auth token must not be empty; leave it out if calls need no signature"],
    );
    check("media: { loops: 1000 }", &["media.loops: 1000 loops are more than 256"]);
    check("handlers: { threads: 5000 }", &["handlers.threads: 5000 threads are more than 4096"]);
    check(
        "media: { udp: \"0.0.0.0:65535\", advertise: [0.0.0.0, 192.0.2.1, 224.0.0.1] }",
        &[
            "media.udp: 2 loops would need ports up to 65536",
            "media.advertise[0]: nobody can reach 0.0.0.0",
            "media.advertise[2]: nobody can reach 224.0.0.1",
        ],
    );
    check("media: { udp: \"0.0.0.0:0\" }", &[]);
    check("tls: { certificate: /a }", &["tls.key: a certificate needs its key"]);
    check("tls: { key: /a }", &["tls.certificate: a key needs its certificate"]);
    check(
        "tls: { certificate: /a, key: /b, selfSigned: [localhost] }",
        &["tls.selfSigned: files are given already; choose one"],
    );
    check(
        "http: { origins: [\"https://a/b\"], hosts: [\"a b\"], trustedProxies: [10.0.0.0/8, proxy] }",
        &[
            "http.origins[0]: must be \"*\" or an origin such as \"https://app.example.com\", without a path",
            "http.hosts[0]: must be \"*\" or a host such as \"voice.example.com\" or \"voice.example.com:8443\"",
            "http.trustedProxies[1]: must be an address or a range such as 10.0.0.0/8 or fd00::/8",
        ],
    );
    check(
        "ice: { servers: [{}, { urls: [\"turn:t\"], username: u }], turn: { urls: [\"stun:s\"], ttlSeconds: 0 } }",
        &[
            "ice.servers[0].urls: a server needs at least one URL",
            "ice.servers[1].credential: a TURN server needs a username and a credential",
            "ice.turn.ttlSeconds: 0 is not between 60 and 604800",
            "ice.turn.urls[0]: not a turn: or turns: URL",
            "ice.turn.secret: TURN servers are given, but not their secret",
        ],
    );
    check(
        "ice: { turn: { secret: s } }",
        &[
            "ice.turn.urls: a secret is given, but no TURN server",
            "ice.turn.secret: must have at least 16 characters: whoever gets credentials can try secrets on them",
        ],
    );
    check(
        "admin: { token: short }",
        &["admin.token: an admin token must be at least 16 characters long: it guards every session"],
    );
}

#[test]
fn values_of_the_wrong_type_are_named_by_their_layer() {
    let vars = [
        ("STREAMFLEET_MEDIA_LOOPS", "0"),
        ("STREAMFLEET_LOG", "info,x=loud"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
        ("STREAMFLEET_ROUTER_SERVICE_HOST", "10.0.0.1"),
    ];
    let loaded = WorkerConfig::layers()
        .environment(vars.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .yaml(
            "w.yaml",
            "services: [{ name: No, path: a }, { telephone: { authToken: 24680 } }]\nadmin: { token: [hunter2] }\n",
        )
        .load::<WorkerConfig>();
    let mut keys: Vec<(String, bool)> = loaded
        .mistakes
        .iter()
        .map(|m| (m.key.clone(), ["hunter2", "24680"].iter().any(|secret| m.message.contains(secret))))
        .collect();
    keys.sort();
    let expected = [
        "admin.token",
        "log.filter",
        "media.loops",
        "otlp.endpoint",
        "services[0].name",
        "services[0].path",
        "services[1].telephone.authToken",
    ];
    assert_eq!(keys, expected.map(|key| (key.to_owned(), false)));
    assert_eq!(loaded.unknown_variables, ["STREAMFLEET_ROUTER_SERVICE_HOST"]);
}

#[test]
fn variables_are_unique_and_secrets_do_not_show() {
    let mut names: Vec<String> =
        WorkerConfig::layers().variables::<WorkerConfig>().into_iter().map(|(name, _)| name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    for name in [
        "STREAMFLEET_MEDIA_UDP",
        "STREAMFLEET_ADMIN_TOKEN",
        "STREAMFLEET_DRAIN_TERMINATION_GRACE",
        "STREAMFLEET_FLEET",
        "STREAMFLEET_FLEET_WORKER",
        "STREAMFLEET_FLEET_STORE_REDIS_TLS_AUTHORITIES",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} is missing among {names:?}");
    }
    let loaded = WorkerConfig::layers()
        .yaml(
            "w.yaml",
            "admin: { token: correct-horse-battery }\nice: { turn: { urls: ['turn:t.example'], secret: north-by-northwest } }\n\
             services: [{ name: a, telephone: { authToken: south } }]",
        )
        .load::<WorkerConfig>();
    let text = format!("{:?}", loaded.config);
    let text = format!("{text} {:?}", loaded.config.build(surroundings()).unwrap());
    assert!(!["horse", "north", "south"].iter().any(|secret| text.contains(secret)), "{text}");
}

#[test]
fn a_part_in_a_fleet() {
    let yaml = "fleet: {worker: w-1, http: '10.0.0.7:8081', secret: correct-horse-battery, store: {redis: {address: 'redis:6379'}}}";
    let fleet = build(yaml).unwrap().fleet.unwrap();
    assert_eq!((fleet.worker.as_str(), fleet.http.as_str()), ("w-1", "10.0.0.7:8081"));
    let key = |given: FleetKey| given.of_service(&"echo".parse().unwrap()).reveal().to_owned();
    let echo = key("correct-horse-battery".parse().unwrap());
    assert_eq!(key(fleet.key), echo);
    assert!(build("").unwrap().fleet.is_none());
    let headers = |yaml| build(yaml).unwrap().serve.header_bytes;
    assert_eq!(headers(yaml) - headers(""), streamfleet_session::fleet::MAX_PLACED, "a place fits beside them");
    let check = |redis: &str, expected: &str| {
        let yaml =
            format!("fleet: {{worker: w, http: 'h:1', secret: correct-horse-battery, store: {{redis: {redis}}}}}");
        let mistakes = build(&yaml).err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
        assert!(mistakes.contains(expected) && mistakes.is_empty() == expected.is_empty(), "{redis}: {mistakes}");
    };
    check("{nodes: ['a:1', '[::1]:2']}", "");
    check("{sentinels: ['a:1'], primary: p, password: x}", "");
    check("{}", "needs one of");
    check("{address: 'a:1', nodes: ['b:1']}", "needs one of");
    check("{address: 'a'}", "fleet.store.redis.address");
    check("{address: 'a:0'}", "fleet.store.redis.address");
    check("{sentinels: ['a:1']}", "fleet.store.redis.primary");
    check("{address: 'a:1', user: u}", "fleet.store.redis.password");
    check("{address: 'a:1', tls: {authorities: /nowhere/ca.pem}}", "fleet.store.redis.tls.authorities");
    let check = |http: &str, expected: &str| {
        let mistakes = build(&yaml.replace("10.0.0.7:8081", http)).err().map(|mistakes| mistakes.to_string());
        assert_eq!(mistakes.unwrap_or_default(), expected, "{http}");
    };
    for reached in ["10.0.0.7:0", "[2001:db8::7]:8081", "127.0.0.1:0", "worker-7.voice:8081", "10.0.0.7", "2001:db8::7"]
    {
        check(reached, "");
    }
    for (alone, expected) in [("10.0.0.7", "10.0.0.7:0"), ("2001:db8::7", "[2001:db8::7]:0")] {
        let fleet = build(&yaml.replace("10.0.0.7:8081", alone)).unwrap().fleet.unwrap();
        assert_eq!(fleet.http, expected, "a pod is told its address alone");
    }
    for nowhere in ["0.0.0.0:8081", "0.0.0.0:0", "0.0.0.0", "::", "[::]:8081", "[::ffff:0.0.0.0]:1", "224.0.0.1:1"] {
        check(nowhere, "fleet.http: must be an address that routers can reach");
    }
    check("worker-7", "fleet.http: \"worker-7\" is not host:port");
    // What is made of the secret for one service serves one.
    let two = format!("{yaml}\nservices: [{{name: echo}}, {{name: tone, path: /tone}}]")
        .replace("correct-horse-battery", &echo);
    let one = build(&yaml.replace("correct-horse-battery", &echo)).unwrap().fleet.unwrap();
    assert_eq!(key(one.key), echo);
    let mistakes = build(&two).unwrap_err().to_string();
    assert_eq!(mistakes, "fleet.secret: is the key of one service, and 2 are served: it needs the fleet's secret");
    let mistakes = build("fleet: {}").unwrap_err().to_string();
    for key in ["fleet.worker", "fleet.http", "fleet.secret", "fleet.store.redis"] {
        assert!(mistakes.contains(key), "{key}: {mistakes}");
    }
}

/// A pod's worker has no file: what it is told are variables, some of which may be empty.
#[test]
fn a_part_in_a_fleet_from_the_environment() {
    let given = [
        ("STREAMFLEET_FLEET_WORKER", "assistant-worker-7f9c-x2"),
        ("STREAMFLEET_FLEET_HTTP", "10.244.1.7"),
        ("STREAMFLEET_FLEET_VARIANT", ""),
        ("STREAMFLEET_FLEET_SECRET", "correct-horse-battery"),
        ("STREAMFLEET_FLEET_STORE_REDIS_ADDRESS", "redis.voice:6379"),
        ("STREAMFLEET_FLEET_STORE_REDIS_USER", "assistant"),
        ("STREAMFLEET_FLEET_STORE_REDIS_PASSWORD", "123"),
        ("STREAMFLEET_MEDIA_ADVERTISE", "10.244.1.7"),
        ("STREAMFLEET_MANIFESTS", ""),
    ];
    let load = |given: &[(&str, &str)]| {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let Loaded { config, mistakes, unknown_variables } =
            WorkerConfig::layers().environment(given).load::<WorkerConfig>();
        assert_eq!((mistakes.to_string(), unknown_variables), (String::new(), Vec::new()));
        config.build(surroundings()).unwrap()
    };
    let fleet = load(&given).fleet.unwrap();
    assert_eq!(
        (fleet.worker.as_str(), fleet.http.as_str(), fleet.variant),
        ("assistant-worker-7f9c-x2", "10.244.1.7:0", None)
    );
    let Backend::Redis(redis) = fleet.store else { panic!("{:?}", fleet.store) };
    assert_eq!(redis.login.unwrap().password, "123");
    assert!(load(&given.map(|(name, _)| (name, ""))).fleet.is_none(), "a worker that stands alone");
}

const FLEET: &str = "fleet: { worker: w1, http: \"127.0.0.1:0\", secret: a-secret-of-the-fleet, store: { redis: { address: \"r:6379\" } } }\n";

/// A worker's configuration, and the manifests that it finds.
fn build_with(yaml: &str, manifests: &str) -> Result<WorkerPlan, Vec<String>> {
    let texts = [("fleet.yaml".to_owned(), manifests.to_owned())];
    let manifests = |paths: &[PathBuf], mistakes: &mut Mistakes| {
        assert_eq!(paths, [PathBuf::from("fleet.yaml")]);
        streamfleet_service::files::services(&texts, mistakes)
    };
    let Loaded { config, mistakes, .. } = WorkerConfig::layers().yaml("w.yaml", yaml).load::<WorkerConfig>();
    assert_eq!(mistakes.to_string(), "", "{yaml}");
    let built = config.build(Surroundings { manifests: &manifests, ..surroundings() });
    built.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

fn manifest(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: streamfleet.dev/v1alpha1\nkind: StreamService\nmetadata: {{name: {name}}}\nspec: {{handler: {{name: echo}}{spec}}}\n---\n"
    )
}

#[test]
fn a_worker_of_a_fleet_serves_what_its_routers_read() {
    let spec = ", path: \"/rooms/{room}\", modality: audio, workers: {sessionsPerWorker: 7}, \
        limits: {timeLimitSeconds: 60, connectTimeoutSeconds: 9, concurrency: 40}, \
        identity: {userIdFrom: [\"jwt:sub\", \"metadata:user\"], jwt: {publicKey: k}, metadata: {maxBytes: 99}}, \
        telephone: {before: Hello, authToken: {env: PATH}}";
    let text = manifest("rooms", spec) + &manifest("echo", "");
    let plan = build_with(&format!("{FLEET}manifests: [fleet.yaml]"), &text).unwrap();
    let [rooms, echo] = plan.services.as_slice() else { panic!("{:?}", plan.services) };
    assert_eq!((rooms.name.as_str(), rooms.path.as_str(), rooms.handler.as_str()), ("rooms", "/rooms", "echo"));
    assert_eq!((rooms.modality, rooms.capacity.map(NonZeroU32::get)), (Modality::Audio, Some(7)));
    assert_eq!(rooms.limits.time_limit.map(|limit| limit.as_secs()), Some(60));
    assert_eq!((rooms.limits.connect_timeout.as_secs(), rooms.limits.concurrency.map(NonZeroU32::get)), (9, Some(40)));
    assert_eq!(rooms.identity.metadata.max_bytes, 99);
    let said: Vec<String> = rooms.identity.user_id_from.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["metadata:user"], "claims are the router's to read");
    assert_eq!((rooms.telephone.before.as_str(), &rooms.telephone.after), ("Hello", &Telephone::default().after));
    let Callers::Signed(token) = &rooms.telephone.callers else { panic!("{:?}", rooms.telephone) };
    assert_eq!(**token, *std::env::var("PATH").unwrap());
    assert_eq!(echo.capacity.map(NonZeroU32::get), Some(50), "a StreamService's own default");
}

#[test]
fn what_is_wrong_with_manifests_is_told() {
    #[track_caller]
    fn check(yaml: &str, manifests: &str, expected: &[&str]) {
        assert_eq!(build_with(yaml, manifests).unwrap_err(), expected, "{yaml}");
    }
    let listed = format!("{FLEET}manifests: [fleet.yaml]\n");
    check(
        &format!("{listed}services: [{{ name: a }}]"),
        &manifest("a", ""),
        &["manifests: services are given already; choose one"],
    );
    check(
        "manifests: [fleet.yaml]",
        &manifest("a", ""),
        &["manifests: only a worker of a fleet can serve them: routers do what they say of callers"],
    );
    check(&listed, "", &["manifests: there is no service in them"]);
    check(
        &listed,
        &(manifest("a", ", limits: {concurrency: 0}")
            + &manifest("b", "").replace("name: echo", "name: nothing")
            + "kind: Pod"),
        &[
            "spec.limits.concurrency: invalid value: integer `0`, expected a nonzero u32 (in fleet.yaml, document 1)",
            "kind: \"Pod\" is not StreamService (fleet.yaml, document 3)",
            "spec.handler: there is no handler \"nothing\" (service b in fleet.yaml)",
        ],
    );
    let spec = ", telephone: {authToken: {env: STREAMFLEET_NO_SUCH}}";
    check(
        &listed,
        &(manifest("a", spec) + &manifest("a", "")).replace("name: echo", "name: nothing"),
        &[
            "metadata.name: there are two services a (fleet.yaml)",
            "spec.handler: there is no handler \"nothing\" (service a in fleet.yaml)",
            "spec.telephone.authToken: there is no variable STREAMFLEET_NO_SUCH (service a in fleet.yaml)",
        ],
    );
}
