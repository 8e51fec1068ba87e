//! Socket addresses in the kernel's form.

use std::mem;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The family of a socket, which decides how addresses are written for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    /// An IPv6 socket that also carries IPv4, as mapped addresses.
    DualStack,
}

/// Room for an IPv4 or IPv6 address as the kernel writes it.
///
/// Zeroed memory is a valid (unspecified) value; the family is read before either form is.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union RawAddress {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    pub(crate) const SIZE: libc::socklen_t = size_of::<RawAddress>() as libc::socklen_t;

    pub(crate) fn zeroed() -> Self {
        // SAFETY: all members are plain integers, for which all-zero is a value.
        unsafe { mem::zeroed() }
    }

    /// `None` if a socket of this family cannot send to the address.
    pub(crate) fn new(address: SocketAddr, family: Family) -> Option<(Self, libc::socklen_t)> {
        let mut raw = Self::zeroed();
        match (family, address) {
            (Family::V4, SocketAddr::V4(to)) => {
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: to.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
                    sin_zero: [0; 8],
                };
                Some((raw, size_of::<libc::sockaddr_in>() as libc::socklen_t))
            }
            (Family::V4, SocketAddr::V6(_)) => None,
            (Family::DualStack, to) => {
                let (ip, flow, scope) = match to {
                    SocketAddr::V4(to) => (to.ip().to_ipv6_mapped(), 0, 0),
                    SocketAddr::V6(to) => (*to.ip(), to.flowinfo(), to.scope_id()),
                };
                raw.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: to.port().to_be(),
                    sin6_flowinfo: flow,
                    sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    sin6_scope_id: scope,
                };
                Some((raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t))
            }
        }
    }

    /// The address, with IPv4-mapped ones as plain IPv4; `None` for a family that is neither.
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        // SAFETY: both forms begin with the family, and any bits make a valid integer.
        match i32::from(unsafe { self.family }) {
            libc::AF_INET => {
                // SAFETY: the family says so, and any bits make valid integers.
                let from = unsafe { self.v4 };
                let ip = from.sin_addr.s_addr.to_ne_bytes();
                Some(SocketAddr::V4(SocketAddrV4::new(ip.into(), u16::from_be(from.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says so, and any bits make valid integers.
                let from = unsafe { self.v6 };
                let (ip, port) = (Ipv6Addr::from(from.sin6_addr.s6_addr), u16::from_be(from.sin6_port));
                Some(match ip.to_ipv4_mapped() {
                    Some(v4) => SocketAddr::V4(SocketAddrV4::new(v4, port)),
                    None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, from.sin6_scope_id)),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, family: Family, expected: Option<&str>) {
        let address: SocketAddr = address.parse().unwrap();
        let back = RawAddress::new(address, family).map(|(raw, _)| raw.get().unwrap());
        assert_eq!(back, expected.map(|a| a.parse().unwrap()), "{address} over {family:?}");
    }

    #[test]
    fn addresses_survive_the_way_through_the_kernels_form() {
        check("192.0.2.1:5000", Family::V4, Some("192.0.2.1:5000"));
        check("192.0.2.1:5000", Family::DualStack, Some("192.0.2.1:5000"));
        check("[::ffff:192.0.2.1]:5000", Family::DualStack, Some("192.0.2.1:5000"));
        check("[2001:db8::1]:65535", Family::DualStack, Some("[2001:db8::1]:65535"));
        check("[fe80::1%3]:1", Family::DualStack, Some("[fe80::1%3]:1"));
        check("[2001:db8::1]:5000", Family::V4, None);
        assert_eq!(RawAddress::zeroed().get(), None);
    }
}
