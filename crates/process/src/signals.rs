//! The two demands that an operating system can make: drain, and leave at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Stop admitting, let sessions finish, then exit: the first SIGTERM or SIGINT.
    Drain,
    /// Exit now: a SIGINT after the first signal. The person at the terminal has waited long enough.
    Leave,
}

/// SIGTERM and SIGINT; or what the owner of several parts in one process says instead.
///
/// A platform sends SIGTERM, and may send it again while the process drains, as after a restart of its own: that is no haste.
#[derive(Debug)]
pub struct Signals {
    source: Source,
    is_draining: bool,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    /// By SIGTERM.
    Platform,
    /// By SIGINT; or the owner of a part.
    Person,
}

#[derive(Debug)]
enum Source {
    System { terminate: Signal, interrupt: Signal },
    Owner { told: watch::Receiver<u32>, seen: u32 },
}

/// Says to a part of the process what signals say to a whole one: the first [`raise`](Self::raise) to drain, each further one to leave.
/// Dropped, it says no more.
#[derive(Debug)]
pub struct Teller(watch::Sender<u32>);

impl Teller {
    /// One more demand.
    pub fn raise(&self) {
        self.0.send_modify(|told| *told = told.saturating_add(1));
    }
}

impl Signals {
    /// Takes over both signals; from here on they no longer end the process by themselves. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the operating system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        let source =
            Source::System { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { source, is_draining: false })
    }

    /// Those of a part that shares its process with others.
    #[must_use]
    pub fn told() -> (Teller, Self) {
        let (sender, receiver) = watch::channel(0);
        (Teller(sender), Self { source: Source::Owner { told: receiver, seen: 0 }, is_draining: false })
    }

    /// Waits for the next demand. Cancel-safe.
    pub async fn next(&mut self) -> Demand {
        loop {
            let asker = self.source.next().await;
            match demand(self.is_draining, asker) {
                Some(demand) => {
                    self.is_draining = true;
                    return demand;
                }
                None => tracing::info!(
                    "SIGTERM again: it is draining already, and goes on with that; SIGINT ends it at once"
                ),
            }
        }
    }
}

impl Source {
    async fn next(&mut self) -> Asker {
        match self {
            Self::System { terminate, interrupt } => tokio::select! {
                _ = terminate.recv() => Asker::Platform,
                _ = interrupt.recv() => Asker::Person,
            },
            Self::Owner { told, seen } => {
                let raised = told.wait_for(|told| told > seen).await.is_ok();
                if !raised {
                    std::future::pending::<()>().await;
                }
                *seen += 1;
                Asker::Person
            }
        }
    }
}

/// What somebody wants who asks now, if it is anything new.
fn demand(is_draining: bool, asker: Asker) -> Option<Demand> {
    match (is_draining, asker) {
        (false, _) => Some(Demand::Drain),
        (true, Asker::Person) => Some(Demand::Leave),
        (true, Asker::Platform) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_is_told_by_its_owner() {
        let (teller, mut signals) = Signals::told();
        teller.raise();
        teller.raise();
        assert_eq!(signals.next().await, Demand::Drain);
        assert_eq!(signals.next().await, Demand::Leave, "none is lost");
        drop(teller);
        let more = tokio::time::timeout(std::time::Duration::from_secs(60), signals.next()).await;
        assert!(more.is_err(), "an owner who is gone says nothing");
    }

    #[test]
    fn only_a_person_is_in_a_hurry() {
        for (is_draining, asker, expected) in [
            (false, Asker::Platform, Some(Demand::Drain)),
            (false, Asker::Person, Some(Demand::Drain)),
            (true, Asker::Platform, None),
            (true, Asker::Person, Some(Demand::Leave)),
        ] {
            assert_eq!(demand(is_draining, asker), expected, "{is_draining} {asker:?}");
        }
    }

    #[tokio::test]
    async fn a_second_sigterm_hastens_nothing_and_a_sigint_does() {
        const QUIET: std::time::Duration = std::time::Duration::from_millis(100);
        let mut signals = Signals::install().unwrap();
        let raise = |number| {
            // SAFETY: raise() has no preconditions; both signals are handled, so the process survives them.
            assert_eq!(unsafe { libc::raise(number) }, 0);
        };
        raise(libc::SIGTERM);
        assert_eq!(signals.next().await, Demand::Drain);
        raise(libc::SIGTERM);
        assert!(tokio::time::timeout(QUIET, signals.next()).await.is_err(), "a platform says it again");
        raise(libc::SIGINT);
        assert_eq!(signals.next().await, Demand::Leave);
        raise(libc::SIGTERM);
        assert!(tokio::time::timeout(QUIET, signals.next()).await.is_err());
    }
}
