//! What other relays have said already: an announcement counts once.
//!
//! A sender has a random prefix and counts what it says, so that a window over the numbers tells what is new, also where the
//! network has changed the order (RFC 6479).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use ring::aead::NONCE_LEN;

/// Senders that are remembered: four times as many as there may be peers, for those that begin again and again. About 100 octets each.
const SENDERS: usize = 256;
/// Words of a window. One is always partly ahead of the newest, so that 448 numbers before it are told apart: more than a relay says
/// in ten milliseconds, and nothing is on its way that much longer than what was said after it.
const WORDS: u32 = 8;
const BITS: u32 = u64::BITS;

/// The senders' windows.
#[derive(Default)]
pub(crate) struct Replays {
    windows: HashMap<[u8; 8], Window, RandomState>,
    /// The last that was said, in milliseconds of Unix time, by those that were forgotten to make room: who is not known and said no
    /// later may be one of them.
    floor: u64,
}

#[derive(Default)]
struct Window {
    highest: u32,
    seen: [u64; WORDS as usize],
    /// When the last was said, in milliseconds of Unix time.
    last: u64,
}

impl Replays {
    /// Whether what has this nonce is heard for the first time. It was said then, in milliseconds of Unix time.
    pub(crate) fn take(&mut self, nonce: &[u8; NONCE_LEN], said: u64) -> bool {
        let [prefix @ .., a, b, c, d] = *nonce;
        if !self.windows.contains_key(&prefix) {
            if said <= self.floor {
                return false;
            }
            self.make_room();
        }
        self.windows.entry(prefix).or_default().take(u32::from_be_bytes([a, b, c, d]), said)
    }

    /// The one that has been silent for longest goes: one that has ended, as long as there are fewer than places.
    fn make_room(&mut self) {
        if self.windows.len() < SENDERS {
            return;
        }
        let first =
            self.windows.iter().min_by_key(|(_, window)| window.last).map(|(prefix, window)| (*prefix, window.last));
        if let Some((prefix, last)) = first {
            self.windows.remove(&prefix);
            self.floor = self.floor.max(last);
        }
    }
}

impl Window {
    fn take(&mut self, number: u32, said: u64) -> bool {
        let word = |number: u32| number / BITS;
        if number > self.highest {
            let fresh = (word(number) - word(self.highest)).min(WORDS);
            for n in 0..fresh {
                self.seen[((word(number) - n) % WORDS) as usize] = 0;
            }
            self.highest = number;
        } else if self.highest - number >= (WORDS - 1) * BITS {
            return false;
        }
        let (seen, bit) = (&mut self.seen[(word(number) % WORDS) as usize], 1 << (number % BITS));
        let is_new = *seen & bit == 0;
        *seen |= bit;
        self.last = self.last.max(said);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn nonce(sender: u64, number: u32) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&sender.to_be_bytes());
        nonce[8..].copy_from_slice(&number.to_be_bytes());
        nonce
    }

    #[test]
    fn who_is_forgotten_is_not_heard_again() {
        let mut replays = Replays::default();
        let senders = SENDERS as u64;
        for sender in 0..senders {
            assert!(replays.take(&nonce(sender, 1), 1_000 + sender));
        }
        // The first has spoken again, and the second is silent for longest.
        assert!(replays.take(&nonce(0, 2), 5_000));
        assert!(replays.take(&nonce(senders, 1), 6_000));
        assert_eq!(replays.windows.len(), SENDERS);
        assert!(!replays.take(&nonce(1, 1), 1_001), "played back");
        assert!(!replays.take(&nonce(0, 2), 5_000) && !replays.take(&nonce(senders, 1), 6_000));
        assert!(replays.take(&nonce(1, 2), 7_000), "it goes on");
        assert_eq!(replays.windows.len(), SENDERS);
    }

    #[test]
    fn a_window_ends_somewhere() {
        let mut replays = Replays::default();
        let mut take = |number| replays.take(&nonce(1, number), 1);
        assert!(take(1_000));
        assert!(take(1_000 - 447));
        assert!(!take(1_000 - 448), "it may have been heard");
        assert!(take(u32::MAX));
        assert!(!take(1_000) && !take(u32::MAX));
    }

    proptest! {
        /// Nothing is taken twice, and everything once that is not far behind.
        #[test]
        fn each_number_is_taken_once(numbers in proptest::collection::vec(0..1_500u32, 0..400), from in 0..=u32::MAX - 1_500) {
            let (mut replays, mut taken, mut highest) = (Replays::default(), HashSet::new(), 0);
            for number in numbers.into_iter().map(|number| from + number) {
                let is_taken = replays.take(&nonce(9, number), 1);
                highest = highest.max(number);
                if highest - number < (WORDS - 1) * BITS {
                    prop_assert_eq!(is_taken, !taken.contains(&number), "{}", number);
                } else {
                    prop_assert!(!is_taken);
                }
                taken.insert(number);
            }
        }
    }
}
