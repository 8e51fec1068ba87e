//! Media time: ticks of the RTP clock counted without wraps, and their length.

/// A packet this far from where its timestamp should be means that the sender's clock jumped (microseconds).
const JUMP: u64 = 1_000_000;

/// How long the ticks of one RTP clock are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Hz, at least 1.
    rate: i64,
}

impl Clock {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate: i64::from(rate.max(1)) }
    }

    pub(super) fn to_micros(self, ticks: i64) -> i64 {
        ticks.saturating_mul(1_000_000) / self.rate
    }

    pub(super) fn to_ticks(self, micros: i64) -> i64 {
        micros.saturating_mul(self.rate) / 1_000_000
    }
}

/// Where a packet that arrives now would be if the sender's clock went with ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Media time by the wall clock (ticks).
    pub(super) media: i64,
    /// From this lateness on the sender has paused without its timestamps (microseconds): only while nothing plays.
    pub(super) resumes_after: i64,
}

/// Whether a packet is the newest by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    Newest,
    Earlier,
}

/// What a timestamp means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    /// This media time, by the timestamps before it.
    Continued(i64),
    /// This media time, by the wall clock: the sender's has jumped.
    Remapped(i64),
    /// A packet from before a jump that was followed already.
    Straggler,
}

/// Maps timestamps to media time, which never wraps and goes on by wall time when the sender's clock jumps.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// The last packet's timestamp and its media time (ticks).
    last: Option<(u32, i64)>,
}

impl Timeline {
    /// The next timestamp has nothing to do with those before it.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }

    /// `expected` is known from the second packet on.
    pub(super) fn place(&mut self, clock: Clock, timestamp: u32, rank: Rank, expected: Option<Expected>) -> Placed {
        let mapped = self.last.map(|(last, media)| media + i64::from(timestamp.wrapping_sub(last).cast_signed()));
        let placed = match (mapped, expected) {
            (None, None) => Placed::Continued(0),
            (None, Some(expected)) => Placed::Continued(expected.media),
            (Some(mapped), None) => Placed::Continued(mapped),
            (Some(mapped), Some(expected)) => {
                let lateness = clock.to_micros(expected.media.saturating_sub(mapped));
                // After a pause a sender may go on where it stopped: that is not lateness.
                let resumed = lateness > expected.resumes_after;
                let jumped = lateness.unsigned_abs() > JUMP;
                if jumped && rank == Rank::Earlier {
                    Placed::Straggler
                } else if jumped || resumed {
                    Placed::Remapped(expected.media)
                } else {
                    Placed::Continued(mapped)
                }
            }
        };
        if let Placed::Continued(media) | Placed::Remapped(media) = placed {
            self.last = Some((timestamp, media));
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: u32 = 48_000;
    const SECOND: i64 = 48_000;

    /// The first packet has timestamp `first` and media time 0.
    fn timeline(first: u32) -> Timeline {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.place(Clock::new(CLOCK), first, Rank::Newest, None), Placed::Continued(0));
        timeline
    }

    #[test]
    fn timestamps_are_continued_until_they_jump() {
        fn check(name: &str, timestamp: u32, rank: Rank, media: i64, resumes_after: i64, expected: Placed) {
            let by_wall = Expected { media, resumes_after };
            let placed = timeline(u32::MAX - 479).place(Clock::new(CLOCK), timestamp, rank, Some(by_wall));
            assert_eq!(placed, expected, "{name}");
        }
        let playing = i64::MAX;
        check("the wrap", 480, Rank::Newest, 960, playing, Placed::Continued(960));
        check("a second late", 480, Rank::Newest, SECOND + 960, playing, Placed::Continued(960));
        check("more than a second late", 480, Rank::Newest, SECOND + 1_008, playing, Placed::Remapped(SECOND + 1_008));
        check("far ahead", 480 + 4 * CLOCK, Rank::Newest, 960, playing, Placed::Remapped(960));
        check("from before a jump", 480 + 4 * CLOCK, Rank::Earlier, 960, playing, Placed::Straggler);
        check("a pause without timestamps", 480, Rank::Newest, 20_000, 200_000, Placed::Remapped(20_000));
        check("a pause with timestamps", 19_520, Rank::Newest, 20_000, 200_000, Placed::Continued(20_000));
    }

    #[test]
    fn a_straggler_changes_nothing_and_a_reset_everything() {
        let clock = Clock::new(CLOCK);
        let mut timeline = timeline(0);
        let by_wall = |media| Some(Expected { media, resumes_after: i64::MAX });
        assert_eq!(timeline.place(clock, 4 * CLOCK, Rank::Earlier, by_wall(960)), Placed::Straggler);
        assert_eq!(timeline.place(clock, 960, Rank::Newest, by_wall(960)), Placed::Continued(960));
        timeline.reset();
        assert_eq!(timeline.place(clock, 77, Rank::Newest, by_wall(1_920)), Placed::Continued(1_920));
    }
}
