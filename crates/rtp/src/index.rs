//! Packet indices: sequence numbers that do not wrap.

/// The 48-bit index of an RTP packet: roll-over counter and sequence number (RFC 3711 section 3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Index(u64);

impl Index {
    /// The last index that a key may be used with.
    pub const MAX: Index = Index((1 << 48) - 1);

    /// `None` if the value has more than 48 bits.
    pub fn new(value: u64) -> Option<Self> {
        (value <= Self::MAX.0).then_some(Self(value))
    }

    /// The index of a source's first packet, as far as a receiver can tell.
    pub fn first(sequence: u16) -> Self {
        Self(sequence.into())
    }

    /// As an integer.
    pub fn get(self) -> u64 {
        self.0
    }

    /// What the header carries.
    pub fn sequence(self) -> u16 {
        self.0 as u16
    }

    /// How often the sequence number has wrapped.
    pub fn roll_over_counter(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The next index; `None` after the last, when the key is used up.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// The index with this sequence number that is nearest to `self`, the newest one seen.
    pub fn nearest(self, sequence: u16) -> Self {
        const WRAP: u64 = 1 << 16;
        let same = self.0 & !(WRAP - 1) | u64::from(sequence);
        let index = if same + WRAP / 2 < self.0 && same + WRAP <= Self::MAX.0 {
            same + WRAP
        } else if same > self.0 + WRAP / 2 && same >= WRAP {
            same - WRAP
        } else {
            same
        };
        Self(index)
    }
}

impl From<Index> for u64 {
    fn from(index: Index) -> u64 {
        index.0
    }
}

/// How far behind the newest index a packet may be and still be told from a replay.
///
/// Audio reorders by a few packets, video bursts by some dozens; two words are what makes the check one shift.
pub const WINDOW: u64 = 128;

/// Which of the latest [`WINDOW`] indices were seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    newest: Index,
    /// Bit n: `newest - n` was seen.
    seen: u128,
}

impl Window {
    pub(crate) fn new(first: Index) -> Self {
        Self { newest: first, seen: 1 }
    }

    /// A window in which everything up to `newest` counts as seen.
    pub(crate) fn closed_up_to(newest: Index) -> Self {
        Self { newest, seen: u128::MAX }
    }

    pub(crate) fn newest(&self) -> Index {
        self.newest
    }

    pub(crate) fn is_new(&self, index: Index) -> bool {
        match self.newest.0.checked_sub(index.0) {
            None => true,
            Some(age) => age < WINDOW && self.seen >> age & 1 == 0,
        }
    }

    pub(crate) fn mark(&mut self, index: Index) {
        match self.newest.0.checked_sub(index.0) {
            None => {
                let ahead = index.0 - self.newest.0;
                self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
                self.newest = index;
            }
            Some(age) if age < WINDOW => self.seen |= 1 << age,
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn nearest() {
        let check = |newest: u64, sequence, expected| {
            assert_eq!(Index::new(newest).unwrap().nearest(sequence).get(), expected, "{newest:x} {sequence:x}");
        };
        check(5, 6, 6);
        check(5, 4, 4);
        check(0, 0xffff, 0xffff); // before the first packet there is nothing
        check(0xffff, 0, 0x1_0000);
        check(0x1_0000, 0xffff, 0xffff);
        check(0x1_0000, 0x7fff, 0x1_7fff);
        check(0x1_0000, 0x8000, 0x1_8000);
        check(0x1_0000, 0x8001, 0x8001);
        check(0x1_ffff, 0x7fff, 0x1_7fff);
        check(0x1_ffff, 0x7ffe, 0x2_7ffe);
        check(0xffff_ffff_ffff, 0, 0xffff_ffff_0000); // nothing comes after the last index
    }

    #[test]
    fn the_last_index_has_no_successor() {
        assert_eq!(Index::MAX.next(), None);
        assert_eq!(Index::new(1 << 48), None);
        assert_eq!(Index::new(0x1_0002).map(|i| (i.sequence(), i.roll_over_counter())), Some((2, 1)));
    }

    proptest! {
        #[test]
        fn nearest_is_nearest(newest in 0..=Index::MAX.get(), sequence: u16) {
            let got = Index(newest).nearest(sequence).get();
            prop_assert_eq!(got as u16, sequence);
            prop_assert!(got <= Index::MAX.get());
            if newest > 0x1_0000 && newest < Index::MAX.get() - 0x1_0000 {
                prop_assert!(got.abs_diff(newest) <= 0x8000);
            }
        }

        #[test]
        fn the_window_accepts_each_index_once(indices in prop::collection::vec(1_000u64..1_600, 1..600)) {
            let mut window = Window::new(Index(indices[0]));
            let mut seen = HashSet::from([indices[0]]);
            for i in indices {
                let recent = i + WINDOW > window.newest().get();
                prop_assert_eq!(window.is_new(Index(i)), recent && !seen.contains(&i));
                if window.is_new(Index(i)) {
                    window.mark(Index(i));
                    seen.insert(i);
                }
            }
            let closed = Window::closed_up_to(Index(1_300));
            prop_assert!((0..=1_300).all(|i| !closed.is_new(Index(i))) && closed.is_new(Index(1_301)));
        }
    }
}
