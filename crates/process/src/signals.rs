//! The two demands that an operating system can make: drain, and leave at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Stop admitting, let sessions finish, then exit: the first SIGTERM or SIGINT.
    Drain,
    /// Exit now: any signal after the first. The person at the terminal has waited long enough.
    Leave,
}

/// SIGTERM and SIGINT, counted together; or what the owner of several parts in one process says instead.
#[derive(Debug)]
pub struct Signals {
    source: Source,
    next: Demand,
}

#[derive(Debug)]
enum Source {
    System { terminate: Signal, interrupt: Signal },
    Owner { told: watch::Receiver<u32>, seen: u32 },
}

/// Says to a part of the process what signals say to a whole one: each [`raise`](Self::raise) is a signal. Dropped, it says
/// no more.
#[derive(Debug)]
pub struct Teller(watch::Sender<u32>);

impl Teller {
    /// One more signal.
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
        Ok(Self { source, next: Demand::Drain })
    }

    /// Those of a part that shares its process with others.
    #[must_use]
    pub fn told() -> (Teller, Self) {
        let (sender, receiver) = watch::channel(0);
        (Teller(sender), Self { source: Source::Owner { told: receiver, seen: 0 }, next: Demand::Drain })
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn next(&mut self) -> Demand {
        match &mut self.source {
            Source::System { terminate, interrupt } => tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            },
            Source::Owner { told, seen } => {
                let raised = told.wait_for(|told| told > seen).await.is_ok();
                if !raised {
                    std::future::pending::<()>().await;
                }
                *seen += 1;
            }
        }
        std::mem::replace(&mut self.next, Demand::Leave)
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

    #[tokio::test]
    async fn the_second_signal_is_more_urgent_than_the_first() {
        let mut signals = Signals::install().unwrap();
        let raise = |number| {
            // SAFETY: raise() has no preconditions; both signals are handled, so the process survives them.
            assert_eq!(unsafe { libc::raise(number) }, 0);
        };
        raise(libc::SIGTERM);
        assert_eq!(signals.next().await, Demand::Drain);
        raise(libc::SIGINT);
        assert_eq!(signals.next().await, Demand::Leave);
        raise(libc::SIGTERM);
        assert_eq!(signals.next().await, Demand::Leave);
    }
}
