//! One flow: a client at a door, whose session that is, and what has passed.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use streamfleet_session::ufrag::SessionKey;

use super::Bounds;
use crate::header::{
    Direction, FlowId, HEADER, Header, SEALED, SessionHandle, Standing, TAG, address_octets, address_of, client_of,
};

/// The part of a sealed header that says which flow it is: the client's address and port, and the door.
const KEY: Range<usize> = 4..24;
/// The rival of a flow that has none.
pub(super) const NONE: u32 = u32::MAX;

/// What names a flow: the octets of a header that say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey([u8; 20]);

impl FlowKey {
    /// That of a client's address and a door.
    #[must_use]
    pub fn new(client: SocketAddr, door: u16) -> Self {
        let mut key = [0; 20];
        key[..18].copy_from_slice(&address_octets(client));
        key[18..].copy_from_slice(&door.to_be_bytes());
        Self(key)
    }

    /// The client's address and the door.
    pub(crate) fn parts(&self) -> (SocketAddr, u16) {
        let [client @ .., a, b] = self.0;
        (address_of(&client), u16::from_be_bytes([a, b]))
    }
}

/// Where a flow leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The worker's media loop.
    pub worker: SocketAddr,
    /// Seals the headers of the session, and tells it from every other.
    pub key: SessionKey,
}

/// What has passed one way, without headers between relay and worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets; 4 294 967 295 are that many or more.
    pub packets: u32,
    /// What they held.
    pub octets: u64,
}

/// One client at one door, and its session: two lines of a cache, of which the first is all that most packets of a client need.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Flow {
    /// What stands before its datagrams, sealed; its [`KEY`] says who it is.
    header: [u8; HEADER],
    worker: [u8; 18],
    pub(super) standing: Standing,
    /// What the worker says of the client in headers with the tag `home`.
    home_says: Option<Standing>,
    /// When the client was heard last, on the thread's clock.
    heard: u32,
    pub(super) key: SessionKey,
    /// The tag of a header of the worker's that was valid.
    home: [u8; TAG],
    /// Octets from and to the client.
    received: u64,
    sent: u64,
    packets_received: u32,
    packets_sent: u32,
    /// When it was entered, and when others are to be told of it again.
    since: u32,
    pub(super) tell_at: u32,
    /// The other flow of this address.
    pub(super) rival: u32,
}

impl Flow {
    /// A flow that nobody knows anything of yet, in this place.
    pub(super) fn new(
        place: FlowId,
        (client, door): (SocketAddr, u16),
        return_port: u16,
        target: Target,
        now: Duration,
    ) -> Self {
        let Target { worker, key } = target;
        let session = SessionHandle::default();
        let now = seconds(now);
        Self {
            header: header(client, door, return_port, place, session).seal(&key),
            worker: address_octets(worker),
            standing: Standing::Unknown,
            home_says: None,
            heard: now,
            key,
            home: [0; TAG],
            received: 0,
            sent: 0,
            packets_received: 0,
            packets_sent: 0,
            since: now,
            tell_at: 0,
            rival: NONE,
        }
    }

    pub(crate) fn name(&self) -> FlowKey {
        let mut key = [0; 20];
        key.copy_from_slice(&self.header[KEY]);
        FlowKey(key)
    }

    pub(crate) fn header(&self) -> &[u8; HEADER] {
        &self.header
    }

    pub(crate) fn worker(&self) -> SocketAddr {
        address_of(&self.worker)
    }

    pub(crate) fn target(&self) -> Target {
        Target { worker: self.worker(), key: self.key }
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    pub(crate) fn session(&self) -> SessionHandle {
        let [.., a, b, c, d] = self.header[..SEALED] else { return SessionHandle::default() };
        SessionHandle(u32::from_be_bytes([a, b, c, d]))
    }

    /// The client was heard.
    pub(crate) fn hear(&mut self, octets: usize, now: Duration) {
        self.heard = seconds(now);
        self.received = self.received.saturating_add(octets as u64);
        self.packets_received = self.packets_received.saturating_add(u32::from(octets > 0));
    }

    /// Whether this header is the worker's as it was when it was found to be valid: it then needs no other proof, and says nothing
    /// new.
    pub(crate) fn knows(&self, octets: &[u8; HEADER]) -> bool {
        // What is between the marks and the tag is the same both ways.
        self.home_says.is_some_and(|standing| standing as u8 == octets[1])
            && u64::from_ne_bytes(self.home) == u64::from_ne_bytes(*tag_of(octets))
            && self.header[2..SEALED] == octets[2..SEALED]
    }

    /// A valid header of the worker's, which says this of the client.
    pub(crate) fn learn(&mut self, octets: &[u8; HEADER], standing: Standing) {
        if self.header[2..SEALED] == octets[2..SEALED] {
            (self.home, self.home_says) = (*tag_of(octets), Some(standing));
        }
    }

    /// How long the client has not been heard.
    pub(crate) fn silent(&self, now: Duration) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.heard).into())
    }

    /// How long ago it was entered.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.since).into())
    }

    /// What has come from the client.
    pub(crate) fn received(&self) -> Traffic {
        Traffic { packets: self.packets_received, octets: self.received }
    }

    /// What has gone to it.
    pub(crate) fn sent(&self) -> Traffic {
        Traffic { packets: self.packets_sent, octets: self.sent }
    }

    /// Whether others are to be told of it again.
    pub(super) fn is_to_be_told(&self, now: Duration) -> bool {
        self.standing == Standing::Proven && seconds(now) >= self.tell_at
    }

    /// Whether so many octets may go to the client; counts them.
    pub(crate) fn spend(&mut self, octets: usize) -> bool {
        let sent = self.sent.saturating_add(octets as u64);
        let may = self.standing > Standing::Unknown || sent <= self.received;
        if may {
            self.sent = sent;
            self.packets_sent = self.packets_sent.saturating_add(1);
        }
        may
    }

    pub(super) fn is_over(&self, bounds: &Bounds, now: Duration) -> bool {
        let silent = seconds(now).saturating_sub(self.heard);
        let limit = if self.standing == Standing::Proven { bounds.proven } else { bounds.unproven };
        silent > seconds(limit)
    }

    pub(crate) fn client(&self) -> SocketAddr {
        client_of(&self.header)
    }

    pub(crate) fn door(&self) -> u16 {
        u16::from_be_bytes([self.header[22], self.header[23]])
    }

    pub(crate) fn key(&self) -> &SessionKey {
        &self.key
    }

    pub(super) fn reseal(&mut self, id: FlowId, return_port: u16, session: SessionHandle) {
        self.header = header(self.client(), self.door(), return_port, id, session).seal(&self.key);
    }
}

fn tag_of(octets: &[u8; HEADER]) -> &[u8; TAG] {
    octets.last_chunk().unwrap_or_else(|| unreachable!("a header is longer than its tag"))
}

fn header(client: SocketAddr, door: u16, return_port: u16, flow: FlowId, session: SessionHandle) -> Header {
    Header { direction: Direction::ToWorker, standing: Standing::Unknown, return_port, client, door, flow, session }
}

/// The table counts whole seconds: it forgets after many.
pub(super) fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a relay with 100 000 clients needs: with the lists and the index at their fullest, under 200 octets a flow.
    #[test]
    fn a_flow_is_small() {
        assert_eq!(size_of::<Option<Flow>>(), 128);
        // An index has two to four places of 8 octets for each.
        assert!(size_of::<Option<Flow>>() + size_of::<u32>() + 4 * 8 <= 170);
        assert_eq!(std::mem::offset_of!(Flow, key), 64, "what a client's packet needs is one line");
    }
}
