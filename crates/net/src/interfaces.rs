//! The addresses of this machine.

use crate::address::RawAddress;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::ptr;

/// A host with more addresses than this has them for its containers, and no client is helped by that many candidates.
const MAX_ADDRESSES: usize = 64;

/// Unicast addresses of the interfaces that are up, loopback included, link-local ones left out, in the kernel's order
/// and without duplicates. At most 64.
///
/// Link-local addresses are left out because they mean nothing to a peer without a zone, and candidates carry none.
///
/// # Errors
/// The kernel's, if the interfaces cannot be listed.
pub fn interfaces() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `list` is a valid place to write a pointer to.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let list = List(list);
    let mut found = Vec::new();
    let mut next = list.0;
    // SAFETY: `next` is null or points to a live entry of the list, which `list` keeps until the end of this function.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let up = entry.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
        let Some(ip) = up.then(|| address(entry)).flatten() else { continue };
        if is_usable(ip) && !found.contains(&ip) && found.len() < MAX_ADDRESSES {
            found.push(ip);
        }
    }
    Ok(found)
}

struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the pointer came from getifaddrs and is freed once.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

fn address(entry: &libc::ifaddrs) -> Option<IpAddr> {
    // SAFETY: an interface without an address has a null pointer here, others a valid sockaddr.
    let family = i32::from(unsafe { entry.ifa_addr.as_ref() }?.sa_family);
    let size = match family {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    let mut raw = RawAddress::zeroed();
    // SAFETY: the family says that `size` octets are there, and `raw` has room for the larger of the two.
    unsafe { ptr::copy_nonoverlapping(entry.ifa_addr.cast::<u8>(), (&raw mut raw).cast::<u8>(), size) };
    raw.get().map(|a| a.ip())
}

fn is_usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => is_link_local_v6(ip),
    };
    !(link_local || ip.is_unspecified() || ip.is_multicast())
}

fn is_link_local_v6(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_loopback_address() {
        let found = interfaces().unwrap();
        assert!(found.contains(&IpAddr::from([127, 0, 0, 1])), "{found:?}");
        assert!(found.iter().all(|ip| is_usable(*ip)));
    }

    #[test]
    fn link_local_and_group_addresses_are_left_out() {
        let check = |ip: &str, expected| assert_eq!(is_usable(ip.parse().unwrap()), expected, "{ip}");
        check("192.0.2.1", true);
        check("127.0.0.1", true);
        check("169.254.3.4", false);
        check("224.0.0.1", false);
        check("0.0.0.0", false);
        check("2001:db8::1", true);
        check("fd00::2", true);
        check("fe80::1", false);
        check("febf::1", false);
        check("fec0::1", true);
        check("ff02::1", false);
        check("::", false);
    }
}
