use streamfleet_relay::FlowId;

use super::*;

const KEY: SessionKey = SessionKey::from_bytes([1; 16]);

fn client(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 5000))
}

fn relay(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 40_000))
}

fn header(n: u8) -> Header {
    Header {
        direction: Direction::ToWorker,
        standing: Standing::Unknown,
        return_port: 40_007,
        client: client(n),
        door: 3478,
        flow: FlowId(n.into()),
        session: SessionHandle::default(),
    }
}

impl Outlet {
    /// Anything comes.
    fn gets(&mut self, by: SocketAddr, header: &Header, key: &SessionKey) -> Option<SocketAddr> {
        let octets = header.seal(key);
        self.arrived(0, by, &Sealed::split(&octets).unwrap().0)
    }

    /// Something authentic comes.
    fn hears(&mut self, by: SocketAddr, header: &Header, key: &SessionKey) -> Option<SocketAddr> {
        let client = self.gets(by, header, key);
        self.authentic();
        client
    }

    /// What is pushed to a client, as its relay gets it.
    fn sends(&mut self, n: u8) -> Option<(SocketAddr, Header, Vec<u8>)> {
        self.clear();
        if !self.push_slice(client(n), b"datagram") {
            assert!(self.is_empty());
            return None;
        }
        let (to, sent) = self.iter().next().unwrap();
        let (sealed, datagram) = Sealed::split(sent).unwrap();
        Some((to, sealed.open(&KEY).unwrap(), datagram.to_vec()))
    }
}

fn relayed() -> Outlet {
    let mut out = Outlet::new();
    out.open(0, KEY);
    out.turn(0);
    out
}

#[test]
fn a_session_without_relays_sends_as_ever() {
    let mut out = Outlet::new();
    out.turn(3);
    assert!(!out.is_relayed(3) && out.push_slice(client(1), b"datagram"));
    assert_eq!(out.iter().collect::<Vec<_>>(), [(client(1), &b"datagram"[..])]);
}

#[test]
fn what_goes_to_a_client_goes_by_the_relay_that_it_came_by_last() {
    let mut out = relayed();
    assert_eq!(out.sends(1), None, "it has come by none");
    assert_eq!(out.hears(relay(1), &header(1), &KEY), Some(client(1)));
    let (to, sent, datagram) = out.sends(1).unwrap();
    assert_eq!((to, &datagram[..]), (SocketAddr::from(([10, 0, 0, 1], 40_007)), &b"datagram"[..]));
    let back = Header { direction: Direction::ToClient, session: SessionHandle(1), ..header(1) };
    assert_eq!(sent, back);
    assert_eq!(out.hears(relay(2), &Header { flow: FlowId(9), ..header(1) }, &KEY), Some(client(1)));
    assert_eq!(out.sends(1).map(|(to, sent, _)| (to.ip(), sent.flow)), Some((relay(2).ip(), FlowId(9))));
    // The same header by another relay is another way too.
    assert_eq!(out.hears(relay(3), &Header { flow: FlowId(9), ..header(1) }, &KEY), Some(client(1)));
    assert_eq!(out.sends(1).map(|(to, ..)| to.ip()), Some(relay(3).ip()));
    out.close(0);
    assert!(!out.is_relayed(0));
}

#[test]
fn a_header_that_was_not_sealed_for_the_session_changes_nothing() {
    let mut out = relayed();
    out.hears(relay(1), &header(1), &KEY);
    assert_eq!(out.hears(relay(2), &header(1), &SessionKey::from_bytes([2; 16])), None);
    assert_eq!(out.hears(relay(2), &Header { direction: Direction::ToClient, ..header(1) }, &KEY), None, "its own");
    assert_eq!(out.sends(1).map(|(to, ..)| to.ip()), Some(relay(1).ip()));
}

/// Whoever knows a client's address can have any relay bring something in its name.
#[test]
fn a_way_waits_for_something_authentic() {
    let mut out = relayed();
    let by = |out: &mut Outlet| out.sends(1).map(|(to, ..)| to.ip());
    assert_eq!(out.gets(relay(1), &header(1), &KEY), Some(client(1)));
    assert_eq!(by(&mut out), None, "nothing of the client's has come");
    out.hears(relay(1), &header(1), &KEY);
    out.stands(client(1), Standing::Proven);
    let elsewhere = Header { flow: FlowId(9), ..header(1) };
    assert_eq!(out.gets(relay(2), &elsewhere, &KEY), Some(client(1)));
    assert_eq!(by(&mut out), Some(relay(1).ip()));
    // The client's next packet comes as ever, and says nothing for the one before it.
    assert_eq!(out.hears(relay(1), &header(1), &KEY), Some(client(1)));
    assert_eq!(by(&mut out), Some(relay(1).ip()));
    // Another session's authentic packet does not, either.
    out.open(1, KEY);
    out.gets(relay(2), &elsewhere, &KEY);
    out.turn(1);
    out.authentic();
    out.turn(0);
    assert_eq!(by(&mut out), Some(relay(1).ip()));
    out.authentic();
    assert_eq!(out.sends(1).map(|(to, sent, _)| (to.ip(), sent.standing)), Some((relay(2).ip(), Standing::Proven)));
}

#[test]
fn relays_are_told_what_is_known_of_a_client() {
    let mut out = relayed();
    out.stands(client(1), Standing::Proven);
    out.hears(relay(1), &header(1), &KEY);
    let said = |out: &mut Outlet| out.sends(1).map(|(_, sent, _)| sent.standing);
    assert_eq!(said(&mut out), Some(Standing::Unknown), "nobody was there to be known");
    for standing in [Standing::Confirmed, Standing::Proven, Standing::Confirmed] {
        out.stands(client(1), standing);
        assert_eq!(said(&mut out), Some(standing.max(out.ways[0].as_ref().unwrap().ways[0].standing)));
    }
    assert_eq!(said(&mut out), Some(Standing::Proven));
    out.hears(relay(2), &header(1), &KEY);
    assert_eq!(said(&mut out), Some(Standing::Proven), "by whichever relay it comes");
}

#[test]
fn there_are_as_many_ways_as_a_session_has_addresses() {
    let mut out = relayed();
    out.hears(relay(1), &header(0), &KEY);
    out.stands(client(0), Standing::Confirmed);
    for n in 1..=255 {
        assert_eq!(out.hears(relay(1), &header(n), &KEY), Some(client(n)));
        assert!(out.ways[0].as_ref().unwrap().ways.len() <= MAX_ADDRESSES);
    }
    assert!(out.sends(0).is_some() && out.sends(255).is_some() && out.sends(1).is_none());
}
