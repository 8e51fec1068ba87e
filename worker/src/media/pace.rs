//! How fast a handler's task may send packets.
//!
//! A handler that sends packets of its own making may always have one more, and the link to it is emptied as fast as it
//! fills. What it sends beyond this rate waits in the link, where it holds the handler back and nobody else.

use std::time::{Duration, Instant};

/// One packet a session in this time: 8 000 a second are 75 Mbit/s of video, above anything that a call carries, and a few
/// hundredths of what a loop can send.
const EVERY: Duration = Duration::from_micros(125);
/// Packets that may leave at once: as many as a link holds, a large key frame.
const BURST: u32 = 512;
/// Packets worth being called for: a timer for each would cost more than the packet.
const BATCH: u32 = 16;

/// The generic cell rate algorithm: an account that is paid for evenly and may be overdrawn by a burst.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When everything sent so far will have been paid for.
    paid_at: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Pace { paid_at: now }
    }

    /// Whether a packet may be sent.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        self.paid_at + EVERY <= now + EVERY * BURST
    }

    /// One was.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.paid_at = self.paid_at.max(now) + EVERY;
    }

    /// When a batch may be sent: for whoever found it not ready.
    pub(crate) fn ready_at(&self) -> Instant {
        self.paid_at.checked_sub(EVERY * (BURST - BATCH)).unwrap_or(self.paid_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends all that may be sent.
    fn drain(pace: &mut Pace, now: Instant) -> u32 {
        let mut sent = 0;
        while pace.is_ready(now) {
            pace.sent(now);
            sent += 1;
        }
        sent
    }

    #[test]
    fn a_burst_and_then_evenly() {
        let t = Instant::now();
        let mut pace = Pace::new(t);
        assert_eq!(drain(&mut pace, t), BURST);
        assert_eq!(drain(&mut pace, t + EVERY - Duration::from_nanos(1)), 0);
        // Called when it asks to be, there is a batch to send.
        let at = pace.ready_at();
        assert_eq!(at, t + EVERY * BATCH);
        assert_eq!(drain(&mut pace, at), BATCH);
        // After a pause it may burst again, and no more than that.
        assert_eq!(drain(&mut pace, t + Duration::from_secs(3_600)), BURST);
    }

    proptest! {
        #[test]
        fn no_span_of_time_holds_more_than_a_burst_and_its_rate(pauses in prop::collection::vec(0u64..100_000, 1..60)) {
            let mut now = Instant::now();
            let mut pace = Pace::new(now);
            let mut log = vec![];
            for pause in pauses {
                now += Duration::from_micros(pause);
                log.push((now, drain(&mut pace, now)));
            }
            for (i, (from, _)) in log.iter().enumerate() {
                let mut sent = 0;
                for (to, n) in &log[i..] {
                    sent += n;
                    let paid = ((*to - *from).as_nanos() / EVERY.as_nanos()) as u32;
                    prop_assert!(sent <= BURST + paid, "{sent} in {:?}", *to - *from);
                }
            }
        }
    }
}
