//! Ufrags of new sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamfleet_session::fleet::PlacedMedia;
use streamfleet_session::ufrag::{Minted, Seal};

/// How sessions are given to relays: their names are minted here, and relays read them.
#[derive(Debug)]
pub struct Minting {
    /// Mints and opens.
    seal: Arc<Seal>,
    /// Where clients are told to send to.
    candidates: Vec<SocketAddr>,
    /// When it was last said that no relay leads to some worker.
    said: Mutex<Option<Instant>>,
}

/// How often that is said: each offer would say it anew.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// No relay leads to any media loop of a worker: it has said none, or none in the workers' networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreachable;

impl Minting {
    /// Clients are told these candidates.
    pub(crate) fn new(seal: Arc<Seal>, candidates: Vec<SocketAddr>) -> Self {
        Self { seal, candidates, said: Mutex::default() }
    }

    /// Whether it is time to say that some worker is unreachable.
    pub(crate) fn may_complain(&self, now: Instant) -> bool {
        let mut said = self.said.lock();
        let is_due = said.is_none_or(|at| now.duration_since(at) >= SAID_EVERY);
        if is_due {
            *said = Some(now);
        }
        is_due
    }

    /// How the media of a new session comes to a worker that listens there: by one of its loops, any of them.
    pub(crate) fn mint(&self, loops: &[String]) -> Result<PlacedMedia, Unreachable> {
        let loops: Vec<SocketAddr> = loops.iter().filter_map(|address| address.parse().ok()).collect();
        let first = rand::random_range(0..loops.len().max(1));
        let turns = loops.iter().cycle().skip(first).take(loops.len());
        let mut minted = turns.filter_map(|to| Some((to, self.seal.mint(*to, rand::random()).ok()?)));
        let (to, Minted { ufrag, key }) = minted.next().ok_or(Unreachable)?;
        Ok(PlacedMedia { ufrag, key, port: to.port(), candidates: self.candidates.clone() })
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_session::ufrag::{RelayKey, WorkerNetworks};

    use super::*;

    fn minting() -> Minting {
        let networks = WorkerNetworks::new(vec!["10.0.0.0/8".parse().unwrap()], None).unwrap();
        let seal = Seal::new(&RelayKey::from_random([1; 32]).into(), networks);
        Minting::new(Arc::new(seal), vec!["192.0.2.1:3478".parse().unwrap()])
    }

    #[test]
    fn a_session_is_given_to_a_loop_that_relays_reach() {
        let minting = minting();
        let loops = ["192.0.2.9:5000", "10.0.0.1:5001", "no address"].map(str::to_owned);
        for _ in 0..20 {
            let placed = minting.mint(&loops).unwrap();
            assert_eq!((placed.port, &placed.candidates), (5001, &minting.candidates));
        }
        assert_eq!(minting.mint(&loops[..1]), Err(Unreachable));
        assert_eq!(minting.mint(&[]), Err(Unreachable));
    }

    #[test]
    fn it_is_said_now_and_then_that_a_worker_is_unreachable() {
        let (minting, start) = (minting(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!([0, 1, 9, 10, 11, 25].map(|s| minting.may_complain(at(s))), [true, false, false, true, false, true]);
    }
}
