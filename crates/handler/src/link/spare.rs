//! A small pool of sample buffers.

/// Buffers kept: one being filled and one being read on each side. More would be memory held by quiet sessions.
const MAX_BUFFERS: usize = 4;

/// The largest buffer kept, in samples: 60 ms of 48 kHz stereo. A handler's long sentence is given back to the
/// allocator.
const MAX_CAPACITY: usize = 5_760;

#[derive(Default)]
pub(super) struct Spare {
    buffers: Vec<Vec<i16>>,
}

impl Spare {
    /// An empty buffer.
    pub(super) fn take(&mut self) -> Vec<i16> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Keeps the buffer's memory if it is worth it.
    pub(super) fn put(&mut self, mut buffer: Vec<i16>) {
        if self.buffers.len() < MAX_BUFFERS && (1..=MAX_CAPACITY).contains(&buffer.capacity()) {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_bounded() {
        let mut spare = Spare::default();
        spare.put(vec![1; 960]);
        let buffer = spare.take();
        assert!(buffer.is_empty() && buffer.capacity() == 960);
        assert_eq!(spare.take().capacity(), 0, "nothing left");
        spare.put(Vec::new());
        spare.put(vec![1; MAX_CAPACITY + 1]);
        assert_eq!(spare.buffers.len(), 0, "neither is worth keeping");
        for _ in 0..100 {
            spare.put(vec![1; 480]);
        }
        assert_eq!(spare.buffers.len(), MAX_BUFFERS);
    }
}
