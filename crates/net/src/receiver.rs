//! Receiving in batches.

use crate::address::RawAddress;
use crate::control;
use crate::outbox::{Departures, Entry, Source};
use crate::slab::{Control, Pages, Slab};
use crate::socket::{Offload, UdpSocket};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Messages per call. The relay's measurements saw nothing more to gain beyond 32.
const BATCH: usize = 64;
/// Octets that one call is to take at most, where messages may be runs: what came first is still in the core's cache then. How many
/// messages that is, the calls before have shown.
const TAKEN: usize = 96 << 10;
/// Messages of a call at least.
const FEW: usize = 1;
/// The longest run that the kernel makes (`UDP_GRO_CNT_MAX`).
const MAX_RUN: usize = 64;
/// Room for a datagram. Nothing that WebRTC sends is larger than an Ethernet frame; a larger one is dropped.
const SLOT: usize = 2_048;
/// Buffers begin at one, so that a header does not reach into another's.
const CACHE_LINE: usize = 64;
/// Room for a run of datagrams: the kernel coalesces up to this.
const SLOT_GRO: usize = 65_536;

/// Receives from one socket.
#[derive(Debug)]
pub struct Receiver {
    socket: UdpSocket,
    batch: RecvBatch,
}

impl Receiver {
    pub(crate) fn new(socket: UdpSocket, headroom: usize) -> Self {
        let batch = RecvBatch::with_headroom(socket.options().gro, headroom);
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

    /// All datagrams of the last [`recv`](Self::recv) and their senders, to be looked at.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let buffers = &self.batch.buffers;
        self.batch.datagrams.iter().map(|datagram| (buffers.slice(datagram.start, datagram.len), datagram.from))
    }

    /// Which of this machine's addresses datagram `index` was sent to, where [the socket is told](crate::LocalAddresses).
    pub fn arrived_at(&self, index: usize) -> Option<IpAddr> {
        self.batch.arrived_at.get(index).copied().flatten()
    }

    /// Has datagram `index` passed on, by [`crate::Sender::pass_on`], with a header before it. Datagrams of one `order` leave in the
    /// order in which this is said of them.
    ///
    /// False, and nothing done, if it has been passed on already, or there is no room before it: headers go where the receiver was
    /// made [with headroom](UdpSocket::split_with_headroom), before a datagram that came by itself.
    ///
    /// # Panics
    /// If `index` is not below what `recv` returned.
    pub fn pass_with(&mut self, index: usize, header: &[u8], to: SocketAddr, order: u32) -> bool {
        self.batch.pass_with(index, header, to, order)
    }

    /// Likewise, without its first octets, from one of this machine's addresses.
    ///
    /// False, and nothing done, if it has been passed on already, or nothing is left of it.
    ///
    /// # Panics
    /// As there.
    pub fn pass_without(&mut self, index: usize, first: usize, from: Source, to: SocketAddr, order: u32) -> bool {
        self.batch.pass_without(index, first, from, to, order)
    }

    /// Whether the last call filled every buffer, so that more may wait.
    pub fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    /// Datagrams that were received and cannot be had, so far.
    pub fn unusable(&self) -> Unusable {
        self.batch.unusable()
    }

    /// The socket, for a [`crate::Poller`].
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    pub(crate) fn passing(&self) -> &RecvBatch {
        &self.batch
    }

    pub(crate) fn passed(&mut self) {
        self.batch.passing.clear();
    }
}

/// Datagrams of which nothing is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unusable {
    /// Larger than any that WebRTC sends: 2 048 octets, or in a run all together 65 536.
    pub giant: u64,
    /// Without an octet, or without a sender.
    pub empty: u64,
}

/// Buffers for one `recvmmsg`, which many sockets may take turns with.
pub struct RecvBatch {
    /// Octets of each message's buffer, those before it included.
    stride: usize,
    headroom: usize,
    /// Messages of the next call.
    limit: usize,
    /// There was room for no more.
    full: bool,
    buffers: Slab<u8>,
    names: Slab<RawAddress>,
    controls: Slab<Control>,
    /// Pointed to by the headers only.
    _vectors: Slab<libc::iovec>,
    headers: Slab<libc::mmsghdr>,
    filled: usize,
    datagrams: Vec<Datagram>,
    /// Of those of which it is told.
    arrived_at: Vec<Option<IpAddr>>,
    /// Those that are to be sent on.
    passing: Vec<Entry>,
    unusable: Unusable,
}

#[derive(Clone, Copy)]
struct Datagram {
    start: usize,
    len: usize,
    from: SocketAddr,
    /// Free octets before it; none any more when it has been passed on.
    room: Option<usize>,
}

impl RecvBatch {
    /// Buffers for 64 messages: 128 KiB, or with `gro` 4 MiB of address space of which only what is used becomes memory.
    pub fn new(gro: Offload) -> Self {
        Self::with_headroom(gro, 0)
    }

    /// The same, with so many octets free before each message.
    pub(crate) fn with_headroom(gro: Offload, headroom: usize) -> Self {
        let (room, most) = match gro {
            Offload::Off => (SLOT, BATCH),
            Offload::On => (SLOT_GRO, BATCH * MAX_RUN),
        };
        let stride = (headroom + room).next_multiple_of(CACHE_LINE);
        let buffers = Slab::<u8>::new(BATCH * stride, Pages::Small);
        let names = Slab::<RawAddress>::new(BATCH, Pages::Small);
        let controls = Slab::<Control>::new(BATCH, Pages::Small);
        let mut vectors = Slab::<libc::iovec>::new(BATCH, Pages::Small);
        let mut headers = Slab::<libc::mmsghdr>::new(BATCH, Pages::Small);
        for i in 0..BATCH {
            let start = buffers.pointer(i * stride + headroom);
            *vectors.get_mut(i) = libc::iovec { iov_base: start.cast(), iov_len: room };
            let header = &mut headers.get_mut(i).msg_hdr;
            header.msg_iov = vectors.pointer(i);
            header.msg_iovlen = 1;
            header.msg_name = names.pointer(i).cast();
            header.msg_namelen = RawAddress::SIZE;
            header.msg_control = controls.pointer(i).cast();
            header.msg_controllen = Control::SIZE as _;
        }
        let (datagrams, passing) = (Vec::with_capacity(most), Vec::with_capacity(most));
        Self {
            stride,
            headroom,
            limit: BATCH,
            full: false,
            buffers,
            names,
            controls,
            _vectors: vectors,
            headers,
            filled: 0,
            datagrams,
            arrived_at: Vec::new(),
            passing,
            unusable: Unusable::default(),
        }
    }

    /// [`Receiver::recv`] on `socket`. A socket with GRO needs a batch with GRO, or its runs are dropped.
    ///
    /// # Errors
    /// As there.
    pub fn recv(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.datagrams.clear();
        self.arrived_at.clear();
        self.passing.clear();
        self.filled = 0;
        // Errors of the path (ICMP, on a connected socket) are reported once each and concern no datagram received.
        for _ in 0..BATCH {
            // SAFETY: the headers point to live buffers of the lengths they say, which nothing borrows now.
            let received = unsafe {
                libc::recvmmsg(
                    socket.raw_fd(),
                    self.headers.pointer(0),
                    self.limit as libc::c_uint,
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
        self.full = self.filled == self.limit;
        let mut taken = 0;
        for message in 0..self.filled {
            taken += self.headers.get(message).msg_len as usize;
            self.take(message);
        }
        // Where each message is one datagram there are never too many.
        self.limit = if taken > TAKEN && self.stride >= SLOT_GRO {
            (self.limit / 2).max(FEW)
        } else {
            (2 * self.limit).min(BATCH)
        };
        Ok(self.datagrams.len())
    }

    fn take(&mut self, message: usize) {
        let header = self.headers.get(message);
        let len = (header.msg_len as usize).min(self.stride - self.headroom);
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let said = control::read(&header.msg_hdr, self.controls.get(message));
        let segment = said.segment.unwrap_or(len).max(1);
        // These are in-out: the kernel has written what it used.
        let header = &mut self.headers.get_mut(message).msg_hdr;
        header.msg_namelen = RawAddress::SIZE;
        header.msg_controllen = Control::SIZE as _;
        let from = self.names.get(message).get();
        if truncated {
            self.unusable.giant += 1;
            return;
        }
        let Some(from) = from.filter(|_| len > 0) else {
            self.unusable.empty += 1;
            return;
        };
        let first = message * self.stride + self.headroom;
        for start in (0..len).step_by(segment) {
            // What lies before the others of a run is the run.
            let room = Some(if start == 0 { self.headroom } else { 0 });
            self.datagrams.push(Datagram { start: first + start, len: segment.min(len - start), from, room });
            if said.arrived_at.is_some() {
                self.arrived_at.resize(self.datagrams.len() - 1, None);
                self.arrived_at.push(said.arrived_at);
            }
        }
    }

    fn pass_with(&mut self, index: usize, header: &[u8], to: SocketAddr, order: u32) -> bool {
        let datagram = &mut self.datagrams[index];
        if datagram.room.is_none_or(|room| room < header.len()) {
            return false;
        }
        datagram.room = None;
        let (start, len) = (datagram.start - header.len(), datagram.len + header.len());
        self.buffers.slice_mut(start, header.len()).copy_from_slice(header);
        self.passing.push(Entry { to, order, from: Source::ANY, start: start as u32, len: len as u32 });
        true
    }

    fn pass_without(&mut self, index: usize, first: usize, from: Source, to: SocketAddr, order: u32) -> bool {
        let datagram = &mut self.datagrams[index];
        if datagram.room.is_none() || datagram.len <= first {
            return false;
        }
        datagram.room = None;
        let (start, len) = (datagram.start + first, datagram.len - first);
        self.passing.push(Entry { to, order, from, start: start as u32, len: len as u32 });
        true
    }

    /// As [`Receiver::datagram`].
    ///
    /// # Panics
    /// If `index` is not below what the last `recv` returned.
    pub fn datagram(&mut self, index: usize) -> (&mut [u8], SocketAddr) {
        let Datagram { start, len, from, .. } = self.datagrams[index];
        (self.buffers.slice_mut(start, len), from)
    }

    /// As [`Receiver::is_full`].
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// As [`Receiver::unusable`].
    pub fn unusable(&self) -> Unusable {
        self.unusable
    }
}

impl Departures for RecvBatch {
    fn entries(&self) -> &[Entry] {
        &self.passing
    }

    fn octets(&self, entry: &Entry) -> &[u8] {
        self.buffers.slice(entry.start as usize, entry.len as usize)
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("stride", &self.stride).field("datagrams", &self.datagrams.len()).finish()
    }
}
