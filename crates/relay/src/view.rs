//! What people see of a flow who look for one: no key, and no name that anything could be done with.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use crate::flows::{Flow, Traffic};
use crate::header::{SessionHandle, Standing};
use crate::relay::Relay;

/// A flow as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowView {
    /// The client.
    pub client: SocketAddr,
    /// The public port that it sends to.
    pub door: u16,
    /// Where its packets go.
    pub worker: SocketAddr,
    /// What the worker has seen of it.
    pub standing: Standing,
    /// What the worker calls the session; 0 until it has said it.
    pub session: SessionHandle,
    /// How long nothing has come from the client, in whole seconds.
    pub silent: Duration,
    /// How long this relay has had it, in whole seconds.
    pub age: Duration,
    /// From the client.
    pub received: Traffic,
    /// To it.
    pub sent: Traffic,
}

impl FlowView {
    fn of(flow: &Flow, now: Duration) -> Self {
        Self {
            client: flow.client(),
            door: flow.door(),
            worker: flow.worker(),
            standing: flow.standing(),
            session: flow.session(),
            silent: flow.silent(now),
            age: flow.age(now),
            received: flow.received(),
            sent: flow.sent(),
        }
    }
}

impl<U> Relay<U> {
    /// The flows in these places of the table, of [`places`](Self::places): a large table is looked through in parts, and packets
    /// pass between them.
    pub fn views(&self, places: Range<usize>, now: Duration) -> impl Iterator<Item = FlowView> {
        self.table().within(places).map(move |flow| FlowView::of(flow, now))
    }

    /// How many places the table has by now.
    #[must_use]
    pub fn places(&self) -> usize {
        self.table().places()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::{Bounds, Target};
    use crate::relay::{Elsewhere, Ufrags};
    use crate::{Announced, FlowKey};
    use streamfleet_session::ufrag::SessionKey;

    struct Nobody;

    impl Ufrags for Nobody {
        fn open(&self, _: &str) -> Option<Target> {
            None
        }
    }

    /// Another relay has told of every client.
    struct Everybody;

    impl Elsewhere for Everybody {
        fn find(&self, key: &FlowKey) -> Option<Announced> {
            let told = (0..100).map(announced);
            told.into_iter().find(|flow| FlowKey::new(flow.client, flow.door) == *key)
        }
    }

    fn announced(n: u16) -> Announced {
        let target = Target { worker: SocketAddr::from(([10, 0, 0, 1], n)), key: SessionKey::from_bytes([1; 16]) };
        let client = SocketAddr::from(([192, 0, 2, 1], n));
        Announced { client, door: 3478, target, session: SessionHandle(n.into()), silent: Duration::ZERO }
    }

    #[test]
    fn every_flow_is_seen_once_however_the_table_is_cut() {
        let mut relay = Relay::new(Nobody, Bounds { per_session: u32::MAX, ..Bounds::default() }, 1);
        let at = Duration::from_secs;
        for n in 0..100 {
            relay.from_client(announced(n).client, 3478, &[128, 111, 0, 1], at(7), &Everybody).unwrap();
        }
        for part in [1, 7, 100, 1_000] {
            let starts = (0..relay.places()).step_by(part);
            let seen: Vec<_> = starts.flat_map(|from| relay.views(from..from + part, at(9))).collect();
            let ports: Vec<u16> = seen.iter().map(|view| view.client.port()).collect();
            assert_eq!(ports, (0..100).collect::<Vec<_>>());
            let Announced { client, door, target, session, .. } = announced(42);
            let (worker, standing) = (target.worker, Standing::Proven);
            let (received, sent) = (Traffic { packets: 1, octets: 4 }, Traffic::default());
            let expected =
                FlowView { client, door, worker, standing, session, silent: at(2), age: at(2), received, sent };
            assert_eq!(seen[42], expected);
        }
    }
}
