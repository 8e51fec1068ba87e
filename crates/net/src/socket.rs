//! One non-blocking UDP socket.

use crate::address::{Family, RawAddress};
use crate::{Receiver, Sender};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

/// Whether several sockets may share one address, the kernel spreading flows over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReusePort {
    /// One socket per address: a second one fails to bind.
    #[default]
    Exclusive,
    /// `SO_REUSEPORT`. A process left over from an earlier run silently takes its share of the flows.
    Shared,
}

/// Whether the kernel handles runs of datagrams as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// One datagram at a time.
    #[default]
    Off,
    /// Runs, where the kernel can.
    On,
}

/// What the kernel does with a datagram larger than the path's MTU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragmentation {
    /// It is sent in fragments.
    #[default]
    Allowed,
    /// It is refused (`EMSGSIZE`), and everything carries the don't-fragment bit. Saves the kernel a few percent of each
    /// IPv4 send, which otherwise makes up an identification for reassembly.
    Forbidden,
}

/// Whether a socket of all of this machine's addresses says at which of them a datagram has arrived, and takes a word on which one
/// is to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalAddresses {
    /// The kernel chooses by its routes, and nobody asks: it costs each datagram a control message.
    #[default]
    Unasked,
    /// `IP_PKTINFO`, `IPV6_RECVPKTINFO`: [`Receiver::arrived_at`], [`Sender::source`].
    Told,
}

/// How to open a socket. Start from `SocketOptions::default()`.
#[derive(Clone, Copy, Debug)]
pub struct SocketOptions {
    /// Kernel's receive buffer, octets. Who has `CAP_NET_ADMIN` gets it; else the kernel silently grants less where
    /// `net.core.rmem_max` is lower: [`UdpSocket::recv_buffer`] says what it is.
    pub recv_buffer: usize,
    /// Kernel's send buffer, octets. Limited likewise by `net.core.wmem_max`.
    pub send_buffer: usize,
    /// Whether the port may be shared.
    pub reuse_port: ReusePort,
    /// Generic receive offload: one buffer may hold several datagrams of one sender. Worth it behind a relay, whose
    /// datagrams all have one source; otherwise 4 MiB of buffers for nothing.
    pub gro: Offload,
    /// Generic segmentation offload: runs of equally long datagrams to one address are sent as one message.
    pub gso: Offload,
    /// What happens to large datagrams.
    pub fragmentation: Fragmentation,
    /// Which of this machine's addresses datagrams come to and leave from.
    pub local_addresses: LocalAddresses,
}

impl Default for SocketOptions {
    /// 4 MiB both ways (a quarter of a second at 10 000 sessions of 50 packets a second), exclusive, GSO without GRO.
    fn default() -> Self {
        Self {
            recv_buffer: 4 << 20,
            send_buffer: 4 << 20,
            reuse_port: ReusePort::Exclusive,
            gro: Offload::Off,
            gso: Offload::On,
            fragmentation: Fragmentation::Allowed,
            local_addresses: LocalAddresses::Unasked,
        }
    }
}

/// One non-blocking UDP socket: IPv4, or IPv6 that also carries IPv4.
///
/// IPv4-mapped addresses never appear: they are plain IPv4 in both directions. A clone is the same socket, which closes
/// when the last clone, [`Receiver`] and [`Sender`] of it are gone.
#[derive(Clone, Debug)]
pub struct UdpSocket {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: Socket,
    family: Family,
    local: SocketAddr,
    options: SocketOptions,
}

impl UdpSocket {
    /// Opens and binds a socket. Port 0 lets the kernel choose. `[::]` also receives IPv4.
    ///
    /// # Errors
    /// The kernel's: address in use, not this machine's, family not available, no descriptors left.
    pub fn bind(address: SocketAddr, options: SocketOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        if options.reuse_port == ReusePort::Shared {
            set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        size_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.recv_buffer)?;
        size_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer)?;
        let mut options = options;
        if options.gro == Offload::On && set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_err() {
            options.gro = Offload::Off;
        }
        // Setting 0 changes nothing, and fails where the kernel knows no UDP_SEGMENT.
        if options.gso == Offload::On && set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_err() {
            options.gso = Offload::Off;
        }
        if options.fragmentation == Fragmentation::Forbidden {
            // Don't fragment, and believe nobody who says that the path has become small: a router's word (ICMP) can be anybody's,
            // and would be kept for all datagrams to that address for ten minutes (as QUIC does, RFC 9000, 14.2.1).
            set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
            if address.is_ipv6() {
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
            }
        }
        if options.local_addresses == LocalAddresses::Told {
            // A socket of IPv6 tells IPv4 addresses, too, as mapped ones.
            let (level, name) = match address {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            };
            set_option(&socket, level, name, 1)?;
        }
        socket.bind(&SockAddr::from(address))?;
        let family = if address.is_ipv6() { Family::DualStack } else { Family::V4 };
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { inner: Arc::new(Inner { socket, family, local: plain(local), options }) })
    }

    /// The address it is bound to, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local
    }

    /// What was asked for, with the offloads that the kernel lacks turned off.
    pub fn options(&self) -> &SocketOptions {
        &self.inner.options
    }

    /// The two directions, each for one owner.
    pub fn split(&self) -> (Receiver, Sender) {
        self.split_with_headroom(0)
    }

    /// The same, for a receiver whose datagrams are [passed on with a header](Receiver::pass_with) of at most so many octets.
    pub fn split_with_headroom(&self, headroom: usize) -> (Receiver, Sender) {
        (Receiver::new(self.clone(), headroom), Sender::new(self.clone()))
    }

    /// The receive buffer that the kernel has granted, octets, its own overhead left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn recv_buffer(&self) -> io::Result<usize> {
        // The kernel doubles what it is asked for, to have room for what it keeps of each datagram.
        Ok(self.inner.socket.recv_buffer_size()? / 2)
    }

    /// Datagrams that the kernel has dropped since the socket was opened, because nobody took them in time or their checksum was
    /// wrong. It counts in 32 bits, which wrap.
    ///
    /// # Errors
    /// The kernel's, from before Linux 4.12.
    pub fn receive_drops(&self) -> io::Result<u32> {
        let mut memory = [0u32; SK_MEMINFO_VARS];
        let mut len = size_of_val(&memory) as libc::socklen_t;
        // SAFETY: room for as many integers as `len` says.
        let result = unsafe {
            libc::getsockopt(self.raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, memory.as_mut_ptr().cast(), &mut len)
        };
        if result == 0 { Ok(memory[SK_MEMINFO_DROPS]) } else { Err(io::Error::last_os_error()) }
    }

    /// Restricts the socket to one peer: the kernel drops what others send, and looks up the route once.
    ///
    /// # Errors
    /// The kernel's; no route, or an IPv6 peer for an IPv4 socket.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        let (raw, len) = RawAddress::new(peer, self.family()).ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: `raw` holds an address of `len` octets.
        match unsafe { libc::connect(self.raw_fd(), (&raw const raw).cast(), len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends one datagram now; for sockets that seldom have more than one to send.
    ///
    /// # Errors
    /// `WouldBlock` if the buffer is full; `Unsupported` for an IPv6 address and an IPv4 socket; otherwise the kernel's
    /// about this destination.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let (raw, len) = RawAddress::new(to, self.family()).ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: pointer and length are those of a live slice, and `raw` holds an address of `len` octets.
        let sent = unsafe {
            libc::sendto(
                self.raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                (&raw const raw).cast(),
                len,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// [`send_to`](Self::send_to) the peer of a [connected](Self::connect) socket, without the search for a route.
    ///
    /// # Errors
    /// As there; also what the network reported about an earlier datagram, in which case this one was not sent.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length are those of a live slice.
        let sent = unsafe {
            libc::send(self.raw_fd(), datagram.as_ptr().cast(), datagram.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends one message now.
    ///
    /// # Safety
    /// The header describes live memory.
    pub(crate) unsafe fn send_message(&self, header: &libc::msghdr) -> io::Result<()> {
        // SAFETY: the caller's promise.
        let sent = unsafe { libc::sendmsg(self.raw_fd(), header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(crate) fn family(&self) -> Family {
        self.inner.family
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.inner.socket.as_raw_fd()
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.socket.as_fd()
    }
}

/// Of linux/sock_diag.h, which the C library does not have.
const SK_MEMINFO_VARS: usize = 9;
const SK_MEMINFO_DROPS: usize = 8;

fn size_buffer(socket: &Socket, force: libc::c_int, ask: libc::c_int, octets: usize) -> io::Result<()> {
    let octets = libc::c_int::try_from(octets).unwrap_or(libc::c_int::MAX);
    set_option(socket, libc::SOL_SOCKET, force, octets).or_else(|_| set_option(socket, libc::SOL_SOCKET, ask, octets))
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is a live integer of the length given.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
