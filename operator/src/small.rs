//! Maps of a few entries. Each service has several, and there are thousands of services: a leaf of a B-tree has room for eleven.

use std::borrow::Borrow;

/// A sorted list: it takes little more room than its entries do. Entries are moved to make room for others, so large values are
/// better boxed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    fn at<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(known, _)| known.borrow().cmp(key))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.at(key).ok().map(|at| &self.0[at].1)
    }

    /// Likewise, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.at(key).ok().map(|at| &mut self.0[at].1)
    }

    /// Gives a key a value. Returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.at(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(self.0.len() / 4 + 1);
                }
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a key away. Returns the value that it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (_, value) = self.0.remove(self.at(key).ok()?);
        if self.0.capacity() > self.0.len() + self.0.len() / 2 + 1 {
            self.0.shrink_to_fit();
        }
        Some(value)
    }
}

impl<K, V> SmallMap<K, V> {
    /// How many keys it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Its keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Its values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Likewise, to change them.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_takes_the_room_of_its_entries() {
        let mut map = SmallMap::default();
        for n in 0..3 {
            map.insert(n, ());
            assert_eq!(map.0.capacity(), map.len());
        }
        (3..100).for_each(|n| assert!(map.insert(n, ()).is_none()));
        assert!(map.0.capacity() <= 125);
        (1..100).for_each(|n| assert!(map.remove(&n).is_some()));
        assert!(map.0.capacity() <= 2);
    }

    proptest! {
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((any::<bool>(), 0_u8..12, any::<u8>()), 0..60)) {
            let (mut small, mut map) = (SmallMap::default(), BTreeMap::new());
            for (puts, key, value) in steps {
                match puts {
                    true => prop_assert_eq!(small.insert(key, value), map.insert(key, value)),
                    false => prop_assert_eq!(small.remove(&key), map.remove(&key)),
                }
                prop_assert_eq!((small.get(&key), small.len()), (map.get(&key), map.len()));
                prop_assert_eq!(small.get_mut(&key).copied(), map.get(&key).copied());
                prop_assert!(small.iter().eq(map.iter()) && small.keys().eq(map.keys()) && small.values().eq(map.values()));
                prop_assert_eq!(small.is_empty(), map.is_empty());
            }
            prop_assert!(small.values_mut().map(|value| *value).eq(map.values().copied()));
        }
    }
}
