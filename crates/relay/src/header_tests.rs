use proptest::prelude::*;

use super::*;

const KEY: SessionKey = SessionKey::from_bytes(*b"a key of a table");

fn header() -> impl Strategy<Value = Header> {
    let ip = prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)];
    let directions = prop_oneof![Just(Direction::ToWorker), Just(Direction::ToClient)];
    let standings = prop_oneof![Just(Standing::Unknown), Just(Standing::Confirmed), Just(Standing::Proven)];
    let numbers = (any::<u16>(), any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>());
    (directions, standings, ip, numbers).prop_map(
        |(direction, standing, ip, (port, door, return_port, flow, session))| {
            let client = SocketAddr::new(ip.to_canonical(), port);
            let (flow, session) = (FlowId(flow), SessionHandle(session));
            Header { direction, standing, return_port, client, door, flow, session }
        },
    )
}

/// What is on the wire between programs of two releases does not change by accident.
#[test]
fn the_format_is_this() {
    let header = Header {
        direction: Direction::ToClient,
        standing: Standing::Proven,
        return_port: 40_001,
        client: "192.0.2.7:5004".parse().unwrap(),
        door: 3478,
        flow: FlowId(0x0102_0304),
        session: SessionHandle(7),
    };
    let text: String = header.seal(&KEY).iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(&text[..64], "e0029c4100000000000000000000ffffc0000207138c0d960102030400000007");
    // The tag is SipHash-2-4 of the 32 octets above, as the reference implementation computes it.
    assert_eq!(text.len(), 80);
    let (sealed, rest) =
        Sealed::split(&header.seal(&KEY)).map(|(sealed, rest)| (sealed.open(&KEY), rest.len())).unwrap();
    assert_eq!((sealed, rest), (Some(header), 0));
}

#[test]
fn what_is_none() {
    let header = Header {
        direction: Direction::ToWorker,
        standing: Standing::Unknown,
        return_port: 1,
        client: "[2001:db8::1]:9".parse().unwrap(),
        door: 2,
        flow: FlowId::default(),
        session: SessionHandle::default(),
    };
    let octets = header.seal(&KEY);
    assert_eq!(Sealed::split(&octets[..39]).unwrap_err(), NotAHeader::Short);
    for first in (0..=255).filter(|first| ![TO_WORKER, TO_CLIENT].contains(first)) {
        let mut other = octets;
        other[0] = first;
        assert_eq!(Sealed::split(&other).unwrap_err(), NotAHeader::Form);
    }
    let mut other = octets;
    other[1] = 3;
    assert_eq!(Sealed::split(&other).unwrap_err(), NotAHeader::Marks);
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(header in header(), datagram in proptest::collection::vec(any::<u8>(), 0..64)) {
        let sent = [&header.seal(&KEY)[..], &datagram].concat();
        let (sealed, rest) = Sealed::split(&sent).unwrap();
        prop_assert_eq!((sealed.open(&KEY), sealed.said(), rest), (Some(header), &header, &datagram[..]));
        prop_assert_eq!(sealed.open(&SessionKey::from_bytes([0; 16])), None);
    }

    #[test]
    fn whoever_changes_a_bit_is_found(header in header(), bit in 0..HEADER * 8) {
        let mut octets = header.seal(&KEY);
        octets[bit / 8] ^= 1 << (bit % 8);
        if let Ok((sealed, _)) = Sealed::split(&octets) {
            prop_assert_eq!(sealed.open(&KEY), None);
        }
    }

    #[test]
    fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Sealed::split(&octets).map(|(sealed, _)| sealed.open(&KEY));
    }
}
