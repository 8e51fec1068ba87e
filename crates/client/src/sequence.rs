//! Sixteen-bit RTP sequence numbers, extended so that they never wrap (RFC 3550, appendix A.1).

/// Extends the sequence numbers of one SSRC.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sequence {
    highest: Option<u64>,
}

impl Sequence {
    /// The number on an axis that does not wrap: the one nearest to the highest seen. The axis begins at 65536, so that
    /// packets from before the first one seen have a place on it.
    pub(crate) fn extend(&mut self, number: u16) -> u64 {
        let Some(highest) = self.highest else {
            let first = (1 << 16) + u64::from(number);
            self.highest = Some(first);
            return first;
        };
        #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are what is compared")]
        let ahead = i64::from(number.wrapping_sub(highest as u16).cast_signed());
        let extended = highest.saturating_add_signed(ahead);
        self.highest = Some(highest.max(extended));
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_extended() {
        fn check(numbers: &[u16], expected: &[u64]) {
            let mut sequence = Sequence::default();
            let found: Vec<_> = numbers.iter().map(|n| sequence.extend(*n)).collect();
            assert_eq!(found, expected);
        }
        check(&[0, 1, 2], &[65_536, 65_537, 65_538]);
        check(&[65_535, 0, 65_534, 1], &[131_071, 131_072, 131_070, 131_073]);
        check(&[0, 65_535, 65_534], &[65_536, 65_535, 65_534]);
    }

    proptest! {
        #[test]
        fn the_low_bits_stay(numbers in prop::collection::vec(any::<u16>(), 1..500)) {
            let mut sequence = Sequence::default();
            for number in numbers {
                prop_assert_eq!(sequence.extend(number) & 0xffff, u64::from(number));
            }
        }
    }
}
