//! Every rule on every arrangement.

use std::sync::Arc;
use std::time::Duration;

use streamfleet_store::{Address, Arrangement, Login, RIGHTS, RedisConfig, RedisStore, StoreError, Terms, Tls};

use crate::rules;
use crate::server::{Clock, Directory, Server, free_port, until};
use crate::world::World;

/// A world on a Redis, once it can be reached.
pub(crate) async fn world(config: RedisConfig, clock: &Arc<Clock>) -> World {
    World::new(Arc::new(connected(config).await), Some(clock.clone()))
}

/// A store that can be reached. Its commands have time: a machine that is busy with other tests is slow at everything, and no
/// deadline is what is tested.
pub(crate) async fn connected(config: RedisConfig) -> RedisStore {
    in_time(RedisConfig { command_deadline: Duration::from_secs(20), ..config }).await
}

/// A Redis whose leases and claims do not run out while a busy machine stands still. What runs out is tested with clocks that are put
/// forward.
pub(crate) fn unhurried(server: &Server) -> RedisConfig {
    let long = Duration::from_secs(600);
    let terms = Terms { lease: long, reservation: long, ..Terms::default() };
    RedisConfig { terms, ..RedisConfig::new(Arrangement::Single(server.address())) }
}

/// A store that can be reached, and whose commands have the time that they are given.
pub(crate) async fn in_time(config: RedisConfig) -> RedisStore {
    let store = RedisStore::new(config);
    let service = "test-ping/scene".parse().unwrap();
    for _ in 0..200 {
        match store.ping(&service).await {
            Ok(()) => return store,
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no connection: {:?}", store.ping(&service).await);
}

#[tokio::test(start_paused = true)]
async fn in_process() {
    rules::hold(&World::memory()).await;
}

#[tokio::test]
async fn single() {
    let clock = Arc::new(Clock::new());
    let server = Server::start(Some(&clock), free_port(), &[]);
    let config = RedisConfig::new(Arrangement::Single(server.address()));
    rules::hold(&world(config, &clock).await).await;
    // Every key of every scene has an end.
    for key in server.command(&["--scan"]).lines() {
        let left: i64 = server.command(&["TTL", key]).parse().unwrap();
        assert!(left > 0, "{key} stays for ever");
    }
}

#[tokio::test]
async fn a_user_with_no_more_rights_than_needed() {
    let clock = Arc::new(Clock::new());
    let server = Server::start(Some(&clock), free_port(), &[]);
    let keys = ["~sf:{test-*", "~sf:{HELD}:*", "resetchannels", "&sf:{test-*"];
    let rule = [["ACL", "SETUSER", "fleet", "on", ">secret-of-the-fleet"].as_slice(), &keys, RIGHTS].concat();
    assert_eq!(server.command(&rule), "OK");
    assert_eq!(server.command(&["ACL", "SETUSER", "default", "off"]), "OK");
    let login = Login { user: Some("fleet".to_owned()), password: "secret-of-the-fleet".to_owned() };
    let config = RedisConfig { login: Some(login), ..RedisConfig::new(Arrangement::Single(server.address())) };
    let world = world(config.clone(), &clock).await;
    rules::hold(&world).await;
    let store = connected(config).await;
    let refused = store.ping(&"other/service".parse().unwrap()).await;
    assert!(
        matches!(&refused, Err(StoreError::Refused(why)) if why.starts_with("NOPERM")),
        "another service's keys: {refused:?}"
    );
}

#[tokio::test]
async fn tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let files = Directory::new();
    let file = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, cert, key) = (file("ca", root.pem()), file("cert", certificate.pem()), file("key", key.serialize_pem()));
    let port = free_port();
    let clock = Arc::new(Clock::new());
    let listening = port.to_string();
    let server = Server::start(
        Some(&clock),
        port,
        &[
            "--port",
            "0",
            "--tls-port",
            &listening,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
        ],
    );
    let config = RedisConfig::new(Arrangement::Single(server.address()));
    let trusting = Tls { authorities: Some(root.pem().into_bytes()), certificate: None };
    rules::hold(&world(RedisConfig { tls: Some(trusting), ..config.clone() }, &clock).await).await;
    let wary = RedisStore::new(RedisConfig { tls: Some(Tls::default()), ..config });
    let refused = wary.ping(&"test-a/b".parse().unwrap()).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "an unknown authority: {refused:?}");
}

/// A primary with two replicas, and three Sentinels that agree by two.
pub(crate) struct Sentinels {
    pub(crate) nodes: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
}

impl Sentinels {
    pub(crate) fn start(clock: &Clock) -> Self {
        // Put-forward clocks must not look like silence between the nodes.
        let patient = ["--repl-timeout", "100000000"];
        let primary = Server::start(Some(clock), free_port(), &patient);
        let port = primary.port.to_string();
        let replica = || {
            let arguments = ["--replicaof", "127.0.0.1", &port, patient[0], patient[1]];
            Server::start(Some(clock), free_port(), &arguments)
        };
        let nodes = vec![primary, replica(), replica()];
        until("the replicas are in step", || nodes[0].command(&["WAIT", "2", "100"]) == "2");
        let configuration = format!(
            "sentinel monitor fleet 127.0.0.1 {port} 2\nsentinel down-after-milliseconds fleet 700\n\
             sentinel failover-timeout fleet 4000\n"
        );
        let sentinels: Vec<Server> = (0..3).map(|_| Server::sentinel(free_port(), &configuration)).collect();
        until("the Sentinels know each other", || {
            sentinels.iter().all(|sentinel| {
                let state = sentinel.command(&["SENTINEL", "MASTER", "fleet"]);
                let value = |key: &str| state.lines().skip_while(|line| *line != key).nth(1).unwrap_or("").to_owned();
                value("num-slaves") == "2" && value("num-other-sentinels") == "2"
            })
        });
        Self { nodes, sentinels }
    }

    pub(crate) fn config(&self) -> RedisConfig {
        let sentinels: Vec<Address> = self.sentinels.iter().map(Server::address).collect();
        RedisConfig::new(Arrangement::Sentinel { sentinels, primary: "fleet".to_owned(), login: None })
    }
}

#[tokio::test]
async fn sentinel() {
    let clock = Arc::new(Clock::new());
    let sentinels = Sentinels::start(&clock);
    rules::hold(&world(sentinels.config(), &clock).await).await;
}

/// A Cluster of three primaries.
pub(crate) fn three(clock: Option<&Clock>) -> Vec<Server> {
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "100000000"];
    let nodes: Vec<Server> = (0..3).map(|_| Server::start(clock, free_port(), &options)).collect();
    for (node, slots) in nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
        assert_eq!(node.command(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]), "OK");
        assert_eq!(node.command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]), "OK");
    }
    until("the cluster is complete", || {
        nodes.iter().all(|node| {
            let state = node.command(&["CLUSTER", "INFO"]);
            state.contains("cluster_state:ok") && state.contains("cluster_known_nodes:3")
        })
    });
    nodes
}

#[tokio::test]
async fn cluster() {
    let clock = Arc::new(Clock::new());
    let nodes = three(Some(&clock));
    let config = RedisConfig::new(Arrangement::Cluster(nodes.iter().take(1).map(Server::address).collect()));
    rules::hold(&world(config, &clock).await).await;
    let used = nodes.iter().filter(|node| node.command(&["DBSIZE"]) != "0").count();
    assert!(used > 1, "services are spread over the nodes");
}
