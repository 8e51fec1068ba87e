//! Ufrags of new sessions, and where their clients are told to send to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use streamfleet_session::fleet::PlacedMedia;
use streamfleet_session::ufrag::{Minted, Seal};

/// How sessions are given to relays: their names are minted here, and relays read them.
#[derive(Debug)]
pub struct Minting {
    /// Mints and opens.
    seal: Arc<Seal>,
    /// Where clients are told to send to.
    candidates: Arc<Candidates>,
    /// When it was last said why a session cannot be placed.
    said: Mutex<Option<Instant>>,
}

/// Where clients are told to send to, as it is known now: in a cluster the load balancer's addresses come later, and change.
#[derive(Debug, Default)]
pub struct Candidates(RwLock<Arc<[SocketAddr]>>);

impl Candidates {
    /// These, until others are set.
    #[must_use]
    pub fn new(candidates: Vec<SocketAddr>) -> Self {
        Self(RwLock::new(candidates.into()))
    }

    /// Those of now; none while nobody knows any.
    #[must_use]
    pub fn now(&self) -> Arc<[SocketAddr]> {
        self.0.read().clone()
    }

    /// These from now on. Sessions that have begun were told others, and go on by those.
    pub fn set(&self, candidates: Vec<SocketAddr>) {
        *self.0.write() = candidates.into();
    }
}

/// How often that is said: each offer would say it anew.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Why media of a session cannot come to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unplaced {
    /// No relay leads to any of the worker's media loops: it has said none, or none in the workers' networks.
    Unreachable,
    /// Nobody knows where clients are to send to.
    Nowhere,
}

impl Minting {
    /// Clients are told these candidates.
    #[must_use]
    pub fn new(seal: Arc<Seal>, candidates: Arc<Candidates>) -> Self {
        Self { seal, candidates, said: Mutex::default() }
    }

    /// Whether clients can be told where to send to.
    pub(crate) fn leads_somewhere(&self) -> bool {
        !self.candidates.now().is_empty()
    }

    /// Whether it is time to say why a session cannot be placed.
    pub(crate) fn may_complain(&self, now: Instant) -> bool {
        let mut said = self.said.lock();
        let is_due = said.is_none_or(|at| now.duration_since(at) >= SAID_EVERY);
        if is_due {
            *said = Some(now);
        }
        is_due
    }

    /// How the media of a new session comes to a worker that listens there: by one of its loops, any of them.
    pub(crate) fn mint(&self, loops: &[String]) -> Result<PlacedMedia, Unplaced> {
        let candidates = self.candidates.now().to_vec();
        if candidates.is_empty() {
            return Err(Unplaced::Nowhere);
        }
        let loops: Vec<SocketAddr> = loops.iter().filter_map(|address| address.parse().ok()).collect();
        let first = rand::random_range(0..loops.len().max(1));
        let turns = loops.iter().cycle().skip(first).take(loops.len());
        let mut minted = turns.filter_map(|to| Some((to, self.seal.mint(*to, rand::random()).ok()?)));
        let (to, Minted { ufrag, key }) = minted.next().ok_or(Unplaced::Unreachable)?;
        Ok(PlacedMedia { ufrag, key, port: to.port(), candidates })
    }
}

#[cfg(test)]
mod tests {
    use streamfleet_session::ufrag::{RelayKey, WorkerNetworks};

    use super::*;

    fn minting() -> Minting {
        let networks = WorkerNetworks::new(vec!["10.0.0.0/8".parse().unwrap()], None).unwrap();
        let seal = Seal::new(&RelayKey::from_random([1; 32]).into(), networks);
        Minting::new(Arc::new(seal), Arc::new(Candidates::new(vec!["192.0.2.1:3478".parse().unwrap()])))
    }

    #[test]
    fn a_session_is_given_to_a_loop_that_relays_reach() {
        let minting = minting();
        let loops = ["192.0.2.9:5000", "10.0.0.1:5001", "no address"].map(str::to_owned);
        for _ in 0..20 {
            let placed = minting.mint(&loops).unwrap();
            assert_eq!((placed.port, &placed.candidates[..]), (5001, &*minting.candidates.now()));
        }
        assert_eq!(minting.mint(&loops[..1]), Err(Unplaced::Unreachable));
        assert_eq!(minting.mint(&[]), Err(Unplaced::Unreachable));
        minting.candidates.set(vec!["192.0.2.2:443".parse().unwrap()]);
        assert_eq!(minting.mint(&loops).unwrap().candidates, ["192.0.2.2:443".parse().unwrap()]);
        minting.candidates.set(Vec::new());
        assert_eq!((minting.mint(&loops), minting.leads_somewhere()), (Err(Unplaced::Nowhere), false));
    }

    #[test]
    fn it_is_said_now_and_then_why_nothing_is_placed() {
        let (minting, start) = (minting(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!([0, 1, 9, 10, 11, 25].map(|s| minting.may_complain(at(s))), [true, false, false, true, false, true]);
    }
}
