//! Where clients are told to send media to, followed: a Service's status, and what names lead to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use opentelemetry::metrics::Meter;
use streamfleet_process::readiness::{Note, Readiness};
use streamfleet_service::spec::Exposure;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::addresses::{Addresses, Said, of_service};
use super::config::{At, Public};
use super::contact::Contact;
use super::watching::Watch;
use crate::relay::Candidates;
use crate::roster::Roster;

/// How often names are looked up: a load balancer's addresses change within minutes.
const LOOK_UP: Duration = Duration::from_secs(30);
/// How soon again while there is no address at all: until then nobody is served.
const LOOK_UP_SOON: Duration = Duration::from_secs(2);
/// For a resolver to answer.
const LOOK_UP_TIME: Duration = Duration::from_secs(3);

/// Who knows where names lead.
trait Resolver: Sync {
    fn addresses(&self, name: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// As this machine asks.
struct System;

impl Resolver for System {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Shows how many there are, and how many services need one: with none, no client can be served by a relay.
pub(crate) fn observe(meter: &Meter, candidates: &Arc<Candidates>, roster: watch::Receiver<Arc<Roster>>) {
    let candidates = candidates.clone();
    // The meter's provider keeps the callbacks.
    let _ = meter
        .u64_observable_gauge("streamfleet_router_media_addresses")
        .with_description(
            "Addresses that clients are told to send media to. With none, offers are answered no_capacity.",
        )
        .with_callback(move |observer| observer.observe(candidates.now().len() as u64, &[]))
        .build();
    let _ = meter
        .u64_observable_gauge("streamfleet_router_relayed_services")
        .with_description("Services whose clients are told these addresses: those with media.exposure Relay.")
        .with_callback(move |observer| {
            let roster = roster.borrow();
            let relayed = roster.desks().filter(|desk| desk.service.exposure == Exposure::Relay);
            observer.observe(relayed.count() as u64, &[]);
        })
        .build();
}

/// Keeps the candidates of a relay with this port, until it is dropped. `client` is asked of a Service.
pub(crate) async fn follow(public: Public, client: Option<Client>, contact: Contact, mut board: Board) {
    match (public, client) {
        (Public::Said(said), _) => look_up_for_ever(said, &System, &mut board).await,
        (Public::Service(at), Some(client)) => follow_service(&at, client, &contact, &System, &mut board).await,
        // A plan that has a Service has a client.
        (Public::Service(_), None) => {}
    }
}

async fn look_up_for_ever(said: Vec<Said>, resolver: &impl Resolver, board: &mut Board) {
    let mut addresses = Addresses::default();
    addresses.say(said);
    loop {
        look_up(&mut addresses, resolver).await;
        board.show(&addresses);
        sleep(board.look_up_after()).await;
    }
}

async fn follow_service(
    At { namespace, name }: &At,
    client: Client,
    contact: &Contact,
    resolver: &impl Resolver,
    board: &mut Board,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut watch = Watch::<Service>::new(Api::namespaced(client, namespace), config, contact.line());
    let mut addresses = Addresses::default();
    let mut again = pin!(sleep(LOOK_UP_SOON));
    // A Service that is deleted and made again while nobody looks is not in a new list.
    let mut is_listed = false;
    let mut has_asked = false;
    loop {
        let said = tokio::select! {
            event = watch.next() => match event {
                Event::Apply(service) => Some(of_service(&service, board.relay)),
                Event::InitApply(service) => {
                    is_listed = true;
                    Some(of_service(&service, board.relay))
                }
                Event::Init => {
                    is_listed = false;
                    None
                }
                Event::InitDone if !is_listed => {
                    tracing::warn!(service = %format!("{namespace}/{name}"), "there is no such Service: no client can be told where to send media to");
                    Some(Vec::new())
                }
                Event::InitDone => None,
                Event::Delete(_) => Some(Vec::new()),
            },
            () = again.as_mut() => None,
        };
        has_asked |= said.is_some();
        if let Some(said) = said {
            addresses.say(said);
        }
        look_up(&mut addresses, resolver).await;
        // What nobody has been asked for is not missed yet.
        if has_asked {
            board.show(&addresses);
        }
        again.as_mut().reset(Instant::now() + board.look_up_after());
    }
}

async fn look_up(addresses: &mut Addresses, resolver: &impl Resolver) {
    for name in addresses.names() {
        match timeout(LOOK_UP_TIME, resolver.addresses(&name)).await {
            Ok(Ok(found)) => addresses.found(&name, found),
            Ok(Err(error)) => tracing::debug!(name, %error, "a name of the load balancer leads nowhere"),
            Err(_) => tracing::debug!(name, "a name of the load balancer is not found in time"),
        }
    }
}

/// What clients are told, and what an operator is told where that is nothing.
pub(crate) struct Board {
    relay: u16,
    candidates: Arc<Candidates>,
    readiness: Readiness,
    missing: Option<Note>,
}

impl Board {
    /// Of a relay with this port.
    pub(crate) fn new(relay: u16, candidates: Arc<Candidates>, readiness: Readiness) -> Self {
        Self { relay, candidates, readiness, missing: None }
    }

    /// How long names are not looked up again, whoever has said them.
    fn look_up_after(&self) -> Duration {
        if self.candidates.now().is_empty() { LOOK_UP_SOON } else { LOOK_UP }
    }

    fn show(&mut self, addresses: &Addresses) {
        let now: Vec<SocketAddr> = addresses.candidates(self.relay);
        match (now.is_empty(), &self.missing) {
            (true, None) => {
                tracing::warn!(
                    "no public address of media is known: calls whose media relays carry are refused until one is"
                );
                self.missing = Some(self.readiness.note("no public address of media is known"));
            }
            (true, Some(_)) => {}
            (false, _) => self.missing = None,
        }
        if *self.candidates.now() != now {
            tracing::info!(addresses = ?now, "clients are told to send media there");
            self.candidates.set(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::http::{Request, Response};
    use futures_util::stream;
    use parking_lot::Mutex;
    use serde_json::json;
    use tokio::time::sleep_until;

    use super::*;

    /// What a resolver says of any name.
    #[derive(Debug, Clone, Copy)]
    enum Says {
        Leads(&'static [&'static str]),
        Unknown,
        Nothing,
    }

    struct Told(Mutex<Says>);

    impl Resolver for Told {
        async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            let says = *self.0.lock();
            match says {
                Says::Leads(to) => Ok(to.iter().map(|ip| ip.parse().unwrap()).collect()),
                Says::Unknown => Err(io::ErrorKind::NotFound.into()),
                Says::Nothing => std::future::pending().await,
            }
        }
    }

    fn board() -> (Arc<Candidates>, Board) {
        let candidates = Arc::new(Candidates::new(Vec::new()));
        (candidates.clone(), Board::new(3478, candidates, Readiness::new()))
    }

    /// What clients are told so many seconds after the beginning, and what a resolver says from then on.
    async fn check(candidates: &Candidates, resolver: &Told, at: &[(u64, &[&str], Says)]) {
        let start = Instant::now();
        for (seconds, expected, says) in at {
            sleep_until(start + Duration::from_secs(*seconds)).await;
            let now: Vec<String> = candidates.now().iter().map(ToString::to_string).collect();
            assert_eq!(now, *expected, "after {seconds} s");
            *resolver.0.lock() = *says;
        }
    }

    /// A load balancer's addresses come after its name, and change; a resolver that is away takes none away.
    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_and_again() {
        let resolver = Told(Mutex::new(Says::Unknown));
        let (candidates, mut board) = board();
        let said = vec!["lb.example.com".parse().unwrap()];
        let one: &[&str] = &["192.0.2.1:3478"];
        let both: &[&str] = &["192.0.2.1:3478", "192.0.2.2:3478"];
        let (first, more) = (Says::Leads(&["192.0.2.1"]), Says::Leads(&["192.0.2.2", "192.0.2.1"]));
        let last = Says::Leads(&["192.0.2.3"]);
        let at: &[(u64, &[&str], Says)] = &[
            (1, &[], first),
            (3, one, more),
            (31, one, more),
            // For three seconds.
            (33, both, Says::Nothing),
            (64, both, Says::Unknown),
            (96, both, last),
            (124, both, last),
            (126, &["192.0.2.3:3478"], last),
        ];
        tokio::select! {
            () = look_up_for_ever(said, &resolver, &mut board) => panic!("it has no end"),
            () = check(&candidates, &resolver, at) => {}
        }
    }

    /// How most of the load balancers in clouds are told of.
    #[tokio::test(start_paused = true)]
    async fn the_name_of_a_services_load_balancer_is_looked_up_again() {
        let service = json!({
            "metadata": { "name": "media", "namespace": "n", "resourceVersion": "1" },
            "spec": { "ports": [{ "port": 443, "protocol": "UDP", "targetPort": "relay" }] },
            "status": { "loadBalancer": { "ingress": [{ "hostname": "lb.example.com" }] } },
        });
        let list = json!({
            "apiVersion": "v1", "kind": "ServiceList", "metadata": { "resourceVersion": "1" }, "items": [service],
        });
        let server = tower::service_fn(move |request: Request<kube::client::Body>| {
            assert_eq!(request.uri().path(), "/api/v1/namespaces/n/services");
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let body = match is_watch {
                // Nothing happens to it.
                true => Body::from_stream(stream::pending::<io::Result<Bytes>>()),
                false => Body::from(list.to_string()),
            };
            async move { Ok::<_, io::Error>(Response::new(body)) }
        });
        let resolver = Told(Mutex::new(Says::Unknown));
        let (candidates, mut board) = board();
        let at = At { namespace: "n".to_owned(), name: "media".to_owned() };
        let contact = Contact::default();
        let (first, last) = (Says::Leads(&["192.0.2.1"]), Says::Leads(&["192.0.2.2", "2001:db8::2"]));
        let times: &[(u64, &[&str], Says)] = &[
            (1, &[], first),
            (3, &["192.0.2.1:443"], last),
            (31, &["192.0.2.1:443"], last),
            (33, &["192.0.2.2:443", "[2001:db8::2]:443"], last),
        ];
        tokio::select! {
            () = follow_service(&at, Client::new(server, "n"), &contact, &resolver, &mut board) => panic!("it has no end"),
            () = check(&candidates, &resolver, times) => {}
        }
    }

    #[tokio::test]
    async fn a_name_that_is_said_leads_where_this_machine_says() {
        let (candidates, board) = board();
        let said = Public::Said(vec!["localhost:443".parse().unwrap()]);
        let known = async {
            while candidates.now().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = follow(said, None, Contact::default(), board) => panic!("it has no end"),
            known = timeout(Duration::from_secs(20), known) => known.expect("localhost leads somewhere"),
        }
        assert!(candidates.now().iter().all(|at| at.ip().is_loopback() && at.port() == 443), "{:?}", candidates.now());
    }

    #[test]
    fn it_is_said_that_no_address_is_known() {
        let (candidates, readiness) = (Arc::new(Candidates::new(Vec::new())), Readiness::new());
        let mut board = Board::new(3478, candidates.clone(), readiness.clone());
        let mut addresses = Addresses::default();
        let mut check = |said: &[&str], notes: &[&str]| {
            addresses.say(said.iter().map(|text| text.parse().unwrap()).collect());
            board.show(&addresses);
            assert_eq!((readiness.notes(), readiness.reasons()), (notes.to_vec(), Vec::new()), "{said:?}");
            assert_eq!(candidates.now().len(), said.len());
            // A load balancer's new name leads nowhere for a while: nobody is served until it does.
            assert_eq!(board.look_up_after().as_secs(), if said.is_empty() { 2 } else { 30 });
        };
        check(&[], &["no public address of media is known"]);
        check(&[], &["no public address of media is known"]);
        check(&["192.0.2.1"], &[]);
        check(&[], &["no public address of media is known"]);
    }
}
