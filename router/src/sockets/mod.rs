//! Clients' sockets: from the handshake to `start` ([`line`]), and from then on to a worker ([`splice`]).
//!
//! A socket is read until its client has said who it is, and passed on as bytes after that. What is absent: audio, sessions
//! (a worker's), who may come in (`crate::http`).

pub mod handshake;
pub mod line;
pub mod splice;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use streamfleet_edge::lobby::{Lobby, MAX_NEWCOMERS, NoPlace, Place};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For the last words to clients when the process stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many sockets there may be.
#[derive(Debug, Clone, Copy)]
pub struct SocketBounds {
    /// In all.
    pub open: NonZeroUsize,
    /// Of one source address that have not said `start`, where half of [`MAX_NEWCOMERS`] have not; an eighth of these if not
    /// said.
    pub per_address: Option<NonZeroUsize>,
}

impl Default for SocketBounds {
    /// 8 192: each has two file descriptors, and a process rarely has more than 65 536. One that is passed on keeps a few
    /// kilobytes in user space.
    fn default() -> Self {
        Self { open: NonZeroUsize::new(8192).expect("invariant: 8192 is not zero"), per_address: None }
    }
}

/// The sockets of a router.
#[derive(Debug, Clone)]
pub struct Sockets {
    tasks: TaskTracker,
    restart: CancellationToken,
    open: Arc<Semaphore>,
    lobby: Lobby,
    octets: Arc<Octets>,
}

/// What has been passed on.
#[derive(Debug, Default)]
pub struct Octets {
    /// From clients.
    pub up: AtomicU64,
    /// To clients.
    pub down: AtomicU64,
}

impl Octets {
    /// From clients and to them.
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (self.up.load(Relaxed), self.down.load(Relaxed))
    }
}

/// A socket's place. Dropped, it is free.
#[derive(Debug)]
pub struct Admitted {
    /// As long as it is open.
    pub open: OwnedSemaphorePermit,
    /// Until it has said `start`.
    pub waiting: Place,
}

impl Sockets {
    /// None yet.
    #[must_use]
    pub fn new(bounds: SocketBounds) -> Self {
        Self {
            tasks: TaskTracker::new(),
            restart: CancellationToken::new(),
            open: Arc::new(Semaphore::new(bounds.open.get().min(Semaphore::MAX_PERMITS))),
            lobby: Lobby::new(MAX_NEWCOMERS, bounds.per_address.map(NonZeroUsize::get)),
            octets: Arc::default(),
        }
    }

    /// Takes a place for a socket from `source`.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn enter(&self, source: std::net::IpAddr) -> Result<Admitted, NoPlace> {
        let open = self.open.clone().try_acquire_owned().map_err(|_| NoPlace::Full)?;
        self.lobby.enter(source).map(|waiting| Admitted { open, waiting })
    }

    /// Who has them.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Cancelled when those that are left are to close.
    #[must_use]
    pub fn restart(&self) -> &CancellationToken {
        &self.restart
    }

    /// What they have passed on.
    #[must_use]
    pub fn octets(&self) -> &Arc<Octets> {
        &self.octets
    }

    /// Waits until the last one is over, at most until `deadline`; those that are left then are told to come back, to
    /// another router.
    pub async fn drain(&self, deadline: Instant) {
        self.tasks.close();
        if timeout_at(deadline.into(), self.tasks.wait()).await.is_ok() {
            return;
        }
        tracing::info!(sockets = self.tasks.len(), "sockets are cut off at the end of the grace period");
        self.restart.cancel();
        // Whoever does not read is not waited for.
        let _ = timeout(FAREWELL, self.tasks.wait()).await;
    }
}
