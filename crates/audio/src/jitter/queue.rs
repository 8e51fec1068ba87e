//! The packets that wait, in the order of their media time.

use std::collections::VecDeque;

/// Packets held at most: 1.3 s of 20 ms packets, 0.6 s of 10 ms ones, three times the largest useful delay.
pub const MAX_PACKETS: usize = 64;
/// Empty payload buffers kept for reuse; a burst's worth of others is given back to the allocator.
const MAX_SPARE: usize = 8;

/// A packet on its way to the decoder.
#[derive(Debug)]
pub struct Packet {
    /// The payload.
    pub payload: Vec<u8>,
    /// Its length on the RTP clock.
    pub ticks: u32,
    pub(super) index: u64,
    /// Media time of its first sample (ticks).
    pub(super) media: i64,
    pub(super) traits: Traits,
}

/// What the codec knows about a payload without decoding it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traits {
    /// It can repair the packet before it.
    pub redundancy: Redundancy,
    /// The sender pauses after it.
    pub continuity: Continuity,
}

/// Whether a packet can repair its predecessor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Redundancy {
    /// It carries itself only.
    #[default]
    None,
    /// It carries a copy of its predecessor.
    Previous,
}

/// Whether another packet follows at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Continuity {
    /// As always.
    #[default]
    Continuous,
    /// The sender is silent and pauses (DTX).
    Discontinuous,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued {
    Yes,
    /// Another packet has its media time.
    Duplicate,
}

/// The packets, and buffers for those to come. The owner keeps it at [`MAX_PACKETS`].
#[derive(Debug, Default)]
pub(super) struct Queue {
    packets: VecDeque<Packet>,
    spare: Vec<Vec<u8>>,
}

impl Queue {
    pub(super) fn insert(&mut self, index: u64, media: i64, ticks: u32, traits: Traits, payload: &[u8]) -> Queued {
        let at = self.packets.partition_point(|packet| packet.media < media);
        if self.packets.get(at).is_some_and(|packet| packet.media == media) {
            return Queued::Duplicate;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(payload);
        self.packets.insert(at, Packet { payload: buffer, ticks, index, media, traits });
        Queued::Yes
    }

    pub(super) fn front(&self) -> Option<&Packet> {
        self.packets.front()
    }

    pub(super) fn pop_front(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Takes back a packet's memory.
    pub(super) fn recycle(&mut self, packet: Packet) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(packet.payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_wait_in_the_order_of_their_media_time() {
        let mut queue = Queue::default();
        for (index, media) in [(5, 960), (4, 0), (7, 2_880), (6, 1_920)] {
            assert_eq!(queue.insert(index, media, 960, Traits::default(), &[index as u8]), Queued::Yes);
        }
        assert_eq!(queue.insert(8, 960, 960, Traits::default(), &[8]), Queued::Duplicate);
        let order: Vec<(u64, Vec<u8>)> =
            std::iter::from_fn(|| queue.pop_front()).map(|packet| (packet.index, packet.payload)).collect();
        assert_eq!(order, [(4, vec![4]), (5, vec![5]), (6, vec![6]), (7, vec![7])]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn memory_comes_back_and_is_bounded() {
        let mut queue = Queue::default();
        for media in 0..20 {
            queue.insert(0, media, 1, Traits::default(), &[0; 100]);
        }
        let packets: Vec<Packet> = std::iter::from_fn(|| queue.pop_front()).collect();
        let memory: Vec<*const u8> = packets.iter().map(|packet| packet.payload.as_ptr()).collect();
        packets.into_iter().for_each(|packet| queue.recycle(packet));
        assert_eq!(queue.spare.len(), MAX_SPARE);
        queue.insert(0, 0, 1, Traits::default(), &[1; 50]);
        let packet = queue.pop_front().unwrap();
        assert_eq!((packet.payload.as_ptr(), &packet.payload[..]), (memory[MAX_SPARE - 1], &[1; 50][..]));
    }
}
