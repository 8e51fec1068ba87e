//! Which packets have come, by their extended sequence numbers.

/// How far behind the newest packet a duplicate is recognised; older ones are late in any case.
const SEEN: u64 = 128;
/// An index this far behind the newest one, or ahead of the last one played, means that the sender has started anew.
pub(super) const RESTART: u64 = 5_000;

/// The newest index and those shortly before it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    newest: Option<u64>,
    /// Bit `n`: index `newest - n` was seen.
    bits: u128,
}

/// How a packet stands to those that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// It is the newest, or the first.
    Newest,
    /// It was overtaken by others.
    Reordered,
    /// It is the first of a sender that has started anew.
    Restarted,
    /// It came before.
    Duplicate,
    /// It is older than what could still be played.
    Late,
}

impl Seen {
    /// Notes the index.
    pub(super) fn note(&mut self, index: u64) -> Order {
        let Some(newest) = self.newest else {
            self.begin(index);
            return Order::Newest;
        };
        if index > newest {
            let ahead = index - newest;
            self.bits = if ahead < SEEN { self.bits << ahead | 1 } else { 1 };
            self.newest = Some(index);
            return Order::Newest;
        }
        let behind = newest - index;
        if behind >= RESTART {
            self.begin(index);
            return Order::Restarted;
        }
        if behind >= SEEN {
            return Order::Late;
        }
        if self.bits >> behind & 1 == 1 {
            return Order::Duplicate;
        }
        self.bits |= 1 << behind;
        Order::Reordered
    }

    /// The next index has nothing to do with those before it.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    fn begin(&mut self, index: u64) {
        (self.newest, self.bits) = (Some(index), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        fn check(name: &str, indices: &[u64], expected: Order) {
            let mut seen = Seen::default();
            let orders: Vec<Order> = indices.iter().map(|&index| seen.note(index)).collect();
            assert_eq!(orders.last(), Some(&expected), "{name}: {orders:?}");
        }
        check("first", &[9_000], Order::Newest);
        check("next", &[9_000, 9_001], Order::Newest);
        check("after a gap", &[9_000, 9_127], Order::Newest);
        check("after a gap wider than the window", &[9_000, 9_400], Order::Newest);
        check("overtaken", &[9_000, 9_002, 9_001], Order::Reordered);
        check("again", &[9_000, 9_000], Order::Duplicate);
        check("again, at the end of the window", &[9_000, 9_127, 9_000], Order::Duplicate);
        check("overtaken by a gap", &[9_000, 9_400, 9_273], Order::Reordered);
        check("out of the window", &[9_000, 9_400, 9_272], Order::Late);
        check("just not anew", &[9_000, 4_001], Order::Late);
        check("anew", &[9_000, 4_000], Order::Restarted);
        check("anew, the next", &[9_000, 4_000, 4_001], Order::Newest);
        check("the last index there is", &[0, u64::MAX], Order::Newest);
        check("after the last there is", &[0, u64::MAX, 0], Order::Restarted);
    }
}
