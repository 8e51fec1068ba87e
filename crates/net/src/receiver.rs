//! Receiving in batches.

use crate::address::RawAddress;
use crate::slab::{Control, Slab};
use crate::socket::{Offload, UdpSocket};
use std::io;
use std::net::SocketAddr;

/// Messages per call. The relay's measurements saw nothing more to gain beyond 32.
const BATCH: usize = 64;
/// Room for a datagram. Nothing that WebRTC sends is larger than an Ethernet frame; a larger one is dropped.
const SLOT: usize = 2_048;
/// Room for a run of datagrams: the kernel coalesces up to this.
const SLOT_GRO: usize = 65_536;

/// Receives from one socket.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
    batch: RecvBatch,
}

impl Receiver {
    pub(crate) fn new(socket: UdpSocket) -> Self {
        let batch = RecvBatch::new(socket.options().gro);
        Self { socket, batch }
    }

    /// Takes what has arrived, up to 64 messages, without waiting; returns the number of datagrams, which replace those
    /// of the call before.
    ///
    /// # Errors
    /// The kernel's, if the socket cannot be received from any more. "Nothing there" is 0.
    pub fn recv(&mut self) -> io::Result<usize> {
        self.batch.recv(&self.socket)
    }

    /// Datagram `index` of the last [`recv`](Self::recv), to be worked on in place, and its sender.
    ///
    /// # Panics
    /// If `index` is not below what `recv` returned.
    pub fn datagram(&mut self, index: usize) -> (&mut [u8], SocketAddr) {
        self.batch.datagram(index)
    }

    /// Whether the last call filled every buffer, so that more may wait.
    pub fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    /// Datagrams dropped because they were larger than any WebRTC sends (2 048 octets), or their sender's family unknown.
    pub fn dropped(&self) -> u64 {
        self.batch.dropped()
    }

    /// The socket, for a [`crate::Poller`].
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}

/// Buffers for one `recvmmsg`, which many sockets may take turns with.
pub struct RecvBatch {
    slot: usize,
    buffers: Slab<u8>,
    names: Slab<RawAddress>,
    controls: Slab<Control>,
    /// Pointed to by the headers only.
    _vectors: Slab<libc::iovec>,
    headers: Slab<libc::mmsghdr>,
    filled: usize,
    datagrams: Vec<Datagram>,
    dropped: u64,
}

#[derive(Clone, Copy)]
struct Datagram {
    start: usize,
    len: usize,
    from: SocketAddr,
}

impl RecvBatch {
    /// Buffers for 64 messages: 128 KiB, or with `gro` 4 MiB of address space of which only what is used becomes memory.
    pub fn new(gro: Offload) -> Self {
        let slot = match gro {
            Offload::Off => SLOT,
            Offload::On => SLOT_GRO,
        };
        let buffers = Slab::<u8>::new(BATCH * slot);
        let names = Slab::<RawAddress>::new(BATCH);
        let controls = Slab::<Control>::new(BATCH);
        let mut vectors = Slab::<libc::iovec>::new(BATCH);
        let mut headers = Slab::<libc::mmsghdr>::new(BATCH);
        for i in 0..BATCH {
            *vectors.get_mut(i) = libc::iovec { iov_base: buffers.pointer(i * slot).cast(), iov_len: slot };
            let header = &mut headers.get_mut(i).msg_hdr;
            header.msg_iov = vectors.pointer(i);
            header.msg_iovlen = 1;
            header.msg_name = names.pointer(i).cast();
            header.msg_namelen = RawAddress::SIZE;
            header.msg_control = controls.pointer(i).cast();
            header.msg_controllen = Control::SIZE as _;
        }
        let datagrams = Vec::with_capacity(BATCH);
        Self { slot, buffers, names, controls, _vectors: vectors, headers, filled: 0, datagrams, dropped: 0 }
    }

    /// [`Receiver::recv`] on `socket`. A socket with GRO needs a batch with GRO, or its runs are dropped.
    ///
    /// # Errors
    /// As there.
    pub fn recv(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.datagrams.clear();
        self.filled = 0;
        // Errors of the path (ICMP, on a connected socket) are reported once each and concern no datagram received.
        for _ in 0..BATCH {
            // SAFETY: the headers point to live buffers of the lengths they say, which nothing borrows now.
            let received = unsafe {
                libc::recvmmsg(
                    socket.raw_fd(),
                    self.headers.pointer(0),
                    BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            if let Ok(received) = usize::try_from(received) {
                self.filled = received;
                break;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => break,
                io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable => {}
                _ => return Err(error),
            }
        }
        for message in 0..self.filled {
            self.take(message);
        }
        Ok(self.datagrams.len())
    }

    fn take(&mut self, message: usize) {
        let header = self.headers.get(message);
        let len = (header.msg_len as usize).min(self.slot);
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let segment = segment_size(&header.msg_hdr, self.controls.get(message)).unwrap_or(len).max(1);
        // These are in-out: the kernel has written what it used.
        let header = &mut self.headers.get_mut(message).msg_hdr;
        header.msg_namelen = RawAddress::SIZE;
        header.msg_controllen = Control::SIZE as _;
        let from = self.names.get(message).get();
        let (Some(from), false) = (from, truncated) else {
            self.dropped += 1;
            return;
        };
        let first = message * self.slot;
        for start in (0..len).step_by(segment) {
            self.datagrams.push(Datagram { start: first + start, len: segment.min(len - start), from });
        }
    }

    /// As [`Receiver::datagram`].
    ///
    /// # Panics
    /// If `index` is not below what the last `recv` returned.
    pub fn datagram(&mut self, index: usize) -> (&mut [u8], SocketAddr) {
        let Datagram { start, len, from } = self.datagrams[index];
        (self.buffers.slice_mut(start, len), from)
    }

    /// As [`Receiver::is_full`].
    pub fn is_full(&self) -> bool {
        self.filled == BATCH
    }

    /// As [`Receiver::dropped`].
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("slot", &self.slot).field("datagrams", &self.datagrams.len()).finish()
    }
}

/// The length of the datagrams in a run, from its `UDP_GRO` control message.
fn segment_size(header: &libc::msghdr, _control: &Control) -> Option<usize> {
    // SAFETY: the header's control pointer and length describe `_control`, as the kernel left it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: not null, so within the control buffer and whole.
        let message = unsafe { next.read_unaligned() };
        if message.cmsg_level == libc::SOL_UDP && message.cmsg_type == libc::UDP_GRO {
            // SAFETY: this control message's data is one integer.
            let size = unsafe { libc::CMSG_DATA(next).cast::<libc::c_int>().read_unaligned() };
            return usize::try_from(size).ok().filter(|s| *s > 0);
        }
        // SAFETY: both point into the same control buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    None
}
