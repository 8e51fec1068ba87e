//! Waiting for many sockets.

use crate::poller::timespec;
use crate::socket::UdpSocket;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Sockets reported per wait; the others are reported by the next one.
const EVENTS: usize = 256;

/// Waits for the first of many sockets (`epoll`): for a client that has one per session.
#[derive(Debug)]
pub struct SocketSet {
    epoll: OwnedFd,
}

impl SocketSet {
    /// An empty set.
    ///
    /// # Errors
    /// The kernel's, if no descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no memory.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self { epoll: unsafe { OwnedFd::from_raw_fd(epoll) } })
    }

    /// Adds a socket, reported as `token` until the last clone of it is dropped. The set keeps none.
    ///
    /// # Errors
    /// The kernel's: the socket is in the set, or too many sockets are watched.
    pub fn add(&self, socket: &UdpSocket, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: two live descriptors and a live event.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.raw_fd(), &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until a socket has something to receive, at most `timeout`; replaces `ready` by the tokens of those that do,
    /// at most 256.
    ///
    /// # Errors
    /// The kernel's; Linux 5.11 or later is needed. A signal is an early end, not an error.
    pub fn wait(&self, timeout: Duration, ready: &mut Vec<u64>) -> io::Result<()> {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let timeout = timespec(timeout);
        // SAFETY: a live descriptor, room for EVENTS events, a live timespec, no signal mask. `epoll_wait` would round to
        // milliseconds.
        let found = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                size_of::<u64>(),
            )
        };
        let Ok(found) = usize::try_from(found) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        };
        ready.extend(events[..found].iter().map(|event| event.u64));
        Ok(())
    }
}
