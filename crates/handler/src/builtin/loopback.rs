//! What the handlers that send a client's own audio back have in common.

use std::num::NonZeroUsize;

use crate::{AudioFrame, Emit, Media, PcmFormat, Queue};

/// Frames that wait between a handler's `receive` and `emit`: 200 ms of 20 ms frames. What is older is dropped: an
/// echo that has fallen behind is of no use.
const FRAMES_WAITING: NonZeroUsize = NonZeroUsize::new(10).expect("ten is not zero");

/// Mono frames on their way from `receive` to `emit`.
#[derive(Debug)]
pub(super) struct Loopback {
    format: PcmFormat,
    output: PcmFormat,
    waiting: Queue<AudioFrame>,
}

impl Loopback {
    /// For audio of `rate` Hz.
    pub(super) fn new(rate: u32) -> Self {
        Self::between(rate, rate)
    }

    /// For audio that is heard at `input` Hz and sent at `output` Hz, where the transport converts.
    pub(super) fn between(input: u32, output: u32) -> Self {
        Self { format: PcmFormat::mono(input), output: PcmFormat::mono(output), waiting: Queue::new(FRAMES_WAITING) }
    }

    /// The same for another session: nothing waits.
    pub(super) fn copy(&self) -> Self {
        Self::between(self.format.rate, self.output.rate)
    }

    pub(super) fn media(&self) -> Media {
        Media::Frames { input: self.format, output: self.output }
    }

    pub(super) fn push(&self, frame: AudioFrame) {
        self.waiting.push(frame);
    }

    /// The next frame, once there is one.
    pub(super) async fn emit(&self) -> Emit {
        Emit::Audio(self.waiting.next().await)
    }

    pub(super) fn clear(&self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::testing::sine;

    #[test]
    fn the_newest_frames_are_kept_until_an_interruption() {
        let loopback = Loopback::new(24_000);
        let frames: Vec<_> = sine(PcmFormat::mono(24_000), 440.0, -20.0).take(13).collect();
        frames.iter().for_each(|frame| loopback.push(frame.clone()));
        for frame in &frames[3..8] {
            assert_eq!(loopback.emit().now_or_never(), Some(Emit::Audio(frame.clone())));
        }
        assert_eq!(loopback.copy().emit().now_or_never(), None, "a copy is another session's");
        loopback.clear();
        assert_eq!(loopback.emit().now_or_never(), None);
    }
}
