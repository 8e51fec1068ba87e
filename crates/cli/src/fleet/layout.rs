//! Which part of a fleet listens where: consecutive ports, as far as ports go.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;

use streamfleet_process::config::Mistakes;

/// Routers, and workers: more processes than this are for more than one machine.
pub(super) const MOST: i64 = 64;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) routers: u16,
    pub(super) workers: u16,
    /// The first router's HTTP.
    pub(super) listen: SocketAddr,
    /// The first router's probes and metrics.
    pub(super) admin: SocketAddr,
    /// The routers' relays: one for all of them.
    pub(super) udp: SocketAddr,
    /// Media loops of a worker.
    pub(super) loops: Option<NonZeroUsize>,
}

/// Who listens where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Where all media of clients arrives.
    pub(super) relay: SocketAddr,
    pub(super) routers: Vec<RouterAt>,
    pub(super) workers: Vec<WorkerAt>,
    /// Media loops of a worker.
    pub(super) loops: NonZeroUsize,
}

/// Where a router listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouterAt {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Where other routers' relays tell of their flows.
    pub(super) peers: SocketAddr,
}

/// Where a worker listens, but for its HTTP and its media: routers read in the store where those are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerAt {
    pub(super) admin: SocketAddr,
}

impl Wanted {
    /// The addresses of all parts on a machine with so many cores.
    ///
    /// # Errors
    /// There are not enough ports above a first one.
    pub(super) fn layout(&self, cores: NonZeroUsize) -> Result<Layout, Mistakes> {
        let mut mistakes = Mistakes::new();
        let (routers, workers) = (usize::from(self.routers), usize::from(self.workers));
        let share = NonZeroUsize::new(cores.get() / workers.max(1)).unwrap_or(NonZeroUsize::MIN);
        let loops = self.loops.unwrap_or(share);
        let mut ports = |flag: &str, first: SocketAddr, count: usize| {
            let found: Vec<SocketAddr> = (0..count).map_while(|n| above(first, n)).collect();
            if found.len() < count {
                mistakes.push(flag, format!("there are not {count} ports from {} on", first.port()));
            }
            found
        };
        let listen = ports("--listen", self.listen, routers);
        let admin = ports("--admin-listen", self.admin, routers + workers);
        // The first is the relays' own, which has no use for a peer's.
        let peers = ports("--udp", SocketAddr::new(loopback(self.udp.ip()), self.udp.port()), 1 + routers);
        let (of_routers, of_workers) = admin.split_at(routers.min(admin.len()));
        let routers = listen.iter().zip(of_routers).zip(peers.iter().skip(1));
        let routers =
            routers.map(|((listen, admin), peers)| RouterAt { listen: *listen, admin: *admin, peers: *peers });
        let workers = of_workers.iter().map(|admin| WorkerAt { admin: *admin });
        mistakes.or(Layout { relay: self.udp, routers: routers.collect(), workers: workers.collect(), loops })
    }
}

impl Layout {
    /// Chooses a port wherever any will do for relays and their peers: all of them have to know it, and those that come after them.
    /// Somebody else may take it before they do; then they say so.
    ///
    /// # Errors
    /// The kernel's: the relays' port is another process's, or there are no ports.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let peers = self.routers.iter_mut().map(|router| &mut router.peers);
        // All are held until each has its own.
        let mut held = Vec::new();
        for at in std::iter::once(&mut self.relay).chain(peers) {
            let socket =
                UdpSocket::bind(*at).map_err(|error| io::Error::new(error.kind(), format!("{at}: {error}")))?;
            *at = socket.local_addr()?;
            held.push(socket);
        }
        Ok(())
    }
}

/// The address `n` ports above; port 0 stands for any free one.
fn above(first: SocketAddr, n: usize) -> Option<SocketAddr> {
    let port = match first.port() {
        0 => 0,
        port => u16::try_from(n).ok().and_then(|n| port.checked_add(n))?,
    };
    Some(SocketAddr::new(first.ip(), port))
}

/// The loopback address of the same family.
pub(super) fn loopback(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn wanted(routers: u16, workers: u16) -> Wanted {
        Wanted {
            routers,
            workers,
            listen: address("127.0.0.1:8080"),
            admin: address("127.0.0.1:9090"),
            udp: address("0.0.0.0:5000"),
            loops: None,
        }
    }

    #[test]
    fn parts_take_one_port_after_the_other() {
        let layout = wanted(2, 2).layout(NonZeroUsize::new(8).unwrap()).unwrap();
        let router =
            |listen, admin, peers| RouterAt { listen: address(listen), admin: address(admin), peers: address(peers) };
        let worker = |admin| WorkerAt { admin: address(admin) };
        assert_eq!(layout.relay, address("0.0.0.0:5000"));
        assert_eq!(
            layout.routers,
            [
                router("127.0.0.1:8080", "127.0.0.1:9090", "127.0.0.1:5001"),
                router("127.0.0.1:8081", "127.0.0.1:9091", "127.0.0.1:5002")
            ]
        );
        assert_eq!(layout.workers, [worker("127.0.0.1:9092"), worker("127.0.0.1:9093")]);
        assert_eq!(layout.loops.get(), 4);
    }

    #[test]
    fn a_worker_has_a_loop_on_the_smallest_machine() {
        assert_eq!(wanted(1, 5).layout(NonZeroUsize::new(2).unwrap()).unwrap().loops.get(), 1);
    }

    #[test]
    fn any_free_port_is_any_parts() {
        let any = address("127.0.0.1:0");
        let layout = Wanted { listen: any, admin: any, udp: any, ..wanted(3, 9) }.layout(NonZeroUsize::MIN).unwrap();
        assert!(layout.routers.iter().all(|at| at.listen == any && at.admin == any && at.peers == any));
        assert!(layout.workers.iter().all(|at| at.admin == any));
    }

    #[test]
    fn any_port_is_one_port_once_it_is_settled() {
        let any = address("127.0.0.1:0");
        let mut layout = Wanted { udp: any, ..wanted(3, 1) }.layout(NonZeroUsize::MIN).unwrap();
        layout.settle().unwrap();
        let mut ports: Vec<u16> =
            layout.routers.iter().map(|router| router.peers.port()).chain([layout.relay.port()]).collect();
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() == 4 && ports[0] != 0, "{ports:?}");
        let taken = UdpSocket::bind(any).unwrap();
        layout.relay = taken.local_addr().unwrap();
        let told = layout.settle().unwrap_err().to_string();
        assert!(told.starts_with(&layout.relay.to_string()), "{told}");
    }

    #[test]
    fn ports_end() {
        let check = |wanted: Wanted, flags: &[&str]| {
            let mistakes = wanted.layout(NonZeroUsize::MIN).unwrap_err();
            let found: Vec<String> = mistakes.iter().map(|mistake| mistake.key.to_string()).collect();
            assert_eq!(found, flags);
        };
        let last = address("127.0.0.1:65535");
        assert!(Wanted { listen: last, ..wanted(1, 1) }.layout(NonZeroUsize::MIN).is_ok());
        check(Wanted { listen: last, ..wanted(2, 1) }, &["--listen"]);
        check(Wanted { admin: last, ..wanted(1, 1) }, &["--admin-listen"]);
        check(Wanted { udp: last, ..wanted(1, 1) }, &["--udp"]);
        check(Wanted { udp: address("0.0.0.0:65534"), ..wanted(2, 1) }, &["--udp"]);
    }
}
