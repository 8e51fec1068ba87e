//! The public addresses at a relay's port.
//!
//! A socket of all addresses sends from whichever the kernel's routes name. Where clients are told of one address of a family that
//! is what they have asked, or some gateway puts it back. Where they are told of two, and packets come to both as they are, an
//! answer has to come from the one that was asked: ICE drops any other. A client may ask both from one port, so that they are two
//! flows; and since the number of a door is all that a flow, a header and another relay have of it, each address gets one.

use std::net::{IpAddr, SocketAddr};

/// More than a machine has; and so many have numbers of their own, whatever they are.
const MAX_DOORS: usize = 1 << 14;

/// The addresses that answers come from, each by its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doors {
    /// In the order of their addresses; none if the kernel may choose.
    of: Vec<(IpAddr, u16)>,
}

impl Doors {
    /// Of a relay that listens there and whose clients are told of these addresses: those that are not alone in their family, if it
    /// listens to all. Relays with the same addresses have the same numbers, whatever the order in which they were told.
    #[must_use]
    pub fn new(listen: SocketAddr, advertised: impl IntoIterator<Item = IpAddr>) -> Self {
        if !listen.ip().is_unspecified() {
            return Self::default();
        }
        let mut ips: Vec<IpAddr> = advertised.into_iter().map(|ip| ip.to_canonical()).collect();
        ips.sort_unstable();
        ips.dedup();
        let all = ips.clone();
        ips.retain(|ip| all.iter().filter(|other| other.is_ipv4() == ip.is_ipv4()).count() > 1);
        let mut of: Vec<(IpAddr, u16)> = Vec::with_capacity(ips.len());
        for ip in ips.into_iter().take(MAX_DOORS) {
            let mut number = number(ip);
            // 0 is no port, and the port is the door of what came to any other address.
            while number == 0 || number == listen.port() || of.iter().any(|(_, taken)| *taken == number) {
                number = number.wrapping_add(1);
            }
            of.push((ip, number));
        }
        Self { of }
    }

    /// Whether the kernel is to be asked where packets came to.
    #[must_use]
    pub fn are_several(&self) -> bool {
        !self.of.is_empty()
    }

    /// The number of the door that a packet came to; `port` is that of all others.
    #[must_use]
    pub fn number(&self, arrived_at: Option<IpAddr>, port: u16) -> u16 {
        self.of.iter().find(|(ip, _)| Some(*ip) == arrived_at).map_or(port, |(_, number)| *number)
    }

    /// What answers by this door come from, if that is not for the kernel to choose.
    #[must_use]
    pub fn address(&self, number: u16) -> Option<IpAddr> {
        self.of.iter().find(|(_, of)| *of == number).map(|(ip, _)| *ip)
    }
}

/// FNV-1a, folded: the same at every relay.
fn number(ip: IpAddr) -> u16 {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let hash = octets.iter().fold(0x811c_9dc5, |hash: u32, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193));
    (hash >> 16 ^ hash) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(listen: &str, advertised: &[&str]) -> Doors {
        Doors::new(listen.parse().unwrap(), advertised.iter().map(|ip| ip.parse().unwrap()))
    }

    #[test]
    fn addresses_that_are_alone_are_the_kernels_to_choose() {
        for (listen, advertised) in [
            ("0.0.0.0:3478", &["192.0.2.1"][..]),
            ("0.0.0.0:3478", &["192.0.2.1", "192.0.2.1"]),
            ("[::]:3478", &["192.0.2.1", "2001:db8::1"]),
            ("192.0.2.1:3478", &["192.0.2.1", "192.0.2.2"]),
        ] {
            assert!(!doors(listen, advertised).are_several(), "{listen} {advertised:?}");
        }
    }

    #[test]
    fn each_has_a_number_that_is_the_same_everywhere() {
        let ips = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
        let ours = doors("[::]:3478", &ips);
        assert_eq!(ours, doors("[::]:3478", &["2001:db8::1", "192.0.2.2", "192.0.2.1", "::ffff:192.0.2.2"]));
        let arrived = |ip: &str| ours.number(Some(ip.parse().unwrap()), 3478);
        let [one, two] = [arrived(ips[0]), arrived(ips[1])];
        assert!(one != two && ![one, two].contains(&3478));
        assert_eq!([one, two].map(|door| ours.address(door)), [ips[0], ips[1]].map(|ip| Some(ip.parse().unwrap())));
        // The only one of its family, a node's own, and what nobody said anything of.
        assert_eq!([arrived(ips[2]), arrived("10.0.0.7"), ours.number(None, 3478)], [3478; 3]);
        assert_eq!(ours.address(3478), None);
    }

    #[test]
    fn no_two_doors_have_one_number() {
        let ips = (0..=255).flat_map(|a| (0..4).map(move |b| IpAddr::from([192, 0, b, a])));
        let Doors { of } = Doors::new(([0; 4], 3478).into(), ips);
        let numbers: std::collections::HashSet<u16> = of.iter().map(|(_, number)| *number).collect();
        assert!(numbers.len() == 4 * 256 && !numbers.contains(&0) && !numbers.contains(&3478));
    }
}
