//! Sending in batches.

use crate::Receiver;
use crate::address::RawAddress;
use crate::control;
use crate::outbox::{Departures, Outbox, Source};
use crate::send_plan::{BATCH, Plan};
use crate::slab::{Control, Pages, Slab};
use crate::socket::{Offload, UdpSocket};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;

/// What became of an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "datagrams may have been dropped"]
pub struct SendReport {
    /// Datagrams that the kernel took.
    pub sent: u32,
    /// Their octets.
    pub octets: u64,
    /// Datagrams that it refused: its buffers were full, or the destination cannot be reached.
    pub dropped: u32,
    /// System calls made.
    pub calls: u32,
}

impl AddAssign for SendReport {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.octets += other.octets;
        self.dropped += other.dropped;
        self.calls += other.calls;
    }
}

/// Sends outboxes through one socket.
#[derive(Debug)]
pub struct Sender {
    socket: UdpSocket,
    gso: Offload,
    plan: Plan,
    frame: Frame,
    /// What a [`Source`] stands for, one less than its number.
    sources: Vec<IpAddr>,
}

impl Sender {
    pub(crate) fn new(socket: UdpSocket) -> Self {
        let gso = socket.options().gso;
        Self { socket, gso, plan: Plan::default(), frame: Frame::new(), sources: Vec::new() }
    }

    /// This address of this machine as a source, for [`Receiver::pass_without`]; [`Source::ANY`] if there are 65 535 already. The
    /// socket is of all addresses, or the kernel refuses what is to come from another than its own.
    pub fn source(&mut self, ip: IpAddr) -> Source {
        let at = self.sources.iter().position(|known| *known == ip).unwrap_or(self.sources.len());
        let Ok(number) = u16::try_from(at + 1) else { return Source::ANY };
        if at == self.sources.len() {
            self.sources.push(ip);
        }
        Source(number)
    }

    /// Sends everything, without waiting, and empties the outbox.
    ///
    /// Datagrams to one destination leave in their order, and so do those of one order that a receiver passes on. If the socket's buffer is full the rest is dropped, as on any
    /// full queue; an error about one destination loses no other datagram.
    pub fn send(&mut self, outbox: &mut Outbox) -> SendReport {
        let report = self.send_all(outbox);
        outbox.clear();
        report
    }

    /// Sends what a receiver has been told to pass on, from where it lies; otherwise as [`send`](Self::send).
    pub fn pass_on(&mut self, receiver: &mut Receiver) -> SendReport {
        let report = self.send_all(receiver.passing());
        receiver.passed();
        report
    }

    fn send_all(&mut self, departures: &impl Departures) -> SendReport {
        let mut report = SendReport::default();
        let total = departures.entries().len();
        let mut from = 0;
        while from < total {
            from = self.plan.make(departures.entries(), from, self.gso);
            if self.send_plan(departures, &mut report) == Flow::Congested {
                break;
            }
        }
        report.dropped = total as u32 - report.sent;
        report
    }

    /// Whether runs go out as one message. Turns itself off where the device cannot.
    pub fn gso(&self) -> Offload {
        self.gso
    }

    fn send_plan(&mut self, departures: &impl Departures, report: &mut SendReport) -> Flow {
        self.frame.fill(&self.plan, departures, &self.socket, &self.sources);
        let (socket, plan, frame, sources) = (&self.socket, &self.plan, &self.frame, &self.sources);
        let runs = frame.runs.iter().map(|run| {
            let run = &plan.runs()[*run];
            Held { datagrams: run.count, octets: run.octets }
        });
        let messages = |from: usize| {
            // SAFETY: the headers from `from` on describe live addresses, control messages and datagrams.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.raw_fd(),
                    frame.headers.pointer(from),
                    (frame.runs.len() - from) as libc::c_uint,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        };
        let single = |message: usize, index: usize| {
            let run = &plan.runs()[frame.runs[message]];
            let Some(position) = plan.datagrams(run).nth(index) else { return Ok(0) };
            let datagram = departures.octets(&departures.entries()[position]);
            send_single(socket, datagram, address(sources, run.from), run.to).map(|()| datagram.len())
        };
        transmit(runs, messages, single, &mut self.gso, report)
    }
}

fn address(sources: &[IpAddr], source: Source) -> Option<IpAddr> {
    sources.get(usize::from(source.0).checked_sub(1)?).copied()
}

fn send_single(socket: &UdpSocket, datagram: &[u8], from: Option<IpAddr>, to: SocketAddr) -> io::Result<()> {
    if from.is_none() {
        return socket.send_to(datagram, to);
    }
    let (mut name, len) = RawAddress::new(to, socket.family()).ok_or(io::ErrorKind::Unsupported)?;
    let mut vector = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
    let mut room = Control::zeroed();
    // SAFETY: pointers, which may be null, and integers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_name, header.msg_namelen) = ((&raw mut name).cast(), len);
    (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
    // SAFETY: all that it points to lives to the end of this function.
    unsafe {
        control::write(&mut header, &raw mut room, None, from, socket.family());
        socket.send_message(&header)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    Congested,
}

/// What is in a message.
#[derive(Clone, Copy, Debug)]
struct Held {
    datagrams: u32,
    octets: u32,
}

/// Sends messages that hold so much each: from a position on through `messages`, which says how many went, and the
/// datagrams of a message that the kernel refuses through `single`, which says how many octets it had.
fn transmit(
    all: impl Iterator<Item = Held>,
    mut messages: impl FnMut(usize) -> io::Result<usize>,
    mut single: impl FnMut(usize, usize) -> io::Result<usize>,
    gso: &mut Offload,
    report: &mut SendReport,
) -> Flow {
    let mut all = all.enumerate().peekable();
    while let Some((message, Held { datagrams: count, .. })) = all.peek().copied() {
        report.calls += 1;
        let error = match messages(message) {
            // The kernel sends at least one message or says why not; anything else would be an endless loop here.
            Ok(0) => return Flow::Congested,
            Ok(sent) => {
                for (_, held) in all.by_ref().take(sent) {
                    report.sent += held.datagrams;
                    report.octets += u64::from(held.octets);
                }
                continue;
            }
            Err(error) => error,
        };
        match verdict(&error, count) {
            Verdict::Again => continue,
            Verdict::Congested => return Flow::Congested,
            Verdict::Skip => {}
            Verdict::Singly { gso: next } => {
                // What the kernel once could not, it cannot.
                if next == Offload::Off {
                    *gso = next;
                }
                if transmit_singly(count as usize, |index| single(message, index), report) == Flow::Congested {
                    return Flow::Congested;
                }
            }
        }
        all.next();
    }
    Flow::Open
}

fn transmit_singly(count: usize, mut single: impl FnMut(usize) -> io::Result<usize>, report: &mut SendReport) -> Flow {
    for index in 0..count {
        loop {
            report.calls += 1;
            let error = match single(index) {
                Ok(octets) => {
                    report.sent += 1;
                    report.octets += octets as u64;
                    break;
                }
                Err(error) => error,
            };
            match verdict(&error, 1) {
                Verdict::Again => {}
                Verdict::Congested => return Flow::Congested,
                Verdict::Skip | Verdict::Singly { .. } => break,
            }
        }
    }
    Flow::Open
}

/// What to do about a message that the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The same again.
    Again,
    /// No message will be taken now: drop the rest.
    Congested,
    /// Drop this one.
    Skip,
    /// Its datagrams one by one; and whether to go on making runs.
    Singly { gso: Offload },
}

fn verdict(error: &io::Error, datagrams: u32) -> Verdict {
    match error.raw_os_error() {
        Some(libc::EINTR) => Verdict::Again,
        // The socket's buffer, the device's queue, the kernel's memory: nothing that another destination would cure.
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Verdict::Congested,
        _ if datagrams == 1 => Verdict::Skip,
        // What a device without checksum offload answers to a run.
        Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT) => Verdict::Singly { gso: Offload::Off },
        // A segment longer than this path's MTU (EINVAL), or an error left over from an earlier datagram (an ICMP
        // message): the datagrams may still pass by themselves.
        _ => Verdict::Singly { gso: Offload::On },
    }
}

/// What `sendmmsg` reads. The memory stays, its contents are written anew for each call.
struct Frame {
    names: Slab<RawAddress>,
    controls: Slab<Control>,
    vectors: Vec<libc::iovec>,
    headers: Slab<libc::mmsghdr>,
    /// The run that each filled header stands for. A run whose address this socket cannot send to has no header.
    runs: Vec<usize>,
}

// SAFETY: the pointers in it are used by the kernel during `sendmmsg` only, after `fill` has set them.
unsafe impl Send for Frame {}

impl Frame {
    fn new() -> Self {
        Self {
            names: Slab::new(BATCH, Pages::Small),
            controls: Slab::new(BATCH, Pages::Small),
            vectors: Vec::new(),
            headers: Slab::new(BATCH, Pages::Small),
            runs: Vec::with_capacity(BATCH),
        }
    }

    fn fill(&mut self, plan: &Plan, departures: &impl Departures, socket: &UdpSocket, sources: &[IpAddr]) {
        self.runs.clear();
        self.vectors.clear();
        for (i, run) in plan.runs().iter().enumerate().filter(|(_, run)| run.count > 0) {
            let Some((name, len)) = RawAddress::new(run.to, socket.family()) else { continue };
            let slot = self.runs.len();
            self.runs.push(i);
            *self.names.get_mut(slot) = name;
            let first = self.vectors.len();
            self.vectors.extend(plan.datagrams(run).map(|i| {
                let datagram = departures.octets(&departures.entries()[i]);
                // The kernel only reads through a pointer that the C type has as mutable.
                libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() }
            }));
            let header = &mut self.headers.get_mut(slot).msg_hdr;
            header.msg_name = self.names.pointer(slot).cast();
            header.msg_namelen = len;
            header.msg_iovlen = (self.vectors.len() - first) as _;
            let segment = (run.count > 1).then_some(run.segment as u16);
            let from = address(sources, run.from);
            // SAFETY: this slot's own, which lives as long as its header.
            unsafe { control::write(header, self.controls.pointer(slot), segment, from, socket.family()) };
        }
        // Only now does the vector no longer move.
        let mut next = self.vectors.as_mut_ptr();
        for slot in 0..self.runs.len() {
            let header = &mut self.headers.get_mut(slot).msg_hdr;
            header.msg_iov = next;
            let count = plan.runs()[self.runs[slot]].count as usize;
            // SAFETY: the vector has `count` entries for each run that has a header, in this order.
            next = unsafe { next.add(count) };
        }
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("messages", &self.runs.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_what_follows() {
        use Verdict::*;
        let check = |errno, datagrams, expected| {
            assert_eq!(verdict(&io::Error::from_raw_os_error(errno), datagrams), expected, "{errno} of {datagrams}");
        };
        for datagrams in [1, 2, 64] {
            check(libc::EINTR, datagrams, Again);
            check(libc::EAGAIN, datagrams, Congested);
            check(libc::ENOBUFS, datagrams, Congested);
            check(libc::ENOMEM, datagrams, Congested);
        }
        for errno in [libc::ECONNREFUSED, libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EMSGSIZE, libc::EPERM] {
            check(errno, 1, Skip);
            check(errno, 2, Singly { gso: Offload::On });
        }
        check(libc::EINVAL, 1, Skip);
        check(libc::EINVAL, 2, Singly { gso: Offload::On });
        check(libc::EIO, 1, Skip);
        check(libc::EIO, 2, Singly { gso: Offload::Off });
        check(libc::EOPNOTSUPP, 2, Singly { gso: Offload::Off });
    }

    /// A kernel that answers by script: to each call for messages how many it takes or an errno, to each single datagram
    /// 0 or an errno; after the script it takes everything.
    #[track_caller]
    fn check(
        counts: &[u32],
        answers: &[Result<usize, i32>],
        singles: &[i32],
        (sent, calls): (u32, u32),
        flow: Flow,
        gso_after: Offload,
    ) {
        let (mut answers, mut singles) = (answers.iter(), singles.iter());
        let (mut gso, mut report, mut next) = (Offload::On, SendReport::default(), 0);
        let got = transmit(
            counts.iter().map(|count| Held { datagrams: *count, octets: 10 * count }),
            |from| {
                assert!(from >= next, "message {from} again");
                next = from;
                match answers.next() {
                    None => Ok(counts.len() - from),
                    Some(answer) => answer.map_err(io::Error::from_raw_os_error),
                }
            },
            |_, _| match singles.next() {
                None | Some(0) => Ok(10),
                Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
            },
            &mut gso,
            &mut report,
        );
        assert_eq!((report.sent, report.calls, got, gso), (sent, calls, flow, gso_after));
        assert_eq!(report.octets, u64::from(10 * sent), "of what was sent");
        assert!(answers.next().is_none() && singles.next().is_none(), "the script was not followed to its end");
    }

    #[test]
    fn what_the_kernel_refuses_is_dropped_or_split() {
        use Flow::{Congested, Open};
        use Offload::{Off, On};
        check(&[], &[], &[], (0, 0), Open, On);
        check(&[1, 1, 5], &[], &[], (7, 1), Open, On);
        check(&[1, 1, 5], &[Ok(2), Ok(1)], &[], (7, 2), Open, On);
        check(&[1, 1], &[Err(libc::EINTR), Ok(1), Err(libc::EINTR)], &[], (2, 4), Open, On);
        // Full: what went before counts, the rest is not tried.
        check(&[1, 4, 1, 1], &[Ok(2), Err(libc::EAGAIN)], &[], (5, 2), Congested, On);
        check(&[1, 4, 1, 1], &[Err(libc::ENOBUFS)], &[], (0, 1), Congested, On);
        check(&[1], &[Ok(0)], &[], (0, 1), Congested, On);
        // One destination is unreachable.
        check(&[1, 1, 1], &[Ok(1), Err(libc::ENETUNREACH)], &[], (2, 3), Open, On);
        check(&[1], &[Err(libc::ECONNREFUSED)], &[], (0, 1), Open, On);
        // A run is refused: for this path, or because the device cannot.
        check(&[1, 3, 1], &[Ok(1), Err(libc::EINVAL)], &[], (5, 6), Open, On);
        check(&[3, 1], &[Err(libc::EIO)], &[], (4, 5), Open, Off);
        check(&[3, 1], &[Err(libc::EINVAL)], &[0, libc::EMSGSIZE, 0], (3, 5), Open, On);
        check(&[3, 1], &[Err(libc::EINVAL)], &[libc::EINTR, 0, libc::EAGAIN], (1, 4), Congested, On);
    }
}
