//! Waiting for one socket, or to be woken.

use crate::socket::UdpSocket;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why a wait ended. Neither: the time was over, or a signal came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There is something to receive, or an error to fetch by receiving.
    pub socket: bool,
    /// [`Waker::wake`] was called since the last wait that said so.
    pub wake: bool,
}

/// Waits for one socket, a [`Waker`] or a time, whichever is first.
#[derive(Debug)]
pub struct Poller {
    socket: UdpSocket,
    bell: Arc<Bell>,
}

/// Ends a [`Poller`]'s wait, from any thread. Cheap to clone, and to use often: only the first of several wakes costs a
/// system call.
#[derive(Clone, Debug)]
pub struct Waker {
    bell: Arc<Bell>,
}

#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    /// Set from a wake until the poller has seen it.
    rung: AtomicBool,
}

impl Poller {
    /// A poller of `socket`.
    ///
    /// # Errors
    /// The kernel's, if no descriptor is left.
    pub fn new(socket: &UdpSocket) -> io::Result<Self> {
        // SAFETY: takes no memory.
        let event = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        Ok(Self { socket: socket.clone(), bell: Arc::new(Bell { event, rung: AtomicBool::new(false) }) })
    }

    /// A waker of this poller.
    pub fn waker(&self) -> Waker {
        Waker { bell: self.bell.clone() }
    }

    /// Waits at most `timeout`; `None` is for ever. The precision is the thread's [timer slack](crate::set_timer_slack).
    ///
    /// Should the kernel refuse to poll, the socket is reported as ready, so that receiving from it shows why.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Ready {
        let timeout = timeout.map(timespec);
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [poll(self.socket.raw_fd()), poll(self.bell.event.as_raw_fd())];
        // SAFETY: two live pollfds, a live timespec or null, no signal mask.
        let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), 2, timeout, std::ptr::null()) };
        match ready {
            0 => Ready::default(),
            1.. => Ready { socket: fds[0].revents != 0, wake: fds[1].revents != 0 && self.hush() },
            _ => Ready { socket: io::Error::last_os_error().kind() != io::ErrorKind::Interrupted, wake: false },
        }
    }

    /// Whether a wake came that no wait has reported, which is thereby reported. Costs no system call if none came.
    pub fn take_wake(&mut self) -> bool {
        if !self.bell.rung.load(Ordering::Acquire) {
            return false;
        }
        self.hush()
    }

    /// Empties the event, also where a waker wrote after its ring was already taken; true, because someone rang.
    fn hush(&mut self) -> bool {
        let mut count = 0u64;
        // SAFETY: eight octets to write a counter to. The result does not matter: where the waker has not written yet, the
        // next wait ends early once.
        unsafe { libc::read(self.bell.event.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
        // From here on a waker writes again; what it queued before is seen by whoever looks after this.
        self.bell.rung.swap(false, Ordering::AcqRel);
        true
    }
}

impl Waker {
    /// Ends the poller's wait, or its next one if it is not waiting.
    ///
    /// What was queued before this call is visible to the poller's thread after the wait reports it.
    pub fn wake(&self) {
        if self.bell.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let one = 1u64;
        // SAFETY: eight live octets. It fails only if the counter is about to overflow, and then the wait ends anyway.
        unsafe { libc::write(self.bell.event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }
}

/// Which of `sockets` have something to receive, or an error to fetch by receiving: waits for the first, at most `timeout`.
///
/// The kernel is asked anew each time (`ppoll`). That costs a little more than a [`crate::SocketSet`] for each wait, and less for
/// each datagram that is sent: a socket that is in a set tells it of each that has left.
///
/// Should the kernel refuse, all are reported, so that receiving from them shows why.
pub fn wait_for<const N: usize>(sockets: [&UdpSocket; N], timeout: Duration) -> [bool; N] {
    let timeout = timespec(timeout);
    let mut fds = sockets.map(|socket| libc::pollfd { fd: socket.raw_fd(), events: libc::POLLIN, revents: 0 });
    // SAFETY: N live pollfds, a live timespec, no signal mask.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), N as libc::nfds_t, &raw const timeout, std::ptr::null()) };
    let refused = ready < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted;
    fds.map(|fd| refused || (ready > 0 && fd.revents != 0))
}

pub(crate) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
