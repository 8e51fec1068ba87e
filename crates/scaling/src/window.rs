//! What was within a time: the most that was wanted, how many were drained.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Moment;

/// Pieces that a window is kept in. What leaves it leaves late by one piece at most.
const PIECES: u32 = 60;

/// Numbers of the last while, by pieces of it, so that it takes the same memory however often something is added.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// The number of the piece, counted from the epoch, and what it holds.
    pieces: VecDeque<(u64, u32)>,
}

impl Window {
    /// Adds `value` to a window of `length`, keeping of each piece what `join` makes of the values in it.
    fn add(&mut self, value: u32, length: Duration, now: Moment, join: fn(u32, u32) -> u32) {
        let piece = piece(length, now);
        self.forget(piece);
        match self.pieces.back_mut() {
            // A clock that went back adds to the latest.
            Some((latest, held)) if *latest >= piece => *held = join(*held, value),
            _ => self.pieces.push_back((piece, value)),
        }
    }

    /// Keeps the most of each piece.
    pub(crate) fn most(&mut self, value: u32, length: Duration, now: Moment) -> u32 {
        self.add(value, length, now, u32::max);
        self.pieces.iter().map(|(_, value)| *value).max().unwrap_or(0)
    }

    /// Keeps the sum of each piece.
    pub(crate) fn count(&mut self, value: u32, length: Duration, now: Moment) {
        self.add(value, length, now, u32::saturating_add);
    }

    /// The sum of what is within `length`.
    pub(crate) fn sum(&mut self, length: Duration, now: Moment) -> u32 {
        self.forget(piece(length, now));
        self.pieces.iter().fold(0, |sum, (_, value)| sum.saturating_add(*value))
    }

    fn forget(&mut self, piece: u64) {
        while self.pieces.front().is_some_and(|(first, _)| first + u64::from(PIECES) < piece) {
            self.pieces.pop_front();
        }
        // Another length has other pieces: those of a longer future are of no window.
        while self.pieces.back().is_some_and(|(last, _)| *last > piece + u64::from(PIECES)) {
            self.pieces.pop_back();
        }
    }
}

fn piece(length: Duration, now: Moment) -> u64 {
    let width = u64::try_from((length / PIECES).as_millis()).unwrap_or(u64::MAX).max(1);
    now.as_millis() / width
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    fn second(n: u64) -> Moment {
        Moment::from_millis(n * 1_000)
    }

    #[test]
    fn the_most_stays_for_as_long_as_the_window_is() {
        let mut window = Window::default();
        assert_eq!(window.most(7, FIVE_MINUTES, second(1_000)), 7);
        assert_eq!(window.most(3, FIVE_MINUTES, second(1_002)), 7);
        assert_eq!(window.most(5, FIVE_MINUTES, second(1_300)), 7);
        assert_eq!(window.most(1, FIVE_MINUTES, second(1_304)), 7, "it leaves late rather than early");
        assert_eq!(window.most(1, FIVE_MINUTES, second(1_310)), 5);
        assert_eq!(window.most(2, FIVE_MINUTES, second(9_999)), 2);
    }

    #[test]
    fn the_sum_is_that_of_the_window() {
        let minute = Duration::from_secs(60);
        let mut window = Window::default();
        window.count(2, minute, second(100));
        window.count(1, minute, second(100));
        window.count(1, minute, second(130));
        assert_eq!(window.sum(minute, second(160)), 4);
        assert_eq!(window.sum(minute, second(162)), 1);
        assert_eq!(window.sum(minute, second(192)), 0);
    }

    #[test]
    fn it_does_not_grow() {
        let mut window = Window::default();
        for n in 0..100_000_u64 {
            window.most(u32::try_from(n % 977).unwrap(), FIVE_MINUTES, Moment::from_millis(n * 250));
            assert!(window.pieces.len() <= PIECES as usize + 1);
        }
        // Nor where the clock goes back by a year, or the length changes.
        for n in 0..1_000 {
            window.most(1, Duration::from_secs(n), second(1_000 * (1_000 - n)));
            assert!(window.pieces.len() <= 2 * PIECES as usize + 1);
        }
        assert_eq!(window.most(1, Duration::ZERO, second(0)), 1, "no window is the present");
    }
}
