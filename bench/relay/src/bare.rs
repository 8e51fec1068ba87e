//! The limit: `recvmmsg` from one socket, `sendmmsg` to one address, no table, no header, nothing looked at.

use std::io;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

/// As a relay's.
const BATCH: usize = 64;
const ROOM: usize = 2_048;

pub(crate) struct Bare {
    socket: UdpSocket,
    /// Pointed to by the headers.
    _memory: (Vec<u8>, Vec<libc::iovec>, Vec<libc::sockaddr_in>),
    vectors: *mut libc::iovec,
    headers: Vec<libc::mmsghdr>,
    name: *mut libc::sockaddr_in,
    /// How many addresses it sends to, from that one on, and how many it has sent to.
    addresses: u32,
    sent: u32,
    first: u32,
}

// SAFETY: the pointers lead to memory that it owns.
unsafe impl Send for Bare {}

impl Bare {
    /// Sends to so many addresses in turn, this one and those that follow it.
    pub(crate) fn bind(listen: SocketAddr, to: SocketAddrV4, addresses: u32) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen)?;
        grow(&socket)?;
        let mut octets = vec![0u8; BATCH * ROOM];
        // SAFETY: all-zero is a value of these.
        let (zero, mut name, header): (libc::iovec, libc::sockaddr_in, libc::mmsghdr) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
        name.sin_family = libc::AF_INET as _;
        name.sin_port = to.port().to_be();
        name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        let mut names = vec![name; BATCH];
        let mut vectors = vec![zero; BATCH];
        let mut headers = vec![header; BATCH];
        for n in 0..BATCH {
            vectors[n].iov_base = octets[n * ROOM..].as_mut_ptr().cast();
        }
        let (pointer, name_pointer) = (vectors.as_mut_ptr(), names.as_mut_ptr());
        for (n, header) in headers.iter_mut().enumerate() {
            header.msg_hdr.msg_iovlen = 1;
            // SAFETY: one of BATCH.
            header.msg_hdr.msg_iov = unsafe { pointer.add(n) };
        }
        let memory = (octets, vectors, names);
        Ok(Self {
            socket,
            _memory: memory,
            vectors: pointer,
            headers,
            name: name_pointer,
            addresses,
            sent: 0,
            first: u32::from(*to.ip()),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("it is bound")
    }

    /// Takes what is there, waiting for the first, and passes it on.
    pub(crate) fn step(&mut self, wait: libc::c_int) -> io::Result<usize> {
        for n in 0..BATCH {
            // SAFETY: one of BATCH.
            unsafe { (*self.vectors.add(n)).iov_len = ROOM };
            let header = &mut self.headers[n].msg_hdr;
            (header.msg_name, header.msg_namelen) = (std::ptr::null_mut(), 0);
        }
        // SAFETY: the headers describe live buffers.
        let came = unsafe {
            libc::recvmmsg(self.socket.as_raw_fd(), self.headers.as_mut_ptr(), BATCH as _, wait, std::ptr::null_mut())
        };
        let Ok(came) = usize::try_from(came) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        for (n, header) in self.headers[..came].iter_mut().enumerate() {
            // SAFETY: the vector of this message.
            unsafe { (*header.msg_hdr.msg_iov).iov_len = header.msg_len as usize };
            // SAFETY: one of BATCH.
            let name = unsafe { &mut *self.name.add(n) };
            if self.addresses > 1 {
                // A prime, so that they come in no order.
                self.sent = (self.sent + 7_919) % self.addresses;
                name.sin_addr.s_addr = (self.first + self.sent).to_be();
            }
            header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as _;
        }
        let mut at = 0;
        while at < came {
            // SAFETY: as above.
            let sent = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), &raw mut self.headers[at], (came - at) as _, libc::MSG_DONTWAIT)
            };
            at += usize::try_from(sent).map_err(|_| io::Error::last_os_error())?.max(1);
        }
        Ok(came)
    }

    /// For a step that is to end although nothing comes.
    pub(crate) fn set_patience(&self, most: std::time::Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(most))
    }
}

/// As large buffers as a relay's.
pub(crate) fn grow(socket: &UdpSocket) -> io::Result<()> {
    let size: libc::c_int = 8 << 20;
    for name in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE, libc::SO_RCVBUF, libc::SO_SNDBUF] {
        // SAFETY: a live integer. Where it may not be forced, the plain one gives what there is.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                name,
                (&raw const size).cast(),
                size_of::<libc::c_int>() as _,
            )
        };
        if set == 0 && name == libc::SO_SNDBUFFORCE {
            return Ok(());
        }
    }
    Ok(())
}
