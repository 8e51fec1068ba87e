//! Users of single services, on real servers.

use std::time::Duration;

use streamfleet_session::ServiceName;
use streamfleet_store::{
    Arrangement, Directory as _, Entry, Login, RIGHTS, RedisConfig, RedisStore, StoreError, Topic, Users as _,
    Wakeups as _, user_of,
};

use crate::arrangements::{Sentinels, connected, three};
use crate::server::{Clock, Server, free_port, until};

const PASSWORD: &str = "quite-secret";

fn named(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// The store as a worker of that service has it.
fn of_worker(config: &RedisConfig, service: &ServiceName, password: &str) -> RedisStore {
    let login = Login { user: Some(user_of(service)), password: password.to_owned() };
    RedisStore::new(RedisConfig { login: Some(login), command_deadline: Duration::from_secs(20), ..config.clone() })
}

/// Asks until something other is said than that the store is away.
async fn answer(store: &RedisStore, service: &ServiceName) -> Result<(), StoreError> {
    for _ in 0..200 {
        match store.ping(service).await {
            Err(StoreError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            said => return said,
        }
    }
    store.ping(service).await
}

/// The fleet's store, a service that has a user, and its worker's store.
async fn at_work(config: &RedisConfig) -> (RedisStore, ServiceName, RedisStore) {
    let (fleet, service) = (connected(config.clone()).await, named("voice/ours"));
    fleet.admit(&service, PASSWORD).await.unwrap();
    let worker = of_worker(config, &service, PASSWORD);
    assert_eq!(answer(&worker, &service).await, Ok(()));
    (fleet, service, worker)
}

fn is_refused(said: &Result<(), StoreError>) -> bool {
    matches!(said, Err(StoreError::Refused(why)) if why.starts_with("NOPERM"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_user_sees_that_service_alone() {
    let server = Server::start(None, free_port(), &[]);
    let config = RedisConfig::new(Arrangement::Single(server.address()));
    let fleet = connected(config.clone()).await;
    let (ours, theirs) = (named("voice/ours"), named("voice/ours-too"));
    fleet.admit(&ours, PASSWORD).await.unwrap();
    let worker = of_worker(&config, &ours, PASSWORD);
    assert_eq!(answer(&worker, &ours).await, Ok(()));
    let owner = worker.register(&ours, &"w".parse().unwrap(), Entry::New).await;
    assert!(owner.is_ok(), "{owner:?}");
    assert!(is_refused(&worker.ping(&theirs).await), "another service's keys");
    assert!(is_refused(&worker.held().await.map(drop)), "what is known of all services");
    assert!(is_refused(&worker.admit(&theirs, PASSWORD).await), "who makes users");
    let wrong = of_worker(&config, &ours, "guessed");
    let said = wrong.ping(&ours).await;
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");

    // It is set again, with another password: who is there stays and hears what it listens to, and only who has the new one comes.
    let channel = "sf:{voice/ours}:wake:directory";
    let _listener = worker.listen(&ours, Topic::Directory);
    let hears = || server.command(&["PUBSUB", "SHARDNUMSUB", channel]).ends_with('1');
    until("it is heard", hears);
    for password in [PASSWORD, "another"] {
        fleet.admit(&ours, password).await.unwrap();
        assert_eq!(worker.ping(&ours).await, Ok(()));
        assert!(hears() && worker.connections() == 1, "{} connections", worker.connections());
    }
    let said = of_worker(&config, &ours, PASSWORD).ping(&ours).await;
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");
    assert_eq!(answer(&of_worker(&config, &ours, "another"), &ours).await, Ok(()));

    fleet.dismiss(&ours).await.unwrap();
    until("its connections are over", || !server.command(&["CLIENT", "LIST"]).contains("user=sf:voice/ours"));
    assert_eq!(fleet.dismiss(&ours).await, Ok(()), "it is gone already");
}

/// A server that begins anew knows no users: who has made them is told by the number of connections, and makes them again.
#[tokio::test]
async fn users_are_made_again_at_a_server_that_has_forgotten_them() {
    let mut server = Server::start(None, free_port(), &[]);
    let config = RedisConfig::new(Arrangement::Single(server.address()));
    let (fleet, service, worker) = at_work(&config).await;
    let before = fleet.connections();
    server.restart(None);
    assert_eq!(answer(&fleet, &service).await, Ok(()));
    assert!(fleet.connections() > before, "{} after {before}", fleet.connections());
    let said = worker.ping(&service).await;
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "a user that is not known: {said:?}");
    fleet.admit(&service, PASSWORD).await.unwrap();
    assert_eq!(answer(&worker, &service).await, Ok(()), "it comes back by itself");
}

/// A replica was told of no users.
#[tokio::test]
async fn users_are_made_again_after_a_failover() {
    let clock = Clock::new();
    let mut sentinels = Sentinels::start(&clock);
    let config = sentinels.config();
    let (fleet, service, worker) = at_work(&config).await;
    let mut made = fleet.connections();
    sentinels.nodes[0].kill();
    // As the operator does: with each new connection, of which a failover may take several.
    let mut said = None;
    for _ in 0..600 {
        if fleet.connections() > made && fleet.ping(&service).await.is_ok() {
            made = fleet.connections();
            fleet.admit(&service, PASSWORD).await.unwrap();
        }
        said = Some(worker.ping(&service).await);
        if said == Some(Ok(())) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(said, Some(Ok(())));
}

#[tokio::test]
async fn every_node_of_a_cluster_has_the_user() {
    let nodes = three(None);
    let config = RedisConfig::new(Arrangement::Cluster(nodes.iter().take(1).map(Server::address).collect()));
    let fleet = connected(config.clone()).await;
    // Enough of them that each node has the keys of some.
    for n in 0..12 {
        let service = named(&format!("voice/s{n}"));
        fleet.admit(&service, PASSWORD).await.unwrap();
        for node in &nodes {
            let users = node.command(&["ACL", "USERS"]);
            assert!(users.lines().any(|user| user == user_of(&service)), "{users}");
        }
        let worker = of_worker(&config, &service, PASSWORD);
        assert_eq!(answer(&worker, &service).await, Ok(()), "{service}");
        let owner = worker.register(&service, &"w".parse().unwrap(), Entry::New).await;
        assert!(owner.is_ok(), "{owner:?}");
    }
    let used = nodes.iter().filter(|node| node.command(&["DBSIZE"]) != "0").count();
    assert!(used > 1, "services are spread over the nodes");
}

/// The login of an installation at a provider's may be one that makes no users.
#[tokio::test]
async fn who_may_not_make_users_is_told_so() {
    let server = Server::start(None, free_port(), &[]);
    let rule = [["ACL", "SETUSER", "fleet", "on", ">secret", "~sf:*", "resetchannels", "&sf:*"].as_slice(), RIGHTS];
    assert_eq!(server.command(&rule.concat()), "OK");
    let login = Login { user: Some("fleet".to_owned()), password: "secret".to_owned() };
    let config = RedisConfig { login: Some(login), ..RedisConfig::new(Arrangement::Single(server.address())) };
    let fleet = connected(config).await;
    assert!(is_refused(&fleet.admit(&named("voice/ours"), PASSWORD).await));
    assert!(is_refused(&fleet.dismiss(&named("voice/ours")).await));
}

/// A provider's may know no users at all; it repeats what it was told, and a status shows that.
#[tokio::test]
async fn a_server_without_users_is_told_no_password() {
    let server = Server::start(None, free_port(), &["--rename-command", "ACL", ""]);
    let fleet = connected(RedisConfig::new(Arrangement::Single(server.address()))).await;
    let said = fleet.admit(&named("voice/ours"), PASSWORD).await;
    assert!(matches!(&said, Err(StoreError::Refused(why)) if why.contains("sf:voice/ours")), "{said:?}");
    assert!(!format!("{said:?}").contains(PASSWORD), "{said:?}");
}

#[test]
fn the_rights_are_those_that_are_written_down() {
    let text = include_str!("../../../../docs/store.md");
    let begin = text.find("ACL SETUSER").unwrap();
    let written: Vec<&str> = text[begin..].split("```").next().unwrap().split_whitespace().collect();
    let from = written.iter().position(|word| *word == "-@all").unwrap();
    assert_eq!(written[from..], *RIGHTS);
}
