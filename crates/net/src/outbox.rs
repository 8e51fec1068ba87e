//! Datagrams on their way out.

use std::net::{IpAddr, SocketAddr};

/// The largest UDP payload over IPv4, in octets.
pub const MAX_DATAGRAM: usize = 65_507;

/// A loop turn that produces more than this has produced it for many sessions at once and can send in between; the
/// bound keeps a turn's memory near 1.5 MB.
const MAX_DATAGRAMS: usize = 1_024;
/// As above, for large datagrams.
const MAX_OCTETS: usize = 2 << 20;

/// An arena of datagrams to send, without a socket: a sans-IO loop fills it, [`crate::Sender`] empties it, tests read it.
///
/// Bounded to 1 024 datagrams and about 2 MiB; what comes when it is full is refused and counted.
#[derive(Debug, Default)]
pub struct Outbox {
    octets: Vec<u8>,
    entries: Vec<Entry>,
    refused: u64,
}

/// One datagram on its way out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) to: SocketAddr,
    /// Datagrams of one order leave in the order they came; others may overtake them.
    pub(crate) order: u32,
    pub(crate) from: Source,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

/// One of this machine's addresses, as a [`crate::Sender`] knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source(pub(crate) u16);

impl Source {
    /// Whichever the kernel chooses.
    pub const ANY: Self = Self(0);
}

/// Datagrams that wait to be sent, wherever they lie.
pub(crate) trait Departures {
    fn entries(&self) -> &[Entry];

    fn octets(&self, entry: &Entry) -> &[u8];
}

impl Departures for Outbox {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn octets(&self, entry: &Entry) -> &[u8] {
        &self.octets[entry.start as usize..][..entry.len as usize]
    }
}

/// An address's order. That two may have the same costs only freedom.
pub(crate) fn order(to: SocketAddr) -> u32 {
    let ip = match to.ip() {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => ip
            .octets()
            .chunks(4)
            .fold(0, |all, part| part.iter().fold(all, |all: u32, octet| all.rotate_left(8) ^ u32::from(*octet))),
    };
    ip ^ u32::from(to.port()) << 8
}

impl Outbox {
    /// An empty outbox. Allocates on first use and keeps what it allocated.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a datagram: `fill` appends it, and returns false to take it back.
    ///
    /// False, and nothing added, if `fill` took it back, appended nothing or more than [`MAX_DATAGRAM`], or the outbox
    /// [is full](Self::is_full), in which case `fill` is not called. `fill` must only append.
    pub fn push(&mut self, to: SocketAddr, fill: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        self.push_in_order(order(to), to, fill)
    }

    /// [`push`](Self::push) for an address that stands for many clients: datagrams of one `order` leave in the order they were added,
    /// and those of others may overtake them on their way to this address.
    pub fn push_in_order(&mut self, order: u32, to: SocketAddr, fill: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        if self.is_full() {
            self.refused += 1;
            return false;
        }
        let start = self.octets.len();
        let kept = fill(&mut self.octets);
        // A `fill` that removed octets instead has damaged its neighbours; they keep their lengths.
        let len = self.octets.len().saturating_sub(start);
        if !kept || len == 0 || len > MAX_DATAGRAM {
            self.octets.resize(start, 0);
            return false;
        }
        self.entries.push(Entry { to, order, from: Source::ANY, start: start as u32, len: len as u32 });
        true
    }

    /// Adds a copy of `datagram`; false under the conditions of [`push`](Self::push).
    pub fn push_slice(&mut self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.push(to, |octets| {
            octets.extend_from_slice(datagram);
            true
        })
    }

    /// How many datagrams wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the next datagram would be refused.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_DATAGRAMS || self.octets.len() >= MAX_OCTETS
    }

    /// How many datagrams were refused because the outbox was full, ever.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets all datagrams, keeps the memory.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.entries.clear();
    }

    /// The datagrams in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.entries.iter().map(|entry| (entry.to, self.octets(entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[track_caller]
    fn check(outbox: &Outbox, expected: &[(u16, &[u8])]) {
        let got: Vec<_> = outbox.iter().map(|(to, datagram)| (to.port(), datagram)).collect();
        assert_eq!(got, expected);
        assert_eq!(outbox.len(), expected.len());
        assert_eq!(outbox.is_empty(), expected.is_empty());
    }

    #[test]
    fn keeps_order_and_takes_back() {
        let mut outbox = Outbox::new();
        assert!(outbox.push_slice(to(1), b"one"));
        assert!(!outbox.push(to(2), |octets| {
            octets.extend_from_slice(b"never");
            false
        }));
        assert!(!outbox.push_slice(to(2), b""));
        assert!(!outbox.push_slice(to(2), &[0; MAX_DATAGRAM + 1]));
        assert!(outbox.push_slice(to(3), b"three"));
        check(&outbox, &[(1, b"one"), (3, b"three")]);
        outbox.clear();
        check(&outbox, &[]);
        assert!(outbox.push_slice(to(4), b"four"));
        check(&outbox, &[(4, b"four")]);
    }

    #[test]
    fn a_fill_that_removes_octets_costs_only_contents() {
        let mut outbox = Outbox::new();
        assert!(outbox.push_slice(to(1), b"one"));
        assert!(!outbox.push(to(2), |octets| {
            octets.clear();
            true
        }));
        assert!(outbox.push_slice(to(3), b"three"));
        check(&outbox, &[(1, &[0, 0, 0]), (3, b"three")]);
    }

    #[test]
    fn is_bounded_in_datagrams_and_in_octets() {
        for size in [1, 60_000] {
            let mut outbox = Outbox::new();
            let accepted = (0..2_000).filter(|_| outbox.push_slice(to(1), &vec![7; size])).count();
            assert_eq!(accepted, MAX_DATAGRAMS.min(MAX_OCTETS.div_ceil(size)));
            assert!(outbox.is_full());
            assert_eq!(outbox.refused(), 2_000 - accepted as u64);
            assert!(!outbox.push(to(1), |_| unreachable!("a full outbox does not ask")));
            outbox.clear();
            assert!(!outbox.is_full());
        }
    }
}
