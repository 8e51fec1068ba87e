//! What somebody says of the path to a client, in the network's name.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket as Plain};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use streamfleet_net::{Fragmentation, SocketOptions, UdpSocket};
use streamfleet_tests::Namespace;

/// The smallest that Linux believes in (`net.ipv4.route.min_pmtu`).
const SMALL: u16 = 552;
const HOME: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const AWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let sum: u32 =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    !((sum & 0xFFFF) + (sum >> 16)) as u16
}

/// "Fragmentation needed" (RFC 792, with the MTU of RFC 1191) about a datagram between these two.
fn too_large(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut about = vec![0x45, 0, 4, 0xD0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    about.extend(HOME.octets());
    about.extend(AWAY.octets());
    let header = checksum(&about).to_be_bytes();
    about[10..12].copy_from_slice(&header);
    about.extend(from.port().to_be_bytes());
    about.extend(to.port().to_be_bytes());
    about.extend(1_200_u16.to_be_bytes());
    about.extend([0, 0]);
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(SMALL.to_be_bytes());
    message.extend(about);
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    message
}

/// A forged message that the path to a client has become small is believed by the kernel, for ten minutes. Media goes on.
#[test]
fn nobodys_word_makes_a_path_small() -> Result<()> {
    let site = Namespace::new("path")?;
    for address in [HOME, AWAY] {
        site.ip(&format!("addr add {address}/32 dev lo"))?;
    }
    let (ours, client) = site.run(|| -> Result<_> {
        let options = SocketOptions { fragmentation: Fragmentation::Forbidden, ..SocketOptions::default() };
        let ours = UdpSocket::bind((HOME, 0).into(), options)?;
        let client = Plain::bind((AWAY, 0))?;
        client.set_read_timeout(Some(Duration::from_secs(5)))?;
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        let forged = too_large(ours.local_addr(), client.local_addr()?);
        raw.send_to(&forged, &SocketAddr::from((HOME, 0)).into())?;
        Ok((ours, client))
    })?;
    let until = Instant::now() + Duration::from_secs(5);
    let small = format!("mtu {SMALL}");
    while !site.ip(&format!("route get {AWAY} from {HOME}"))?.contains(&small) {
        ensure!(Instant::now() < until, "the kernel has not believed the forged message: nothing is tested");
        std::thread::sleep(Duration::from_millis(10));
    }
    ours.send_to(&[7; 1_200], client.local_addr()?)?;
    let mut buffer = [0; 2_048];
    let (length, _) = client.recv_from(&mut buffer)?;
    assert_eq!(length, 1_200);
    Ok(())
}
