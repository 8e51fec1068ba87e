//! Which part of a fleet listens where: consecutive ports, as far as ports go. Pure.

use std::net::SocketAddr;
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
    /// The first worker's first media loop.
    pub(super) udp: SocketAddr,
    /// Media loops of a worker.
    pub(super) loops: Option<NonZeroUsize>,
}

/// Who listens where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
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
}

/// Where a worker listens, but for its HTTP: routers read in the store where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerAt {
    pub(super) udp: SocketAddr,
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
        let mut ports = |flag: &str, first: SocketAddr, step: usize, count: usize| {
            let found: Vec<SocketAddr> = (0..count).map_while(|n| above(first, n.saturating_mul(step))).collect();
            // The last one's own further loops are above it.
            if found.len() < count || above(first, count.saturating_mul(step).saturating_sub(1)).is_none() {
                mistakes
                    .push(flag, format!("there are not {} ports from {} on", count.saturating_mul(step), first.port()));
            }
            found
        };
        let listen = ports("--listen", self.listen, 1, routers);
        let admin = ports("--admin-listen", self.admin, 1, routers + workers);
        let udp = ports("--udp", self.udp, loops.get(), workers);
        let (of_routers, of_workers) = admin.split_at(routers.min(admin.len()));
        let routers = listen.iter().zip(of_routers).map(|(listen, admin)| RouterAt { listen: *listen, admin: *admin });
        let workers = udp.iter().zip(of_workers).map(|(udp, admin)| WorkerAt { udp: *udp, admin: *admin });
        mistakes.or(Layout { routers: routers.collect(), workers: workers.collect(), loops })
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
        let router = |listen, admin| RouterAt { listen: address(listen), admin: address(admin) };
        let worker = |udp, admin| WorkerAt { udp: address(udp), admin: address(admin) };
        assert_eq!(
            layout.routers,
            [router("127.0.0.1:8080", "127.0.0.1:9090"), router("127.0.0.1:8081", "127.0.0.1:9091")]
        );
        assert_eq!(
            layout.workers,
            [worker("0.0.0.0:5000", "127.0.0.1:9092"), worker("0.0.0.0:5004", "127.0.0.1:9093")]
        );
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
        assert!(layout.routers.iter().all(|at| at.listen == any && at.admin == any));
        assert!(layout.workers.iter().all(|at| at.udp == any && at.admin == any));
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
        check(Wanted { udp: last, loops: NonZeroUsize::new(2), ..wanted(1, 1) }, &["--udp"]);
        check(Wanted { udp: address("0.0.0.0:65534"), ..wanted(1, 3) }, &["--udp"]);
    }
}
