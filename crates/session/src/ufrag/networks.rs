//! Where workers are: no ufrag leads anywhere else.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::network::Network;

/// The networks of an installation's workers, and how much of an IPv6 address of theirs a ufrag has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerNetworks {
    ranges: Box<[Network]>,
    prefix: Option<WorkerPrefix>,
}

/// Networks that nothing could be minted for as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetworks {
    /// No range: every ufrag would be refused.
    #[error("must name at least one range of addresses")]
    None,
    /// More than [`WorkerNetworks::MAX`].
    #[error("must be at most {} ranges of addresses", WorkerNetworks::MAX)]
    TooMany,
    /// An IPv6 range, and nothing or something else said of the prefix.
    #[error("an IPv6 range needs a prefix that it has addresses under")]
    Prefix,
    /// A prefix, and no IPv6 range.
    #[error("a prefix needs an IPv6 range")]
    NoRange,
}

impl WorkerNetworks {
    /// The most ranges. They are compared one after the other for each new flow; an installation has one or two.
    pub const MAX: usize = 64;

    /// Networks, and the prefix that all workers with IPv6 addresses have in common.
    ///
    /// # Errors
    /// [`InvalidNetworks`].
    pub fn new(ranges: Vec<Network>, prefix: Option<WorkerPrefix>) -> Result<Self, InvalidNetworks> {
        match ranges.len() {
            0 => return Err(InvalidNetworks::None),
            1..=Self::MAX => {}
            _ => return Err(InvalidNetworks::TooMany),
        }
        let mut of_v6 = ranges.iter().filter(|range| range.base().is_ipv6()).peekable();
        match prefix {
            None if of_v6.peek().is_some() => return Err(InvalidNetworks::Prefix),
            Some(_) if of_v6.peek().is_none() => return Err(InvalidNetworks::NoRange),
            Some(prefix) if !of_v6.all(|range| prefix.overlaps(range)) => return Err(InvalidNetworks::Prefix),
            _ => {}
        }
        Ok(Self { ranges: ranges.into(), prefix })
    }

    /// Whether a worker may have this address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(address))
    }

    /// The prefix of its IPv6 addresses, if it has any.
    #[must_use]
    pub const fn prefix(&self) -> Option<WorkerPrefix> {
        self.prefix
    }
}

/// What the IPv6 addresses of all workers begin with: 48 to 120 bits, whole bytes. A ufrag carries the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerPrefix {
    base: Ipv6Addr,
    bits: u8,
}

/// A text that is no such prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a prefix of IPv6 addresses such as fd00:10:244::/64: 48 to 120 bits, whole bytes, and zeros after them"
)]
pub struct InvalidPrefix;

impl FromStr for WorkerPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let range: Network = text.parse().map_err(|_| InvalidPrefix)?;
        let IpAddr::V6(base) = range.base() else { return Err(InvalidPrefix) };
        let prefix = Self { base, bits: range.bits() };
        if !(48..=120).contains(&prefix.bits) || !prefix.bits.is_multiple_of(8) || base.to_bits() & prefix.rest() != 0 {
            return Err(InvalidPrefix);
        }
        // Such an address means something on its own link only, or names no single host.
        if base.is_unicast_link_local() || base.is_multicast() {
            return Err(InvalidPrefix);
        }
        Ok(prefix)
    }
}

impl WorkerPrefix {
    /// The bits of an address that it leaves open: 1 to 10 bytes.
    pub(super) const fn rest(self) -> u128 {
        u128::MAX >> self.bits
    }

    /// What a ufrag has to carry of an address; `None` of one with another prefix.
    pub(super) fn rest_of(self, address: Ipv6Addr) -> Option<u128> {
        let bits = address.to_bits();
        (bits & !self.rest() == self.base.to_bits()).then_some(bits & self.rest())
    }

    /// The address with these last bits.
    pub(super) fn with(self, rest: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.base.to_bits() | rest & self.rest())
    }

    /// What makes it another prefix than any other, as bytes.
    pub(super) fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [self.bits; 17];
        for (byte, of_base) in bytes.iter_mut().zip(self.base.octets()) {
            *byte = of_base;
        }
        bytes
    }

    /// Whether some address is of both.
    fn overlaps(self, range: &Network) -> bool {
        let IpAddr::V6(base) = range.base() else { return false };
        range.contains(self.base.into()) || self.rest_of(base).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_whole_bytes() {
        for good in ["fd00:10:244::/48", "fd00:10:244::/64", "2001:db8::/120", "2001:db8::aa00/120"] {
            assert!(good.parse::<WorkerPrefix>().is_ok(), "{good}");
        }
        for wrong in [
            "",
            "fd00::",
            "fd00::/",
            "fd00::/40",
            "fd00::/52",
            "fd00::/128",
            "fd00::/129",
            "fd00::1/64",
            "10.0.0.0/8",
            "::ffff:10.0.0.0/104",
            "fe80::/64",
            "ff02::/64",
            "fd00::/+64",
        ] {
            assert_eq!(wrong.parse::<WorkerPrefix>(), Err(InvalidPrefix), "{wrong}");
        }
    }

    #[test]
    fn networks_and_prefix_go_together() {
        #[track_caller]
        fn check(ranges: &[&str], prefix: Option<&str>, expected: Result<(), InvalidNetworks>) {
            let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
            let networks = WorkerNetworks::new(ranges, prefix.map(|prefix| prefix.parse().unwrap()));
            assert_eq!(networks.map(|_| ()), expected);
        }
        check(&["10.0.0.0/8"], None, Ok(()));
        check(&["10.0.0.0/8", "fd00:10:244::/64"], Some("fd00:10:244::/64"), Ok(()));
        check(&["fd00::/8"], Some("fd00:10:244::/64"), Ok(()));
        check(&["fd00:10:244::7", "fd00:10:244::1:0/112"], Some("fd00:10:244::/64"), Ok(()));
        check(&[], None, Err(InvalidNetworks::None));
        check(&["10.0.0.0/8"; 64], None, Ok(()));
        check(&["10.0.0.0/8"; 65], None, Err(InvalidNetworks::TooMany));
        check(&["10.0.0.0/8", "fd00::/64"], None, Err(InvalidNetworks::Prefix));
        check(&["fd00::/64", "fd01::/64"], Some("fd00::/64"), Err(InvalidNetworks::Prefix));
        check(&["10.0.0.0/8"], Some("fd00::/64"), Err(InvalidNetworks::NoRange));
    }
}
