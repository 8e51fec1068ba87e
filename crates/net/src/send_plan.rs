//! Which datagrams go out together.

use crate::outbox::Entry;
use crate::socket::Offload;
use std::net::SocketAddr;

/// Messages per `sendmmsg`.
pub(crate) const BATCH: usize = 64;
/// Segments per message; older kernels allow no more.
const MAX_SEGMENTS: u32 = 64;
/// Octets per message: what fits an IP packet, less generous headers.
const MAX_RUN: u32 = 65_000;
/// How many messages back a destination is looked for. Runs to one destination come from one session's turn, so they are
/// close together, and a longer search would cost every packet of those who have no runs.
const LOOK_BACK: usize = 8;
/// Ends a run's chain.
const END: u32 = u32::MAX;

/// One message: a run of datagrams to one address, all as long as the first, except that the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) to: SocketAddr,
    first: u32,
    last: u32,
    pub(crate) count: u32,
    pub(crate) segment: u32,
    octets: u32,
}

/// Groups datagrams into messages. Per destination their order is kept; between destinations it is not.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    runs: Vec<Run>,
    /// The datagram after this one in its run, by position in the outbox.
    next: Vec<u32>,
}

impl Plan {
    /// Plans up to [`BATCH`] messages for the datagrams from `from` on; returns the first one that is not in the plan.
    pub(crate) fn make(&mut self, entries: &[Entry], from: usize, gso: Offload) -> usize {
        self.runs.clear();
        self.next.resize(entries.len(), END);
        for (i, entry) in entries.iter().enumerate().skip(from) {
            self.next[i] = END;
            if gso == Offload::On
                && let Some(run) = self.runs.iter_mut().rev().take(LOOK_BACK).find(|run| run.to == entry.to)
                && run.takes(entry.len)
            {
                self.next[run.last as usize] = i as u32;
                (run.last, run.count, run.octets) = (i as u32, run.count + 1, run.octets + entry.len);
                continue;
            }
            if self.runs.len() == BATCH {
                return i;
            }
            let (first, len) = (i as u32, entry.len);
            self.runs.push(Run { to: entry.to, first, last: first, count: 1, segment: len, octets: len });
        }
        entries.len()
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Positions in the outbox of a run's datagrams, in order.
    pub(crate) fn datagrams(&self, run: &Run) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(run.first), |i| Some(self.next[*i as usize]).filter(|next| *next != END))
            .map(|i| i as usize)
    }
}

impl Run {
    fn takes(&self, len: u32) -> bool {
        let no_short_one_yet = self.octets == self.count * self.segment;
        no_short_one_yet && len <= self.segment && self.count < MAX_SEGMENTS && self.octets + len <= MAX_RUN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outbox;
    use proptest::prelude::*;

    /// `(destination, length)` of each datagram in; the positions in each message out.
    #[track_caller]
    fn check(datagrams: &[(u16, usize)], gso: Offload, expected: &[&[usize]]) {
        let outbox = outbox(datagrams);
        let mut plan = Plan::default();
        assert_eq!(plan.make(outbox.entries(), 0, gso), datagrams.len());
        let got: Vec<Vec<usize>> = plan.runs().iter().map(|run| plan.datagrams(run).collect()).collect();
        assert_eq!(got, expected);
    }

    fn outbox(datagrams: &[(u16, usize)]) -> Outbox {
        let mut outbox = Outbox::new();
        for (port, len) in datagrams {
            assert!(outbox.push_slice(SocketAddr::from(([192, 0, 2, 1], *port)), &vec![0; *len]));
        }
        outbox
    }

    #[test]
    fn runs() {
        use Offload::{Off, On};
        check(&[], On, &[]);
        check(&[(1, 9), (1, 9), (1, 9)], On, &[&[0, 1, 2]]);
        check(&[(1, 9), (1, 9), (1, 9)], Off, &[&[0], &[1], &[2]]);
        // A shorter one may end a run, a longer one starts the next.
        check(&[(1, 9), (1, 5), (1, 5), (1, 9)], On, &[&[0, 1], &[2], &[3]]);
        // Runs of different destinations may interleave.
        check(&[(1, 9), (2, 7), (1, 9), (2, 7), (3, 1)], On, &[&[0, 2], &[1, 3], &[4]]);
        // Once a destination's run has ended, what follows does not overtake: it joins the newest run.
        check(&[(1, 9), (2, 7), (1, 20), (1, 9), (1, 20)], On, &[&[0], &[1], &[2, 3], &[4]]);
        // More octets than one message takes.
        check(&[(1, 40_000), (1, 40_000)], On, &[&[0], &[1]]);
    }

    #[test]
    fn at_most_64_segments() {
        let mut plan = Plan::default();
        let outbox = outbox(&[(1, 9); 100]);
        plan.make(outbox.entries(), 0, Offload::On);
        assert_eq!(plan.runs().iter().map(|run| run.count).collect::<Vec<_>>(), [64, 36]);
    }

    proptest! {
        #[test]
        fn every_datagram_once_and_in_order_per_destination(
            datagrams in prop::collection::vec((1u16..20, 1usize..6), 0..400),
            on in any::<bool>(),
        ) {
            let outbox = outbox(&datagrams);
            let (mut plan, mut from, mut order) = (Plan::default(), 0, vec![]);
            while from < datagrams.len() {
                let to = plan.make(outbox.entries(), from, if on { Offload::On } else { Offload::Off });
                prop_assert!(to > from && plan.runs().len() <= BATCH);
                for run in plan.runs() {
                    let members: Vec<usize> = plan.datagrams(run).collect();
                    prop_assert_eq!(members.len(), run.count as usize);
                    let (last, rest) = members.split_last().unwrap();
                    prop_assert!(rest.iter().all(|i| datagrams[*i].1 == run.segment as usize));
                    prop_assert!(datagrams[*last].1 <= run.segment as usize);
                    prop_assert!(members.iter().all(|i| datagrams[*i].0 == run.to.port()));
                    order.extend(members);
                }
                from = to;
            }
            for port in 1..20 {
                let sent: Vec<usize> = order.iter().copied().filter(|i| datagrams[*i].0 == port).collect();
                prop_assert!(sent.is_sorted(), "{:?}", sent);
            }
            order.sort_unstable();
            prop_assert_eq!(order, (0..datagrams.len()).collect::<Vec<_>>());
        }
    }
}
