//! The relay: media of all clients through one UDP port.
//!
//! | module | noun |
//! |---|---|
//! | [`advertised`] | where clients are told to send to |
//! | [`minting`] | ufrags of new sessions |
//! | [`opening`] | what ufrags say, and how many say nothing |
//! | [`thread`] | one of `streamfleet-carrier`, and what all share |
//! | [`peers`] | what relays tell each other |
//! | [`told`] | what this one has been told |
//! | [`traffic`] | whether clients still come |
//! | [`view`] | what people see of it |
//! | [`counters`] | what they count |

mod advertised;
mod counters;
mod minting;
mod opening;
mod peers;
mod thread;
mod told;
mod traffic;
mod view;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use streamfleet_carrier::{Addresses, Doors};
use streamfleet_process::telemetry::Metrics;
use streamfleet_relay::announce::{Announcer, Listener};
use streamfleet_relay::{Bounds, Ufrags};
use streamfleet_session::ufrag::{RelayKey, RelayKeys, WorkerNetworks};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

pub use self::advertised::Advertised;
pub(crate) use self::minting::Unplaced;
pub use self::minting::{Candidates, Minting};
pub(crate) use self::opening::Opening;
pub(crate) use self::peers::Endpoints;
use self::peers::{Peers, WAITING};
use self::thread::{Means, Thread};
use self::told::Elsewhere;
pub(crate) use self::traffic::Traffic;
pub(crate) use self::view::Flows;

/// How a relay is to be.
#[derive(Debug, Clone)]
pub(crate) struct RelayPlan {
    /// Where clients send to. Port 0 lets the kernel choose.
    pub(crate) listen: SocketAddr,
    /// Who else may have that port.
    pub(crate) sharing: Sharing,
    /// Where they are told to; nothing is where they do.
    pub(crate) advertise: Vec<Advertised>,
    /// What ufrags are sealed with.
    pub(crate) keys: RelayKeys,
    /// Where workers are.
    pub(crate) networks: WorkerNetworks,
    /// Threads; each has a part of the clients.
    pub(crate) threads: NonZeroUsize,
    /// Flows of one thread.
    pub(crate) bounds: Bounds,
    /// Other relays.
    pub(crate) peers: PeersPlan,
}

/// Who may have a relay's port besides its own threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Nobody: whoever has it would get half of the clients.
    Nobody,
    /// Other relays of this machine.
    Processes,
}

/// How relays find each other.
#[derive(Debug, Clone)]
pub(crate) struct PeersPlan {
    /// Where they send to.
    pub(crate) listen: SocketAddr,
    /// `host:port` of each, or of all.
    pub(crate) names: Vec<String>,
    /// Those that somebody else knows of, by their addresses: they listen where this one does.
    pub(crate) endpoints: Endpoints,
}

/// A relay whose sockets are bound.
pub(crate) struct Relay<U> {
    threads: Vec<Thread<U>>,
    peers: Peers,
    flows: mpsc::Receiver<streamfleet_relay::Announced>,
    door: SocketAddr,
    view: Flows,
    traffic: Traffic,
}

impl<U: Ufrags + Clone + Send + 'static> Relay<U> {
    /// Binds all sockets.
    ///
    /// # Errors
    /// The kernel's, with the address that it is about.
    pub(crate) async fn bind(plan: RelayPlan, ufrags: &U, metrics: &Metrics) -> io::Result<Self> {
        let started = Instant::now();
        let at =
            |address: SocketAddr| move |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
        let elsewhere = Arc::new(Elsewhere::new(plan.bounds.flows * plan.threads.get(), started));
        let sealed_by = |key: &RelayKey| (key.id().get(), key.among_relays());
        let (id, key) = sealed_by(&plan.keys.current);
        let announcer = Announcer::new(id, &key, rand::random());
        let listener = Listener::new([&plan.keys.current].into_iter().chain(&plan.keys.previous).map(sealed_by));
        if plan.sharing == Sharing::Nobody {
            // The kernel says so to a socket that shares with nobody, and to no other.
            UdpSocket::bind(plan.listen).await.map_err(at(plan.listen))?;
        }
        let listen = plan.peers.listen;
        let peers = Peers::bind(plan.peers, announcer, listener, elsewhere.clone()).await.map_err(at(listen))?;
        // Clients come as soon as there are sockets for them.
        peers.catch_up().await.map_err(at(listen))?;
        let (announce, flows) = mpsc::channel(WAITING);
        let untold = Arc::new(AtomicU64::new(0));
        let means = Means { started, elsewhere: elsewhere.clone(), announce, untold: untold.clone() };
        let workers = SocketAddr::new(towards(&plan.networks), 0);
        let doors = Doors::new(plan.listen, plan.advertise.iter().map(|advertised| advertised.ip));
        let (mut threads, mut counters, mut door): (Vec<Thread<U>>, Vec<_>, _) = (Vec::new(), Vec::new(), plan.listen);
        let (view, lookers) = Flows::of(plan.threads.get(), doors.clone());
        for looker in lookers {
            let addresses = Addresses { clients: door, doors: doors.clone(), workers };
            let thread =
                Thread::bind(addresses, ufrags.clone(), plan.bounds, means.clone(), looker).map_err(at(door))?;
            // The first has chosen the port, if nobody has.
            door.set_port(thread.door().port());
            counters.push(thread.counters());
            threads.push(thread);
        }
        // All are alike.
        if let Some(thread) = threads.first() {
            thread.tell_of_its_buffers();
        }
        counters::observe(metrics, &counters, untold, peers.counts(), elsewhere);
        let traffic = Traffic::of(&counters);
        Ok(Self { threads, peers, flows, door, view, traffic })
    }

    /// Where clients send to.
    pub(crate) fn door(&self) -> SocketAddr {
        self.door
    }

    /// A look at its flows.
    pub(crate) fn view(&self) -> Flows {
        self.view.clone()
    }

    /// Whether clients still send to it.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// Runs until it is dropped.
    ///
    /// # Errors
    /// A thread cannot be started, or has ended before it was told to; or no relay can be told anything any more.
    pub(crate) async fn run(self) -> io::Result<()> {
        let Self { threads, peers, flows, .. } = self;
        let stop = Arc::new(AtomicBool::new(false));
        let _stop = Stop(stop.clone());
        let mut ends = tokio::task::JoinSet::new();
        for (n, thread) in threads.into_iter().enumerate() {
            let (stop, (ended, end)) = (stop.clone(), oneshot::channel());
            std::thread::Builder::new().name(format!("relay {n}")).spawn(move || {
                // Nobody listens any more when it was told to stop.
                let _ = ended.send(thread.run(&stop));
            })?;
            ends.spawn(end);
        }
        tokio::select! {
            ended = ends.join_next() => match ended {
                Some(Ok(Ok(result))) => result.and_then(|()| Err(io::Error::other("a thread of the relay has ended"))),
                _ => Err(io::Error::other("a thread of the relay has panicked")),
            },
            // Large, and moved by whoever runs this.
            result = Box::pin(peers.run(flows)) => result,
        }
    }
}

/// Ends the threads with whoever runs them: each looks several times a second.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Where workers send to: whatever clients come by, IPv6 only where workers have it. A socket of IPv6 carries IPv4 too.
fn towards(networks: &WorkerNetworks) -> IpAddr {
    match networks.prefix() {
        None => IpAddr::from([0; 4]),
        Some(_) => IpAddr::from([0; 16]),
    }
}

#[cfg(test)]
mod tests;
