//! The clocks that reports speak of.

use std::time::{Duration, Instant, SystemTime};

/// Seconds between the epochs of NTP (1900) and Unix (1970).
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// An NTP timestamp: seconds since 1900 in the upper half, fractions in the lower (RFC 3550 section 4). Wraps in 2036.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ntp(pub u64);

impl Ntp {
    /// The middle 32 bits: units of 1/65 536 s, as in LSR and DLSR (RFC 3550 section 6.4.1).
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// Wall-clock time as a function of monotonic time, so that a leap or a step of the system's clock during a call does not
/// show as a round trip of minutes, and a test decides both.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    at: Instant,
    wall: SystemTime,
}

impl WallClock {
    /// The clock that shows `wall` at `at`.
    pub fn new(at: Instant, wall: SystemTime) -> Self {
        Self { at, wall }
    }

    /// What it shows at `now`.
    pub fn ntp(&self, now: Instant) -> Ntp {
        let since_unix = self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since_unix = match now.checked_duration_since(self.at) {
            Some(later) => since_unix.saturating_add(later),
            None => since_unix.saturating_sub(self.at - now),
        };
        let seconds = since_unix.as_secs().wrapping_add(NTP_TO_UNIX);
        let fraction = (u64::from(since_unix.subsec_nanos()) << 32) / 1_000_000_000;
        Ntp(seconds << 32 | fraction)
    }
}

/// A duration in units of 1/65 536 s; the longest that fits for longer ones.
pub(super) fn to_middle(duration: Duration) -> u32 {
    u32::try_from((duration.as_nanos() << 16) / 1_000_000_000).unwrap_or(u32::MAX)
}

/// Units of 1/65 536 s as a duration.
pub(super) fn from_middle(units: u32) -> Duration {
    Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16)
}

/// A duration in ticks of an RTP clock, which wraps.
pub(super) fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    // Whole seconds apart, because this runs per packet and 128-bit division is slow.
    let (seconds, rate) = (duration.as_secs(), u64::from(clock_rate));
    (seconds.wrapping_mul(rate)).wrapping_add(u64::from(duration.subsec_nanos()) * rate / 1_000_000_000) as u32
}

/// Ticks of an RTP clock as a duration.
pub(super) fn duration(ticks: u32, clock_rate: u32) -> Duration {
    Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(clock_rate.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_of_known_times() {
        let at = Instant::now();
        let check = |unix: Duration, later: i64, expected: u64| {
            let clock = WallClock::new(at, SystemTime::UNIX_EPOCH + unix);
            let distance = Duration::from_millis(later.unsigned_abs());
            let now = if later < 0 { at.checked_sub(distance).unwrap() } else { at + distance };
            assert_eq!(clock.ntp(now), Ntp(expected), "{unix:?} {later}");
        };
        check(Duration::ZERO, 0, 0x83AA_7E80_0000_0000);
        check(Duration::ZERO, 500, 0x83AA_7E80_8000_0000);
        check(Duration::from_secs(1), -500, 0x83AA_7E80_8000_0000);
        check(Duration::from_secs(2_085_978_496), 0, 0); // the end of NTP's first era
        assert_eq!(Ntp(0x1122_3344_5566_7788).middle(), 0x3344_5566);
    }

    #[test]
    fn durations_survive_units() {
        for millis in [0, 1, 20, 5_000, 3_600_000] {
            let time = Duration::from_millis(millis);
            let back = from_middle(to_middle(time));
            assert!(back <= time && time - back < Duration::from_micros(16), "{time:?} {back:?}");
        }
        assert_eq!(to_middle(Duration::from_secs(100_000)), u32::MAX);
        assert_eq!(ticks(Duration::from_millis(20), 48_000), 960);
        assert_eq!(ticks(Duration::from_millis(20), 8_000), 160);
        assert_eq!(ticks(Duration::from_secs(48 * 3_600), 90_000), (48u64 * 3_600 * 90_000) as u32);
        assert_eq!(duration(960, 48_000), Duration::from_millis(20));
        assert_eq!(duration(960, 0), Duration::from_secs(960));
    }
}
