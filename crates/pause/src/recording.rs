//! The audio that may still become part of an utterance.

use std::ops::Range;

/// A stretch of interleaved samples, addressed by frame (one sample of every channel) since the beginning of the stream.
///
/// Its owner bounds it, by letting go of what no utterance can begin with.
#[derive(Debug)]
pub(crate) struct Recording {
    channels: usize,
    samples: Vec<i16>,
    /// The first frame held.
    from: u64,
}

impl Recording {
    pub(crate) fn new(channels: usize) -> Self {
        Self { channels, samples: Vec::new(), from: 0 }
    }

    /// Appends interleaved samples.
    pub(crate) fn push(&mut self, samples: &[i16]) {
        self.samples.extend_from_slice(samples);
    }

    /// Lets go of what lies before frame `keep`. Samples move only once a quarter of what is held is of no use, so that
    /// a stream of small hops does not move every sample again and again.
    pub(crate) fn trim(&mut self, keep: u64) {
        let gone = self.index(keep);
        if gone > self.samples.len() / 4 {
            self.drop_front(gone);
            // A long utterance leaves its capacity behind; a session that listens must not keep a minute's worth. Half as
            // much again is more than it grows until the next time.
            self.samples.shrink_to(self.samples.len() / 2 * 3);
        }
    }

    /// Takes these frames out, and lets go of everything before their end. What is not held is not in the result.
    pub(crate) fn take(&mut self, range: &Range<u64>) -> Vec<i16> {
        let (start, end) = (self.index(range.start), self.index(range.end));
        let rest = self.samples.split_off(end);
        let mut taken = std::mem::replace(&mut self.samples, rest);
        self.from += (end / self.channels) as u64;
        taken.drain(..start);
        taken
    }

    /// Forgets everything; the next sample pushed is frame `from`.
    pub(crate) fn clear(&mut self, from: u64) {
        self.samples.clear();
        self.from = from;
    }

    /// The memory held.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.samples.capacity() * size_of::<i16>()
    }

    #[cfg(test)]
    pub(crate) fn frames(&self) -> usize {
        self.samples.len() / self.channels
    }

    /// The index of a frame's first sample, within what is held.
    fn index(&self, frame: u64) -> usize {
        let frames = usize::try_from(frame.saturating_sub(self.from)).unwrap_or(usize::MAX);
        frames.saturating_mul(self.channels).min(self.samples.len())
    }

    fn drop_front(&mut self, samples: usize) {
        self.samples.drain(..samples);
        self.from += (samples / self.channels) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_by_their_place_in_the_stream() {
        let mut recording = Recording::new(2);
        recording.push(&[0, 100, 1, 101, 2, 102, 3, 103]);
        recording.push(&[4, 104, 5, 105]);
        assert_eq!(recording.take(&(1..3)), [1, 101, 2, 102]);
        assert_eq!(recording.take(&(0..1)), [0_i16; 0], "gone");
        recording.push(&[6, 106]);
        assert_eq!(recording.take(&(3..5)), [3, 103, 4, 104]);
        assert_eq!(recording.take(&(5..99)), [5, 105, 6, 106], "no more than there is");
        recording.clear(50);
        recording.push(&[50, 150, 51, 151]);
        assert_eq!(recording.take(&(51..52)), [51, 151]);
    }

    #[test]
    fn what_is_of_no_use_goes() {
        let mut recording = Recording::new(1);
        for frame in 0..100_000_u64 {
            recording.push(&[(frame % 30_000) as i16]);
            recording.trim(frame.saturating_sub(1_000));
            assert!(recording.frames() <= 1_002 * 4 / 3);
        }
        assert!(recording.bytes() <= 2 * 1_600, "{}", recording.bytes());
        assert_eq!(recording.take(&(99_990..99_992)), [9_990, 9_991]);
    }
}
