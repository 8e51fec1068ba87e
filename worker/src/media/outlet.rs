//! Datagrams on their way out, and by which relay each goes.
//!
//! A session's client may be behind a relay. Then what comes from it has a header, sealed with the session's key, which says who
//! the client is and where the answer goes; and what goes to it has one. The relay may change from packet to packet: the
//! one that brought the client's last packet is the way back.
//!
//! A header says by which relay a packet came that has this client as its source. Who has sent it, the header does not say, since
//! anybody can put that source on a packet and have another relay carry it. So a new way waits until what came by it has been
//! found authentic: a check, or an answer to one of ours, with valid integrity; and once the session is connected SRTP, SRTCP and
//! records of DTLS that are sealed with its keys. Before that, checks alone find the way; a handshake in plain text does not. One
//! packet is enough, and nothing is asked back.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use streamfleet_net::Outbox;
use streamfleet_relay::{Direction, HEADER, Header, Sealed, SessionHandle, Standing};
use streamfleet_session::ufrag::SessionKey;

use super::addresses::MAX_ADDRESSES;

/// What leaves a loop in one turn, and the ways of the sessions that have relays.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    outbox: Outbox,
    /// By session; of one that has no relay there is nothing, or nothing in it.
    ways: Vec<Option<Ways>>,
    /// Whose turn it is.
    session: u32,
    /// How the latest datagram came, if that is not known to be the client's way yet.
    pending: Option<Pending>,
}

/// One session's.
#[derive(Debug)]
struct Ways {
    key: SessionKey,
    /// The oldest first; as many as a session has addresses.
    ways: Vec<Way>,
}

/// A way that nothing authentic has come by.
#[derive(Debug)]
struct Pending {
    session: u32,
    said: Header,
    relay: SocketAddr,
    came: [u8; HEADER],
}

#[derive(Debug)]
struct Way {
    client: SocketAddr,
    relay: SocketAddr,
    /// As it came last: one that is the same needs no other proof.
    came: [u8; HEADER],
    /// What the session says of the client.
    standing: Standing,
    /// What goes before whatever goes there.
    goes: [u8; HEADER],
}

impl Outlet {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A session begins whose client comes by relays.
    pub(crate) fn open(&mut self, session: u32, key: SessionKey) {
        let place = session as usize;
        if self.ways.len() <= place {
            self.ways.resize_with(place + 1, || None);
        }
        self.ways[place] = Some(Ways { key, ways: Vec::new() });
    }

    /// It is over.
    pub(crate) fn close(&mut self, session: u32) {
        if let Some(ways) = self.ways.get_mut(session as usize) {
            *ways = None;
        }
    }

    /// Whether a session's client comes by relays, and by nothing else.
    pub(crate) fn is_relayed(&self, session: u32) -> bool {
        self.ways.get(session as usize).is_some_and(Option::is_some)
    }

    /// What is pushed from now on is this session's.
    pub(crate) fn turn(&mut self, session: u32) {
        self.session = session;
    }

    /// Something came for a session by the relay at this address. Who is said to have sent it, if the header was sealed for the
    /// session. What goes there goes as before, until the session has found [what came authentic](Self::authentic).
    pub(crate) fn arrived(&mut self, session: u32, from: SocketAddr, sealed: &Sealed<'_>) -> Option<SocketAddr> {
        self.pending = None;
        let Ways { key, ways } = self.ways.get(session as usize)?.as_ref()?;
        let said = sealed.said();
        let relay = SocketAddr::new(from.ip(), said.return_port);
        let is_known = |way: &Way| way.client == said.client && way.came == *sealed.octets() && way.relay == relay;
        if ways.iter().any(is_known) {
            return Some(said.client);
        }
        let said = sealed.open(key).filter(|said| said.direction == Direction::ToWorker)?;
        let client = said.client;
        self.pending = Some(Pending { session, said, relay, came: *sealed.octets() });
        Some(client)
    }

    /// What came last was sealed by the client of the session whose turn it is, and is no repetition: what goes to where it came
    /// from goes the way that it came.
    pub(crate) fn authentic(&mut self) {
        let session = self.session;
        let Some(Pending { said, relay, came, .. }) = self.pending.take_if(|pending| pending.session == session) else {
            return;
        };
        let Some(Some(Ways { key, ways })) = self.ways.get_mut(session as usize) else { return };
        let known = ways.iter_mut().find(|way| way.client == said.client);
        let standing = known.as_ref().map_or(Standing::Unknown, |way| way.standing);
        let goes = seal(&said, session, standing, key);
        let way = Way { client: said.client, relay, came, standing, goes };
        match known {
            Some(known) => *known = way,
            None => {
                if ways.len() == MAX_ADDRESSES {
                    // Who has shown that he is there is worth more than who has not.
                    let least = ways.iter().map(|way| way.standing).min();
                    let oldest = ways.iter().position(|way| Some(way.standing) == least).unwrap_or(0);
                    ways.remove(oldest);
                }
                ways.push(way);
            }
        }
    }

    /// The session whose turn it is has seen that of a client. Relays are told with whatever goes there next.
    pub(crate) fn stands(&mut self, client: SocketAddr, standing: Standing) {
        let session = self.session;
        let Some(Some(Ways { key, ways })) = self.ways.get_mut(session as usize) else { return };
        if let Some(way) = ways.iter_mut().find(|way| way.client == client && way.standing < standing)
            && let Ok((came, _)) = Sealed::split(&way.came)
        {
            way.standing = standing;
            way.goes = seal(came.said(), session, standing, key);
        }
    }

    /// [`Outbox::push`], by the way that the client came last. False where a session has relays and the client came by none.
    pub(crate) fn push(&mut self, to: SocketAddr, fill: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let Some(Some(Ways { ways, .. })) = self.ways.get(self.session as usize) else {
            return self.outbox.push(to, fill);
        };
        let Some(way) = ways.iter().find(|way| way.client == to) else { return false };
        // A relay stands for all of its clients: only those of one session keep their order, so that many go as one run.
        self.outbox.push_in_order(self.session, way.relay, |octets| {
            octets.extend_from_slice(&way.goes);
            let start = octets.len();
            fill(octets) && octets.len() > start
        })
    }

    /// [`Outbox::push_slice`], likewise.
    pub(crate) fn push_slice(&mut self, to: SocketAddr, datagram: &[u8]) -> bool {
        self.push(to, |octets| {
            octets.extend_from_slice(datagram);
            true
        })
    }
}

/// Everything that has no address of its own is as it is for the outbox.
impl Deref for Outlet {
    type Target = Outbox;

    fn deref(&self) -> &Outbox {
        &self.outbox
    }
}

impl DerefMut for Outlet {
    fn deref_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}

fn seal(came: &Header, session: u32, standing: Standing, key: &SessionKey) -> [u8; HEADER] {
    // 0 is nobody's name.
    let session = SessionHandle(session + 1);
    Header { direction: Direction::ToClient, standing, session, ..*came }.seal(key)
}

#[cfg(test)]
#[path = "outlet_tests.rs"]
mod tests;
