//! The addresses of one session, and how much may be sent to each (RFC 9000 8.1, RFC 7675).
//!
//! MESSAGE-INTEGRITY does not cover the address that a check comes from, so whoever can replay one can name a victim as its
//! source. Until an address has answered a check of ours it is *claimed*, and one rule holds for all that is sent there,
//! whoever sends it: at most three times what came from it while the session connects, and at most what came from it
//! once the session is connected and could live without it.

use std::net::SocketAddr;

use super::answer::MAX_REMOTE_CANDIDATES;

/// Claims that are taken while a session connects. Each becomes a candidate of the ICE agent, which keeps it: more than any
/// client has addresses, and little enough for the agent to try them all.
const MAX_CLAIMED: usize = 24;
/// Addresses at one time: the claimed ones, and the candidates of the offer, which are proven without a claim.
pub(crate) const MAX_ADDRESSES: usize = MAX_CLAIMED + MAX_REMOTE_CANDIDATES;
/// RFC 9000 8.1. ICE needs it: one check of the client's is worth an answer to it and a check of ours.
const WHILE_CONNECTING: usize = 3;
/// An answer is smaller than the check that it answers, and so is a check of ours: a connected session needs no more.
const ONCE_CONNECTED: usize = 1;

/// The addresses that one session is reached from, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    entries: Vec<Entry>,
    stage: Stage,
}

#[derive(Debug)]
struct Entry {
    address: SocketAddr,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Octets that came from there and went there.
    Claimed { received: usize, sent: usize },
    /// It has answered a check of ours.
    Proven,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Connecting,
    Connected,
}

/// More addresses than a client has; this one is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more addresses than a client has")]
pub(crate) struct TooMany;

impl Addresses {
    /// Something authentic of this many octets came from there. The address that had to make room for it, if any: never one
    /// that is `in_use`.
    ///
    /// # Errors
    /// While the session connects nothing makes room, since the agent forgets nothing either.
    pub(crate) fn received(
        &mut self,
        from: SocketAddr,
        octets: usize,
        in_use: impl Fn(SocketAddr) -> bool,
    ) -> Result<Option<SocketAddr>, TooMany> {
        if let Some(standing) = self.standing(from) {
            if let Standing::Claimed { received, .. } = standing {
                *received = received.saturating_add(octets);
            }
            return Ok(None);
        }
        let claimed = self.entries.iter().filter(|e| e.standing != Standing::Proven).count();
        if self.stage == Stage::Connecting && claimed >= MAX_CLAIMED {
            return Err(TooMany);
        }
        Ok(self.insert(from, Standing::Claimed { received: octets, sent: 0 }, in_use))
    }

    /// A check of ours was answered from there. The address that had to make room for it, if any.
    pub(crate) fn prove(&mut self, address: SocketAddr, in_use: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        match self.standing(address) {
            Some(standing) => {
                *standing = Standing::Proven;
                None
            }
            None => self.insert(address, Standing::Proven, in_use),
        }
    }

    /// The session is connected: from now on it sends to nobody of whom it has not heard.
    pub(crate) fn connected(&mut self) {
        self.stage = Stage::Connected;
    }

    /// How many octets may be sent there now; `usize::MAX` where there is no limit.
    pub(crate) fn allowance(&self, to: SocketAddr) -> usize {
        let entry = self.entries.iter().find(|e| e.address == to);
        match (entry.map(|e| e.standing), self.stage) {
            (Some(Standing::Proven), _) => usize::MAX,
            (Some(Standing::Claimed { received, sent }), stage) => {
                let factor = match stage {
                    Stage::Connecting => WHILE_CONNECTING,
                    Stage::Connected => ONCE_CONNECTED,
                };
                received.saturating_mul(factor).saturating_sub(sent)
            }
            // A candidate that the client named. The agent has a bounded number of them and tries each for a few seconds,
            // which is what ICE is (RFC 8445 19.5.1).
            (None, Stage::Connecting) => usize::MAX,
            (None, Stage::Connected) => 0,
        }
    }

    /// Takes this much off what may be sent there. False, and nothing taken, if it is more than that.
    #[must_use]
    pub(crate) fn spend(&mut self, to: SocketAddr, octets: usize) -> bool {
        if octets > self.allowance(to) {
            return false;
        }
        if let Some(Standing::Claimed { sent, .. }) = self.standing(to) {
            *sent = sent.saturating_add(octets);
        }
        true
    }

    /// All of them, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries.iter().map(|e| e.address)
    }

    fn standing(&mut self, address: SocketAddr) -> Option<&mut Standing> {
        self.entries.iter_mut().find(|e| e.address == address).map(|e| &mut e.standing)
    }

    fn insert(
        &mut self,
        address: SocketAddr,
        standing: Standing,
        in_use: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        let mut evicted = None;
        if self.entries.len() == MAX_ADDRESSES {
            // One that proved itself is worth more than one that did not. Should what is forgotten come again, it begins
            // with nothing received and nothing sent: the rule holds for the sum of its lives.
            let unused = |e: &Entry| !in_use(e.address);
            let claimed = self.entries.iter().position(|e| unused(e) && e.standing != Standing::Proven);
            let oldest = claimed.or_else(|| self.entries.iter().position(unused)).unwrap_or(0);
            evicted = Some(self.entries.remove(oldest).address);
        }
        self.entries.push(Entry { address, standing });
        evicted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn nobody(_: SocketAddr) -> bool {
        false
    }

    #[test]
    fn one_rule_before_and_after_the_connection() {
        let check = |claimed: bool, proven: bool, connected: bool, sent: usize, expected: usize| {
            let mut addresses = Addresses::default();
            if claimed {
                assert_eq!(addresses.received(addr(1), 100, nobody), Ok(None));
                assert!(addresses.spend(addr(1), sent));
            }
            if proven {
                assert_eq!(addresses.prove(addr(1), nobody), None);
            }
            if connected {
                addresses.connected();
            }
            let case = (claimed, proven, connected, sent);
            assert_eq!(addresses.allowance(addr(1)), expected, "{case:?}");
            assert_eq!(addresses.spend(addr(1), expected.saturating_add(1)), expected == usize::MAX, "{case:?}");
        };
        let all = usize::MAX;
        for (claimed, proven, connected, sent, expected) in [
            // A candidate that only the offer named; once connected, nobody.
            (false, false, false, 0, all),
            (false, false, true, 0, 0),
            (false, true, false, 0, all),
            (false, true, true, 0, all),
            // Who claims to be the client gets three times what came, then no more than what came.
            (true, false, false, 0, 300),
            (true, false, false, 80, 220),
            (true, false, true, 80, 20),
            (true, false, true, 300, 0),
            (true, true, false, 300, all),
            (true, true, true, 300, all),
        ] {
            check(claimed, proven, connected, sent, expected);
        }
    }

    #[test]
    fn claims_are_bounded_while_connecting_and_make_room_afterwards() {
        let mut addresses = Addresses::default();
        for port in 0..100 {
            let expected = if usize::from(port) < MAX_CLAIMED { Ok(None) } else { Err(TooMany) };
            assert_eq!(addresses.received(addr(port), 100, nobody), expected, "{port}");
        }
        // As many candidates of the offer as there may be are proven all the same.
        for port in 100..100 + MAX_REMOTE_CANDIDATES as u16 {
            assert_eq!(addresses.prove(addr(port), nobody), None);
        }
        addresses.connected();
        // The oldest claim goes first, then the oldest that proved itself, and never what is used.
        let used = |a: SocketAddr| a == addr(0) || a == addr(100);
        for port in 200..200 + MAX_CLAIMED as u16 {
            let evicted = addresses.prove(addr(port), used).unwrap();
            assert!(evicted.port() < 24 || port == 199 + MAX_CLAIMED as u16 && evicted.port() == 101, "{evicted}");
        }
        assert_eq!(addresses.iter().count(), MAX_ADDRESSES);
        assert!(addresses.iter().any(|a| a == addr(0)) && addresses.iter().any(|a| a == addr(100)));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Receive(u16, usize),
        Send(u16, usize),
        Prove(u16),
        Connect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u16..60, 1usize..1_500).prop_map(|(a, n)| Step::Receive(a, n)),
            6 => (0u16..60, 1usize..1_500).prop_map(|(a, n)| Step::Send(a, n)),
            1 => (0u16..60).prop_map(Step::Prove),
            1 => Just(Step::Connect),
        ]
    }

    proptest! {
        /// Over any history, with addresses that are forgotten and come again.
        #[test]
        fn nobody_is_sent_more_than_the_rule_allows(steps in prop::collection::vec(step(), 0..400)) {
            #[derive(Default)]
            struct Sum { received: usize, sent: usize, later: usize, proven: bool }
            let mut addresses = Addresses::default();
            let mut sums: HashMap<u16, Sum> = HashMap::new();
            let mut connected = false;
            for step in steps {
                match step {
                    Step::Receive(a, n) => {
                        let taken = addresses.received(addr(a), n, nobody);
                        prop_assert!(taken.is_ok() || !connected);
                        sums.entry(a).or_default().received += n;
                    }
                    // To whom nothing is known of, only the agent sends, and only while connecting.
                    Step::Send(a, n) if connected || addresses.iter().any(|known| known == addr(a)) => {
                        if addresses.spend(addr(a), n) {
                            let sum = sums.entry(a).or_default();
                            sum.sent += n;
                            sum.later += if connected { n } else { 0 };
                        }
                    }
                    Step::Send(..) => {}
                    Step::Prove(a) => {
                        addresses.prove(addr(a), nobody);
                        sums.entry(a).or_default().proven = true;
                    }
                    Step::Connect => {
                        addresses.connected();
                        connected = true;
                    }
                }
                prop_assert!(addresses.iter().count() <= MAX_ADDRESSES);
            }
            for (a, sum) in sums.iter().filter(|(_, sum)| !sum.proven) {
                prop_assert!(sum.sent <= 3 * sum.received, "{a}: {} for {}", sum.sent, sum.received);
                prop_assert!(sum.later <= sum.received, "{a}: {} for {}", sum.later, sum.received);
            }
        }
    }
}
