//! What goes beside a datagram, and comes beside one: control messages (`cmsg(3)`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::Family;
use crate::slab::Control;

/// What the kernel says of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The length of the datagrams in a run (`UDP_GRO`).
    pub(crate) segment: Option<usize>,
    /// Which of this machine's addresses it was sent to (`IP_PKTINFO`, `IPV6_PKTINFO`).
    pub(crate) arrived_at: Option<IpAddr>,
}

/// Reads the control messages that the kernel has left for `header` in `_control`.
pub(crate) fn read(header: &libc::msghdr, _control: &Control) -> Said {
    let mut said = Said::default();
    // SAFETY: the header's control pointer and length describe `_control`, as the kernel left it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: not null, so within the control buffer and whole.
        let message = unsafe { next.read_unaligned() };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: this control message's data is one integer.
                let size = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                said.segment = usize::try_from(size).ok().filter(|s| *s > 0);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: this control message's data is of this type.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                said.arrived_at = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: this control message's data is of this type.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                said.arrived_at = Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical());
            }
            _ => {}
        }
        // SAFETY: both point into the same control buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    said
}

/// Writes what the kernel is to do with a message: cut it into segments of so many octets (`UDP_SEGMENT`), and send it from an
/// address of this machine. One that a socket of this family does not have is left out.
///
/// # Safety
/// Nothing else uses `control` meanwhile, and it lives as long as the header is used.
pub(crate) unsafe fn write(
    header: &mut libc::msghdr,
    control: *mut Control,
    segment: Option<u16>,
    from: Option<IpAddr>,
    family: Family,
) {
    header.msg_control = control.cast();
    header.msg_controllen = 0;
    if let Some(size) = segment {
        // SAFETY: the header points to `control` now, which the caller vouches for; likewise below.
        unsafe { push(header, libc::SOL_UDP, libc::UDP_SEGMENT, size) };
    }
    match (from, family) {
        (None, _) | (Some(IpAddr::V6(_)), Family::V4) => {}
        (Some(IpAddr::V4(ip)), Family::V4) => {
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
            let info =
                libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: address, ipi_addr: libc::in_addr { s_addr: 0 } };
            // SAFETY: as above.
            unsafe { push(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info) };
        }
        (Some(ip), Family::DualStack) => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: 0 };
            // SAFETY: as above.
            unsafe { push(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info) };
        }
    }
    if header.msg_controllen == 0 {
        header.msg_control = std::ptr::null_mut();
    }
}

/// Adds a control message to those that `header` has.
///
/// # Safety
/// It points to a live [`Control`].
unsafe fn push<T: Copy>(header: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: computes sizes, touches no memory.
    let (space, len) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
    let at: usize = header.msg_controllen as _;
    assert!(at + space <= Control::SIZE, "invariant: there is room for all that are written");
    // SAFETY: within the control buffer, which is aligned for a `cmsghdr`, as sizes of messages with their padding are.
    unsafe {
        let message = header.msg_control.byte_add(at).cast::<libc::cmsghdr>();
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = len as _;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(value);
    }
    header.msg_controllen = (at + space) as _;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let check = |from: Option<&str>, family, expected: Option<&str>| {
            let mut control = Control::zeroed();
            // SAFETY: pointers, which may be null, and integers.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            let control_at = &raw mut control;
            // SAFETY: both live to the end of this.
            unsafe { write(&mut header, control_at, Some(100), from.map(|ip| ip.parse().unwrap()), family) };
            // What the kernel calls an address that a datagram came to lies beside the one that it sends from.
            // SAFETY: the buffer that was written just now.
            let said = read(&header, unsafe { &*control_at });
            assert_eq!(said.arrived_at, expected.map(|ip| ip.parse().unwrap()), "{from:?}");
        };
        check(None, Family::V4, None);
        check(Some("::1"), Family::V4, None);
        check(Some("192.0.2.1"), Family::V4, Some("0.0.0.0"));
        check(Some("192.0.2.1"), Family::DualStack, Some("192.0.2.1"));
        check(Some("2001:db8::1"), Family::DualStack, Some("2001:db8::1"));
    }
}
