//! The place in the core's packet chain where RTCP is taken out and RTP is kept from going in.

use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The packets of one datagram.
pub type Packets = Vec<Box<dyn rtcp::Packet>>;

/// Datagrams kept until the loop looks, which it does after each one. A bound for the one that does not.
const MAX_PENDING: usize = 32;

/// Takes inbound RTCP out of the core's interceptor chain, and drops RTP that is written through the core.
///
/// Register it as the only interceptor, at `Slot::ReceiverReport`. Without it, inbound RTCP ends in the chain; and RTP
/// written through the core would use the session's key with an index that [`crate::Tx`] may use as well, which gives the
/// key away.
pub struct RtcpTap {
    shared: Arc<Mutex<Shared>>,
    writes: VecDeque<TaggedPacket>,
}

/// Where the RTCP of one session is collected.
#[derive(Clone)]
pub struct RtcpInbox {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    pending: VecDeque<(Instant, Packets)>,
    received: u64,
    overflowed: u64,
    rtp_refused: u64,
}

impl RtcpTap {
    /// The interceptor for one peer connection, and where what it takes can be had.
    pub fn new() -> (RtcpTap, RtcpInbox) {
        let shared = Arc::<Mutex<Shared>>::default();
        (Self { shared: shared.clone(), writes: VecDeque::new() }, RtcpInbox { shared })
    }
}

impl RtcpInbox {
    /// The oldest datagram's packets, and when it came.
    pub fn pop(&self) -> Option<(Instant, Packets)> {
        lock(&self.shared).pending.pop_front()
    }

    /// Datagrams that came so far, all authentic and none of them a repetition: the core has seen to that.
    pub fn received(&self) -> u64 {
        lock(&self.shared).received
    }

    /// Datagrams dropped because nobody took them.
    pub fn overflowed(&self) -> u64 {
        lock(&self.shared).overflowed
    }

    /// RTP packets that were written through the core, and dropped.
    pub fn rtp_refused(&self) -> u64 {
        lock(&self.shared).rtp_refused
    }
}

impl std::fmt::Debug for RtcpInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RtcpInbox").field("pending", &lock(&self.shared).pending.len()).finish_non_exhaustive()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing under the lock leaves it half done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for RtcpTap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, tagged: TaggedPacket) -> Result<(), Error> {
        // RTP does not come this way: the loop opens it before the core could.
        let Packet::Rtcp(packets) = tagged.message.packet else { return Ok(()) };
        let mut shared = lock(&self.shared);
        shared.received += 1;
        if shared.pending.len() >= MAX_PENDING {
            shared.pending.pop_front();
            shared.overflowed += 1;
        }
        shared.pending.push_back((tagged.now, packets));
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        None
    }

    fn handle_write(&mut self, tagged: TaggedPacket) -> Result<(), Error> {
        match tagged.message.packet {
            // Polled right after, so this holds one at a time.
            Packet::Rtcp(_) => self.writes.push_back(tagged),
            _ => lock(&self.shared).rtp_refused += 1,
        }
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }
}

impl Interceptor for RtcpTap {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
