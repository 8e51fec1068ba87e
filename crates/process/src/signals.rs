//! The two demands that an operating system can make: drain, and leave at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Stop admitting, let sessions finish, then exit: the first SIGTERM or SIGINT.
    Drain,
    /// Exit now: any signal after the first. The person at the terminal has waited long enough.
    Leave,
}

/// SIGTERM and SIGINT, counted together.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    next: Demand,
}

impl Signals {
    /// Takes over both signals; from here on they no longer end the process by themselves. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the operating system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            next: Demand::Drain,
        })
    }

    /// Waits for the next signal. Cancel-safe.
    pub async fn next(&mut self) -> Demand {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        std::mem::replace(&mut self.next, Demand::Leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
