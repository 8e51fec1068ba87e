//! Which datagrams go out together.

use crate::outbox::{Entry, Source, order};
use crate::socket::Offload;
use std::net::SocketAddr;

/// Messages per `sendmmsg`.
pub(crate) const BATCH: usize = 64;
/// Segments per message; older kernels allow no more.
const MAX_SEGMENTS: u32 = 64;
/// Octets per message: what fits an IP packet, less generous headers.
const MAX_RUN: u32 = 65_000;
/// Runs to one destination that are looked at for one more datagram. As many differ in the length of theirs, or are full.
const LOOK_BACK: usize = 16;
/// Places for the destinations of [`BATCH`] runs: a power of two, and half of them stay free.
const DESTINATIONS: usize = 2 * BATCH;
/// Places for orders: those that share one are kept apart from each other as if they were one. A power of two.
const ORDERS: usize = 1024;
/// Ends a chain.
const END: u32 = u32::MAX;

/// One message: a run of datagrams to one address, all as long as the first, except that the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) to: SocketAddr,
    pub(crate) from: Source,
    first: u32,
    last: u32,
    /// 0 of a run that has become another's end.
    pub(crate) count: u32,
    pub(crate) segment: u32,
    pub(crate) octets: u32,
    /// The run to this destination that was begun before.
    sibling: u32,
    /// The run that its first datagram must not overtake.
    after: u32,
}

/// Groups datagrams into messages. Those of one order stay in it; others may overtake each other.
///
/// Datagrams of one length to one destination become one run, whatever lies between them. What is alone after that becomes the
/// end of a run of longer ones, where there is one.
#[derive(Debug)]
pub(crate) struct Plan {
    runs: Vec<Run>,
    /// The datagram after this one in its run, by position.
    next: Vec<u32>,
    /// The youngest run to a destination, by its hash; the place of a run, and one more.
    destinations: [u8; DESTINATIONS],
    /// The youngest run that has a datagram of this order; likewise.
    orders: [u8; ORDERS],
}

impl Default for Plan {
    fn default() -> Self {
        Self { runs: Vec::with_capacity(BATCH), next: Vec::new(), destinations: [0; DESTINATIONS], orders: [0; ORDERS] }
    }
}

impl Plan {
    /// Plans up to [`BATCH`] messages for the datagrams from `from` on; returns the first one that is not in the plan.
    pub(crate) fn make(&mut self, entries: &[Entry], from: usize, gso: Offload) -> usize {
        self.runs.clear();
        if self.next.len() < entries.len() {
            self.next.resize(entries.len(), END);
        }
        match gso {
            Offload::Off => {
                let to = entries.len().min(from + BATCH);
                for (i, entry) in entries.iter().enumerate().take(to).skip(from) {
                    self.begin(i as u32, entry, END, 0);
                }
                to
            }
            Offload::On => self.group(entries, from),
        }
    }

    fn group(&mut self, entries: &[Entry], from: usize) -> usize {
        self.destinations.fill(0);
        self.orders.fill(0);
        let mut siblings = false;
        for (i, entry) in entries.iter().enumerate().skip(from) {
            let order = place(entry.order, ORDERS);
            let destination = self.destination(entry.to);
            let youngest = (self.destinations[destination] as u32).checked_sub(1).unwrap_or(END);
            let after = u32::from(self.orders[order]);
            let run = self.siblings(youngest).find(|at| {
                let run = &self.runs[*at as usize];
                *at + 1 >= after && run.segment == entry.len && run.from == entry.from && run.takes(entry.len)
            });
            let run = match run {
                Some(at) => {
                    self.join(at, i as u32, entry.len);
                    at
                }
                None if self.runs.len() == BATCH => {
                    if siblings {
                        self.join_singles();
                    }
                    return i;
                }
                None => {
                    siblings |= youngest != END;
                    let at = self.begin(i as u32, entry, youngest, after);
                    self.destinations[destination] = at as u8 + 1;
                    at
                }
            };
            self.orders[order] = self.orders[order].max(run as u8 + 1);
        }
        if siblings {
            self.join_singles();
        }
        entries.len()
    }

    fn begin(&mut self, datagram: u32, entry: &Entry, sibling: u32, after: u32) -> u32 {
        self.next[datagram as usize] = END;
        self.runs.push(Run {
            to: entry.to,
            from: entry.from,
            first: datagram,
            last: datagram,
            count: 1,
            segment: entry.len,
            octets: entry.len,
            sibling,
            after,
        });
        self.runs.len() as u32 - 1
    }

    fn join(&mut self, at: u32, datagram: u32, len: u32) {
        self.next[datagram as usize] = END;
        let run = &mut self.runs[at as usize];
        self.next[run.last as usize] = datagram;
        (run.last, run.count, run.octets) = (datagram, run.count + 1, run.octets + len);
    }

    /// Runs of one datagram become the ends of others, which are sent before them: no later datagram of their order is.
    fn join_singles(&mut self) {
        for at in 1..self.runs.len() {
            let single = self.runs[at];
            if single.count != 1 {
                continue;
            }
            let run = self.siblings(single.sibling).find(|at| {
                let run = &self.runs[*at as usize];
                *at + 1 >= single.after && run.count > 0 && run.from == single.from && run.takes(single.segment)
            });
            if let Some(run) = run {
                self.join(run, single.first, single.segment);
                self.runs[at].count = 0;
            }
        }
    }

    /// The place of a destination in the table, taken or free.
    fn destination(&self, to: SocketAddr) -> usize {
        let mut at = place(order(to), DESTINATIONS);
        loop {
            match self.destinations[at] {
                0 => return at,
                run if self.runs[usize::from(run) - 1].to == to => return at,
                _ => at = (at + 1) % DESTINATIONS,
            }
        }
    }

    /// Runs to one destination, from this one on, the younger first.
    fn siblings(&self, from: u32) -> impl Iterator<Item = u32> {
        let some = |at: u32| (at != END).then_some(at);
        std::iter::successors(some(from), move |at| some(self.runs[*at as usize].sibling)).take(LOOK_BACK)
    }

    /// Those with a `count` are messages, to be sent in this order.
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Positions of a run's datagrams, in order.
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

/// Spreads values over so many places, a power of two.
fn place(value: u32, places: usize) -> usize {
    (value.wrapping_mul(0x9E37_79B1) >> 16) as usize % places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outbox;
    use crate::outbox::Departures as _;
    use proptest::prelude::*;

    /// `(destination, length)` of each datagram in; the positions in each message out.
    #[track_caller]
    fn check(datagrams: &[(u16, usize)], gso: Offload, expected: &[&[usize]]) {
        let outbox = outbox(datagrams);
        let mut plan = Plan::default();
        assert_eq!(plan.make(outbox.entries(), 0, gso), datagrams.len());
        assert_eq!(messages(&plan), expected);
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
        // A shorter one that is alone may end a run, a longer one starts the next.
        check(&[(1, 9), (1, 5), (1, 9)], On, &[&[0, 1], &[2]]);
        check(&[(1, 9), (1, 5), (1, 5), (1, 9)], On, &[&[0], &[1, 2], &[3]]);
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

    /// `(destination, length, order)` of each.
    fn entries(datagrams: &[(u16, u32, u32)]) -> Vec<Entry> {
        let to = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let entry = |(port, len, order): &(u16, u32, u32)| Entry {
            to: to(*port),
            order: *order,
            from: Source::ANY,
            start: 0,
            len: *len,
        };
        datagrams.iter().map(entry).collect()
    }

    fn messages(plan: &Plan) -> Vec<Vec<usize>> {
        plan.runs().iter().filter(|run| run.count > 0).map(|run| plan.datagrams(run).collect()).collect()
    }

    #[test]
    fn orders() {
        let check = |datagrams: &[(u16, u32, u32)], expected: &[&[usize]]| {
            let mut plan = Plan::default();
            plan.make(&entries(datagrams), 0, Offload::On);
            assert_eq!(messages(&plan), expected, "{datagrams:?}");
        };
        // Voices and pictures of four clients to one worker: as many messages as there are lengths.
        check(&[(1, 90, 1), (1, 1200, 2), (1, 90, 3), (1, 1200, 4), (1, 90, 1)], &[&[0, 2, 4], &[1, 3]]);
        // One client's own do not overtake each other: its second comes too late for the first run.
        check(&[(1, 90, 1), (1, 1200, 2), (1, 90, 2)], &[&[0], &[1, 2]]);
        check(&[(1, 90, 1), (1, 1200, 2), (1, 1200, 1), (1, 90, 2)], &[&[0], &[1, 2, 3]]);
        // What is alone is the end of what is longer, and only one can be.
        check(&[(1, 90, 1), (1, 80, 2), (1, 70, 3), (1, 60, 4)], &[&[0, 1], &[2, 3]]);
        // Not of what it would overtake itself by.
        check(&[(1, 90, 1), (1, 95, 2), (1, 80, 2)], &[&[0], &[1, 2]]);
        check(&[(1, 90, 1), (2, 95, 2), (1, 80, 2)], &[&[0], &[1], &[2]]);
    }

    #[test]
    fn a_run_has_one_source() {
        let mut entries = entries(&[(1, 90, 1), (1, 90, 2), (1, 90, 1), (1, 80, 3), (1, 80, 4)]);
        for (entry, from) in entries.iter_mut().zip([1, 2, 1, 2, 1]) {
            entry.from = Source(from);
        }
        let mut plan = Plan::default();
        plan.make(&entries, 0, Offload::On);
        assert_eq!(messages(&plan), [&[0, 2, 4][..], &[1, 3]]);
    }

    #[test]
    fn an_address_may_stand_for_many() {
        let (relay, mut outbox) = (SocketAddr::from(([192, 0, 2, 1], 1)), Outbox::new());
        for (order, len) in [(1, 90), (2, 80), (3, 90), (2, 90)] {
            assert!(outbox.push_in_order(order, relay, |octets| {
                octets.resize(octets.len() + len, 0);
                true
            }));
        }
        let mut plan = Plan::default();
        plan.make(outbox.entries(), 0, Offload::On);
        assert_eq!(messages(&plan), [&[0, 2, 1][..], &[3]]);
    }

    proptest! {
        #[test]
        fn every_datagram_once_and_in_its_order(
            datagrams in prop::collection::vec((1u16..70, 1u32..6, 0u32..90), 0..400),
            on in any::<bool>(),
        ) {
            let entries = entries(&datagrams);
            let (mut plan, mut from, mut sent) = (Plan::default(), 0, vec![]);
            while from < datagrams.len() {
                let to = plan.make(&entries, from, if on { Offload::On } else { Offload::Off });
                prop_assert!(to > from && plan.runs().len() <= BATCH);
                for run in plan.runs().iter().filter(|run| run.count > 0) {
                    let members: Vec<usize> = plan.datagrams(run).collect();
                    prop_assert_eq!(members.len(), run.count as usize);
                    let (last, rest) = members.split_last().unwrap();
                    prop_assert!(rest.iter().all(|i| datagrams[*i].1 == run.segment));
                    prop_assert!(datagrams[*last].1 <= run.segment);
                    prop_assert!(members.iter().all(|i| datagrams[*i].0 == run.to.port()));
                    sent.extend(members);
                }
                from = to;
            }
            for order in 0..90 {
                let of: Vec<usize> = sent.iter().copied().filter(|i| datagrams[*i].2 == order).collect();
                prop_assert!(of.is_sorted(), "{:?}", of);
            }
            sent.sort_unstable();
            prop_assert_eq!(sent, (0..datagrams.len()).collect::<Vec<_>>());
        }
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
                for run in plan.runs().iter().filter(|run| run.count > 0) {
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
