//! The socket between relays, with buffers as those of media: thousands of announcements come at once when a relay dies.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use streamfleet_net::{Offload, SocketOptions};
use tokio::io::Interest;

use super::known::canonical;

/// What its buffer is to have, octets: all that a relay with 100 000 flows tells at once, while this process stands still. The kernel
/// counts 2 304 octets for each announcement of 1 218, and grants twice what it is asked for.
const RECV_BUFFER: usize = 8 << 20;

/// One socket of the kernel's by two names.
pub(super) struct PeerSocket {
    /// Sends, to addresses of both families.
    kernel: streamfleet_net::UdpSocket,
    /// Waits, and receives.
    waits: tokio::net::UdpSocket,
}

impl PeerSocket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let options = SocketOptions { recv_buffer: RECV_BUFFER, gso: Offload::Off, ..SocketOptions::default() };
        let kernel = streamfleet_net::UdpSocket::bind(address, options)?;
        let same = std::net::UdpSocket::from(kernel.as_fd().try_clone_to_owned()?);
        Ok(Self { kernel, waits: tokio::net::UdpSocket::from_std(same)? })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.kernel.local_addr()
    }

    /// Waits while the kernel has no room for it.
    pub(super) async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.waits.async_io(Interest::WRITABLE, || self.kernel.send_to(datagram, to)).await
    }

    pub(super) async fn recv_from(&self, room: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.waits.recv_from(room).await.map(|(length, from)| (length, canonical(from)))
    }

    /// What the kernel has dropped because nobody took it in time. It counts in 32 bits, which wrap.
    pub(super) fn receive_drops(&self) -> io::Result<u32> {
        self.kernel.receive_drops()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_buffer_is_as_large_as_those_of_media() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let own = PeerSocket::bind(any).unwrap();
        let media =
            SocketOptions { recv_buffer: streamfleet_carrier::carrier::RECV_BUFFER, ..SocketOptions::default() };
        let media = streamfleet_net::UdpSocket::bind(any, media).unwrap();
        assert_eq!(own.kernel.recv_buffer().unwrap(), media.recv_buffer().unwrap());
    }

    /// Whatever it listens on, a socket of IPv6 reaches relays of IPv4, and hears them by the addresses that names lead to.
    #[tokio::test]
    async fn relays_of_either_family_hear_each_other() {
        let bind = |address: &str| PeerSocket::bind(address.parse().unwrap());
        let four = bind("127.0.0.1:0").unwrap();
        // A machine may have no IPv6.
        let Ok(both) = bind("[::]:0") else { return };
        let to = SocketAddr::from(([127, 0, 0, 1], both.local_addr().port()));
        let mut room = [0; 8];
        four.send_to(b"there", to).await.unwrap();
        assert_eq!(both.recv_from(&mut room).await.unwrap(), (5, four.local_addr()));
        both.send_to(b"back", four.local_addr()).await.unwrap();
        assert_eq!(four.recv_from(&mut room).await.unwrap(), (4, to));
    }
}
