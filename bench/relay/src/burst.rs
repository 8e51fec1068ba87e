//! Datagrams that one socket sends from many addresses: the clients of a relay.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams of a burst; as many as a relay takes in one turn.
pub(crate) const MOST: usize = 256;
/// Room for one datagram.
const ROOM: usize = 2_048;

/// Up to [`MOST`] datagrams, each with its own source address (`IP_PKTINFO`).
pub(crate) struct Burst {
    octets: Vec<u8>,
    names: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    filled: usize,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 32]);

impl Burst {
    pub(crate) fn new() -> Self {
        // SAFETY: for these types of the C library all-zero is a value.
        let (name, vector, header) = unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        let mut burst = Self {
            octets: vec![0; MOST * ROOM],
            names: vec![name; MOST],
            controls: vec![Control([0; 32]); MOST],
            vectors: vec![vector; MOST],
            headers: vec![header; MOST],
            filled: 0,
        };
        for n in 0..MOST {
            burst.vectors[n].iov_base = burst.octets[n * ROOM..].as_mut_ptr().cast();
            let header: &mut libc::msghdr = &mut burst.headers[n].msg_hdr;
            header.msg_name = (&raw mut burst.names[n]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
            header.msg_iov = &raw mut burst.vectors[n];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut burst.controls[n]).cast();
            // SAFETY: computes a size.
            header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as _) } as _;
            // SAFETY: the control buffer is aligned and larger than the length just set.
            unsafe {
                let message = libc::CMSG_FIRSTHDR(header);
                (*message).cmsg_level = libc::IPPROTO_IP;
                (*message).cmsg_type = libc::IP_PKTINFO;
                (*message).cmsg_len = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as _) as _;
            }
        }
        burst
    }

    /// Adds a datagram of these parts.
    pub(crate) fn push(&mut self, source: Ipv4Addr, to: SocketAddrV4, parts: &[&[u8]]) {
        let n = self.filled;
        self.filled += 1;
        let mut len = 0;
        for part in parts {
            self.octets[n * ROOM + len..][..part.len()].copy_from_slice(part);
            len += part.len();
        }
        self.vectors[n].iov_len = len;
        self.names[n].sin_family = libc::AF_INET as _;
        self.names[n].sin_port = to.port().to_be();
        self.names[n].sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
        let from = libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
        let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: libc::in_addr { s_addr: 0 } };
        // SAFETY: the control buffer holds one message with room for this, written by `new`.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const self.headers[n].msg_hdr);
            libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().write_unaligned(info);
        }
    }

    /// Sends and forgets them. What the kernel does not take is lost.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let (mut at, total) = (0, std::mem::take(&mut self.filled));
        while at < total {
            // SAFETY: the headers from `at` on describe live buffers.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), &raw mut self.headers[at], (total - at) as _, libc::MSG_DONTWAIT)
            };
            match usize::try_from(sent) {
                Ok(sent) => at += sent,
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(total)
    }
}
