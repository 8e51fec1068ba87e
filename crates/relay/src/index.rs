//! From the hash of a name to a place: a table whose memory can be asked for before it is needed.
//!
//! Open addressing with linear probing, never more than half full, without marks for what was removed: what follows moves up
//! instead. One look is one line of a cache, where a table that keeps its tags apart costs two.

use streamfleet_net::Words;

/// Places of so many names at most, by 32 bits of their hashes.
pub(crate) struct Index {
    /// The hash in the upper half, the place and one in the lower; 0 is free. Their number is a power of two.
    slots: Words,
}

impl Index {
    /// For places below 4 294 967 295.
    pub(crate) fn new(most: usize) -> Self {
        let slots = most.saturating_mul(2).next_power_of_two().max(8);
        Self { slots: Words::new(slots) }
    }

    /// Asks for the memory that [`candidate`](Self::candidate) and [`find`](Self::find) will need.
    pub(crate) fn prefetch(&self, hash: u32) {
        self.slots.prefetch(self.home(hash));
    }

    /// The first place with this hash: almost always the one that is looked for, if any is.
    pub(crate) fn candidate(&self, hash: u32) -> Option<u32> {
        self.find(hash, |_| true)
    }

    /// The place with this hash that is the one.
    pub(crate) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.slot(hash, is).map(|slot| place(self.slots.get(slot)))
    }

    /// `place` must not be in it.
    pub(crate) fn insert(&mut self, hash: u32, place: u32) {
        let mut at = self.home(hash);
        while self.slots.get(at) != 0 {
            at = self.after(at);
        }
        self.slots.set(at, u64::from(hash) << 32 | (u64::from(place) + 1));
    }

    pub(crate) fn remove(&mut self, hash: u32, place: u32) {
        let Some(mut hole) = self.slot(hash, |at| at == place) else { return };
        let mut at = hole;
        loop {
            self.slots.set(hole, 0);
            let moves = loop {
                at = self.after(at);
                match self.slots.get(at) {
                    0 => return,
                    // It may not come to lie before where its search begins.
                    slot if self.distance(self.home((slot >> 32) as u32), at) >= self.distance(hole, at) => break slot,
                    _ => {}
                }
            };
            self.slots.set(hole, moves);
            hole = at;
        }
    }

    fn slot(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<usize> {
        let mut at = self.home(hash);
        loop {
            match self.slots.get(at) {
                0 => return None,
                slot if (slot >> 32) as u32 == hash && is(place(slot)) => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

fn place(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few hashes, so that they collide and wrap around.
        #[test]
        fn it_is_a_set_of_places_by_hash(steps in proptest::collection::vec((0..6u32, 0..8u32, any::<bool>()), 0..200)) {
            let mut index = Index::new(8);
            let mut expected: Vec<(u32, u32)> = Vec::new();
            for (hash, place, enters) in steps {
                let hash = hash.wrapping_sub(3);
                let known = expected.iter().position(|(_, known)| *known == place);
                match known {
                    None if enters => {
                        index.insert(hash, place);
                        expected.push((hash, place));
                    }
                    Some(at) if !enters => {
                        let (hash, _) = expected.swap_remove(at);
                        index.remove(hash, place);
                    }
                    _ => index.remove(hash, place + 100),
                }
                for hash in (0..6u32).map(|hash| hash.wrapping_sub(3)) {
                    let of_hash: Vec<u32> = expected.iter().filter(|(of, _)| *of == hash).map(|(_, place)| *place).collect();
                    prop_assert_eq!(index.candidate(hash).is_some(), !of_hash.is_empty());
                    for place in 0..8 {
                        prop_assert_eq!(index.find(hash, |at| at == place).is_some(), of_hash.contains(&place));
                    }
                }
                prop_assert_eq!((0..index.slots.len()).filter(|slot| index.slots.get(*slot) != 0).count(), expected.len());
            }
        }
    }
}
