//! What a receiver knows of one incoming source.

use super::clock::{Ntp, duration, ticks, to_middle};
use crate::index::Index;
use rtc::rtcp::reception_report::ReceptionReport;
use std::time::{Duration, Instant};

/// The most that the 24-bit signed field of a report can say.
const MAX_TOTAL_LOST: u64 = 0x7F_FFFF;

/// Reception statistics of one source (RFC 3550 appendices A.3 and A.8).
#[derive(Clone, Debug)]
pub struct Reception {
    ssrc: u32,
    clock_rate: u32,
    start: Instant,
    base: Index,
    newest: Index,
    packets: u64,
    octets: u64,
    /// Expected and received as of the last report.
    reported: (u64, u64),
    /// Arrival less timestamp of the latest packet, in ticks.
    transit: u32,
    /// In sixteenths of a tick; wide, because the clock rate is whatever was negotiated.
    jitter: u64,
    sender_report: Option<(Ntp, Instant)>,
}

impl Reception {
    /// A source whose first packet, with this index, has just come. Its [`packet`](Self::packet) is still to be called.
    /// `clock_rate` is the payload type's, in Hz.
    pub fn new(ssrc: u32, clock_rate: u32, first: Index, now: Instant) -> Self {
        Self {
            ssrc,
            clock_rate,
            start: now,
            base: first,
            newest: first,
            packets: 0,
            octets: 0,
            reported: (0, 0),
            transit: 0,
            jitter: 0,
            sender_report: None,
        }
    }

    /// The source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Counts a packet with `octets` of payload.
    pub fn packet(&mut self, index: Index, timestamp: u32, octets: usize, now: Instant) {
        // What was sent before the first packet that came, and overtaken by it, was expected too.
        self.base = self.base.min(index);
        self.newest = self.newest.max(index);
        let transit = ticks(now.saturating_duration_since(self.start), self.clock_rate).wrapping_sub(timestamp);
        if self.packets > 0 {
            let difference = transit.wrapping_sub(self.transit) as i32;
            // A jump of the timestamps is a change of the medium, not of the network: more than a second says nothing.
            if difference.unsigned_abs() < self.clock_rate {
                self.jitter = self.jitter - ((self.jitter + 8) >> 4) + u64::from(difference.unsigned_abs());
            }
        }
        self.transit = transit;
        self.packets += 1;
        self.octets += octets as u64;
    }

    /// A sender report of this source came.
    pub fn sender_report(&mut self, ntp: Ntp, now: Instant) {
        self.sender_report = Some((ntp, now));
    }

    /// Packets received, duplicates not counted.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Octets of payload received.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Packets that were sent and never came.
    pub fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.packets)
    }

    /// Interarrival jitter: the smoothed deviation of transit times (RFC 3550 section 6.4.1).
    pub fn jitter(&self) -> Duration {
        duration(self.jitter_ticks(), self.clock_rate)
    }

    fn jitter_ticks(&self) -> u32 {
        (self.jitter >> 4) as u32
    }

    fn expected(&self) -> u64 {
        self.newest.get() - self.base.get() + 1
    }

    /// The report block since the last one.
    pub(super) fn report(&mut self, now: Instant) -> ReceptionReport {
        let (expected, received) = (self.expected(), self.packets);
        let expected_since = expected - self.reported.0;
        let lost_since = expected_since.saturating_sub(received - self.reported.1);
        self.reported = (expected, received);
        // One in 256 of nothing is nothing.
        let fraction = (lost_since << 8).checked_div(expected_since).unwrap_or(0);
        ReceptionReport {
            ssrc: self.ssrc,
            fraction_lost: fraction.min(u8::MAX.into()) as u8,
            total_lost: self.lost().min(MAX_TOTAL_LOST) as u32,
            last_sequence_number: self.newest.get() as u32,
            jitter: self.jitter_ticks(),
            last_sender_report: self.sender_report.map_or(0, |(ntp, _)| ntp.middle()),
            delay: self.sender_report.map_or(0, |(_, at)| to_middle(now.saturating_duration_since(at))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: u32 = 48_000;

    fn index(i: u64) -> Index {
        Index::new(i).unwrap()
    }

    /// Feeds indices 20 ms apart; returns fraction lost, total lost, and highest sequence number.
    #[track_caller]
    fn check(indices: &[u64], expected: (u8, u32, u32)) {
        let start = Instant::now();
        let mut reception = Reception::new(7, RATE, index(indices[0]), start);
        for i in indices {
            reception.packet(index(*i), (*i as u32).wrapping_mul(960), 80, start + Duration::from_millis(20 * i));
        }
        let report = reception.report(start);
        assert_eq!((report.fraction_lost, report.total_lost, report.last_sequence_number), expected, "{indices:?}");
    }

    #[test]
    fn losses() {
        check(&[5], (0, 0, 5));
        check(&[5, 6, 7, 8], (0, 0, 8));
        check(&[5, 6, 8], (64, 1, 8));
        check(&[5, 8], (128, 2, 8));
        check(&[8, 5, 6, 7], (0, 0, 8)); // reordered from the start
        check(&[0xFFFE, 0x1_0001], (128, 2, 0x1_0001));
        check(&[0, 100_000_000], (255, 0x7F_FFFF, 100_000_000));
    }

    #[test]
    fn a_fraction_is_since_the_last_report() {
        let now = Instant::now();
        let mut reception = Reception::new(7, RATE, index(1), now);
        for i in [1, 2, 4] {
            reception.packet(index(i), 0, 80, now);
        }
        assert_eq!(reception.report(now).fraction_lost, 64);
        assert_eq!(reception.report(now).fraction_lost, 0);
        for i in [5, 6] {
            reception.packet(index(i), 0, 80, now);
        }
        // The late one makes up for an earlier loss, which is no negative fraction.
        reception.packet(index(3), 0, 80, now);
        let report = reception.report(now);
        assert_eq!((report.fraction_lost, report.total_lost), (0, 0));
        assert_eq!((reception.packets(), reception.octets(), reception.lost()), (6, 480, 0));
    }

    /// Packets whose transit alternates between 0 and `jitter`: the estimate converges on that.
    #[track_caller]
    fn check_jitter(clock_rate: u32, jitter: Duration, timestamp_jump: u32) {
        let start = Instant::now();
        let mut reception = Reception::new(7, clock_rate, index(0), start);
        for i in 0..400u32 {
            let late = if i % 2 == 0 { Duration::ZERO } else { jitter };
            let jumped = if i < 200 { 0 } else { timestamp_jump };
            let timestamp = (i * clock_rate / 50).wrapping_add(u32::MAX - 1_000).wrapping_add(jumped);
            reception.packet(index(i.into()), timestamp, 80, start + Duration::from_millis(20) * i + late);
        }
        let got = reception.jitter();
        assert!(got.abs_diff(jitter) <= Duration::from_millis(1), "{got:?} for {jitter:?}");
        assert_eq!(
            reception.report(start).jitter,
            (got.as_nanos() * u128::from(clock_rate)).div_ceil(1_000_000_000) as u32
        );
    }

    #[test]
    fn jitter_in_any_clock_rate() {
        for clock_rate in [8_000, 48_000, 90_000] {
            for jitter in [0, 1, 10, 60] {
                check_jitter(clock_rate, Duration::from_millis(jitter), 0);
                check_jitter(clock_rate, Duration::from_millis(jitter), 1 << 30);
            }
        }
    }

    #[test]
    fn the_delay_since_a_sender_report_is_told() {
        let now = Instant::now();
        let mut reception = Reception::new(7, RATE, index(0), now);
        let report = reception.report(now);
        assert_eq!((report.last_sender_report, report.delay), (0, 0));
        reception.sender_report(Ntp(0x1122_3344_5566_7788), now);
        let report = reception.report(now + Duration::from_millis(1_500));
        assert_eq!((report.last_sender_report, report.delay), (0x3344_5566, 0x1_8000));
    }

    proptest! {
        #[test]
        fn any_input_gives_a_report(
            packets in prop::collection::vec((0..=Index::MAX.get(), any::<u32>(), 0u64..1 << 40), 1..50),
            clock_rate: u32,
        ) {
            let start = Instant::now();
            let mut reception = Reception::new(1, clock_rate, index(packets[0].0), start);
            for (i, timestamp, nanos) in packets {
                reception.packet(index(i), timestamp, 1, start + Duration::from_nanos(nanos));
                let report = reception.report(start);
                prop_assert!(report.total_lost <= 0x7F_FFFF);
            }
        }
    }
}
