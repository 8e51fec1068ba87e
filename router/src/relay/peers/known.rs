//! To whom a relay tells its flows.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamfleet_net::interfaces;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

/// How often names are looked up: replicas come and go.
const LOOK_UP: Duration = Duration::from_secs(5);
/// For a resolver to answer.
const LOOK_UP_TIME: Duration = Duration::from_secs(3);
/// Peers at most, whatever a name says: each gets every flow.
const MAX_PEERS: usize = 64;
/// How long somebody who has asked is told of flows though no name leads to him yet.
const GUEST: Duration = Duration::from_secs(30);

/// Relays that a cluster knows of, this one among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endpoints(Arc<Mutex<BTreeSet<IpAddr>>>);

impl Endpoints {
    /// These from now on.
    pub(crate) fn set(&self, endpoints: BTreeSet<IpAddr>) {
        *self.0.lock() = endpoints;
    }

    fn at(&self, port: u16) -> Vec<SocketAddr> {
        self.0.lock().iter().map(|ip| canonical(SocketAddr::new(*ip, port))).collect()
    }
}

/// The peers that names lead to, and those that have asked.
pub(super) struct Known {
    /// `host:port`; a name stands for all of its addresses.
    names: Vec<String>,
    /// Others that are known by their address alone.
    endpoints: Endpoints,
    /// This relay's address, whose IP may be any of this machine's.
    own: SocketAddr,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    /// What the names lead to.
    found: BTreeSet<SocketAddr>,
    /// Who has asked lately, and until when he is told.
    guests: Vec<(SocketAddr, Instant)>,
}

impl Known {
    pub(super) fn new(names: Vec<String>, endpoints: Endpoints, own: SocketAddr) -> Self {
        Self { names, endpoints, own, lists: Mutex::default() }
    }

    /// Everybody who is told now.
    pub(super) fn all(&self, now: Instant) -> Vec<SocketAddr> {
        let Lists { found, guests } = &*self.lists.lock();
        let guests = guests.iter().filter(|(guest, until)| *until > now && !found.contains(guest));
        found.iter().chain(guests.map(|(guest, _)| guest)).take(MAX_PEERS).copied().collect()
    }

    /// Somebody has asked, who is where he says he is.
    pub(super) fn welcome(&self, guest: SocketAddr, now: Instant) {
        let Lists { guests, .. } = &mut *self.lists.lock();
        guests.retain(|(other, until)| *until > now && *other != guest);
        if guests.len() < MAX_PEERS {
            guests.push((guest, now + GUEST));
        }
    }

    /// Looks names up for ever.
    pub(super) async fn look_up(&self) -> io::Result<()> {
        loop {
            self.look_up_once().await;
            sleep(LOOK_UP).await;
        }
    }

    pub(super) async fn look_up_once(&self) {
        let own = own(self.own);
        let (mut found, mut is_whole) = (BTreeSet::new(), true);
        for name in &self.names {
            match timeout(LOOK_UP_TIME, lookup_host(name)).await {
                Ok(Ok(addresses)) => found.extend(addresses.map(canonical).filter(|address| !own(*address))),
                Ok(Err(_)) | Err(_) => is_whole = false,
            }
        }
        found.extend(self.endpoints.at(self.own.port()).into_iter().filter(|address| !own(*address)));
        // A resolver that is away takes no peer from us.
        if is_whole || !found.is_empty() {
            self.lists.lock().found = found;
        }
    }
}

/// Whether an address leads back to a socket that is bound to `bound`: it may have all of this machine's.
fn own(bound: SocketAddr) -> impl Fn(SocketAddr) -> bool {
    let is_any = bound.ip().is_unspecified();
    // They come and go. What cannot be listed is heard as one's own when it comes back.
    let all = if is_any { interfaces().unwrap_or_default() } else { vec![bound.ip()] };
    move |address| {
        let ip = address.ip();
        address.port() == bound.port() && (all.contains(&ip) || is_any && (ip.is_loopback() || ip.is_unspecified()))
    }
}

/// As sockets say it.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_told_for_a_while() {
        let at = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        let (known, start) = (Known::new(Vec::new(), Endpoints::default(), at(9)), Instant::now());
        known.lists.lock().found.insert(at(1));
        known.welcome(at(1), start);
        known.welcome(at(2), start);
        known.welcome(at(2), start + GUEST / 2);
        assert_eq!(known.all(start + GUEST), [at(1), at(2)]);
        assert_eq!(known.all(start + GUEST * 2), [at(1)]);
        for n in 0..200 {
            known.welcome(at(n), start);
        }
        assert_eq!(known.all(start).len(), MAX_PEERS);
    }

    #[tokio::test]
    async fn endpoints_are_peers_but_for_oneself() {
        let endpoints = Endpoints::default();
        let known = Known::new(vec!["192.0.2.9:1".to_owned()], endpoints.clone(), "127.0.0.7:3479".parse().unwrap());
        let check = async |ips: &[&str], expected: &[&str]| {
            endpoints.set(ips.iter().map(|ip| ip.parse().unwrap()).collect());
            known.look_up_once().await;
            let expected: BTreeSet<SocketAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(known.all(Instant::now()), expected.into_iter().collect::<Vec<_>>());
        };
        check(&["127.0.0.7", "192.0.2.1", "fd00::1"], &["192.0.2.9:1", "192.0.2.1:3479", "[fd00::1]:3479"]).await;
        check(&["127.0.0.7", "192.0.2.2"], &["192.0.2.9:1", "192.0.2.2:3479"]).await;
        check(&[], &["192.0.2.9:1"]).await;
    }

    /// Whatever it is bound to: a name that stands for all relays stands for this one, too.
    #[tokio::test]
    async fn nobody_is_his_own_peer() {
        let machine = interfaces().unwrap();
        let names: Vec<String> = machine.iter().map(|ip| SocketAddr::new(*ip, 3479).to_string()).collect();
        let others = ["192.0.2.1:3479", "127.0.0.1:3480"].map(str::to_owned);
        let check = async |bound: &str, mut expected: Vec<SocketAddr>| {
            let names = [&names[..], &others, &["127.0.0.7:3479".to_owned()]].concat();
            let known = Known::new(names, Endpoints::default(), bound.parse().unwrap());
            known.look_up_once().await;
            expected.extend(others.iter().map(|other| other.parse::<SocketAddr>().unwrap()));
            expected.sort();
            assert_eq!(known.all(Instant::now()), expected, "{bound}");
        };
        check("0.0.0.0:3479", vec![]).await;
        check("[::]:3479", vec![]).await;
        let all = machine.iter().map(|ip| SocketAddr::new(*ip, 3479));
        check("127.0.0.7:3479", all.collect()).await;
    }
}
