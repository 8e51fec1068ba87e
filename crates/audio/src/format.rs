//! Words shared by both directions: sample formats, codecs, errors.

use std::time::Duration;

/// The shape of interleaved 16-bit PCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PcmFormat {
    /// Samples per second and channel, in Hz.
    pub rate: u32,
    /// Interleaved channels.
    pub channels: u16,
}

impl PcmFormat {
    /// The lowest rate taken: telephone speech.
    pub const MIN_RATE: u32 = 8_000;
    /// The highest rate taken: the highest that sound hardware commonly offers.
    pub const MAX_RATE: u32 = 192_000;
    /// The most channels taken, which is 7.1 surround; everything is mixed down to one or two.
    pub const MAX_CHANNELS: u16 = 8;

    /// One channel at `rate` Hz.
    #[must_use]
    pub const fn mono(rate: u32) -> Self {
        Self { rate, channels: 1 }
    }

    /// How long `samples` interleaved samples last.
    #[must_use]
    pub fn duration(self, samples: usize) -> Duration {
        let frames = samples as u64 / u64::from(self.channels.max(1));
        Duration::from_nanos(frames.saturating_mul(1_000_000_000) / u64::from(self.rate.max(1)))
    }

    /// Refuses what the resampler and the mixer are not built for.
    pub(crate) fn check(self, max_channels: u16) -> Result<Self, AudioError> {
        let rate = (Self::MIN_RATE..=Self::MAX_RATE).contains(&self.rate);
        let channels = (1..=max_channels).contains(&self.channels);
        if rate && channels { Ok(self) } else { Err(AudioError::UnsupportedFormat(self)) }
    }
}

/// An audio codec that can be negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Opus (RFC 6716, RFC 7587).
    Opus,
    /// G.711 mu-law (RFC 3551, 4.5.14).
    Pcmu,
    /// G.711 A-law (RFC 3551, 4.5.14).
    Pcma,
}

impl Codec {
    /// The RTP clock in Hz. Opus counts at 48 kHz whatever rate it was encoded at (RFC 7587, 4.1).
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// The codec of a media type such as `audio/opus`; letter case does not matter (RFC 4855, section 3).
    #[must_use]
    pub fn from_mime(mime: &str) -> Option<Self> {
        let (kind, name) = mime.split_once('/')?;
        if !kind.eq_ignore_ascii_case("audio") {
            return None;
        }
        [Self::Opus, Self::Pcmu, Self::Pcma].into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The encoding name of `a=rtpmap`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }
}

/// Why PCM could not be taken or a codec not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// A rate or channel count outside of what is handled.
    #[error("unsupported PCM format: {} Hz, {} channels", .0.rate, .0.channels)]
    UnsupportedFormat(PcmFormat),
    /// The number of samples is not a multiple of the number of channels.
    #[error("{samples} samples cannot be split into {channels} channels")]
    RaggedFrame {
        /// Samples handed in.
        samples: usize,
        /// Channels they were said to have.
        channels: u16,
    },
    /// The outbound queue has no room; nothing of the frame was taken.
    #[error("the queue holds {queued:?} of audio already")]
    QueueFull {
        /// Audio waiting to be sent.
        queued: Duration,
    },
    /// The lower delay bound is above the upper one, or the upper one is not usable.
    #[error("delay bounds {min:?}..{max:?} are not usable")]
    DelayBounds {
        /// The lower bound asked for.
        min: Duration,
        /// The upper bound asked for.
        max: Duration,
    },
    /// libopus refused.
    #[error("opus: {0}")]
    Opus(#[from] opus::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        fn check(mime: &str, expected: Option<Codec>) {
            assert_eq!(Codec::from_mime(mime), expected, "{mime}");
        }
        check("audio/opus", Some(Codec::Opus));
        check("Audio/OPUS", Some(Codec::Opus));
        check("audio/PCMU", Some(Codec::Pcmu));
        check("audio/pcma", Some(Codec::Pcma));
        check("audio/red", None);
        check("video/opus", None);
        check("opus", None);
        check("", None);
    }

    #[test]
    fn durations() {
        fn check(format: PcmFormat, samples: usize, expected: Duration) {
            assert_eq!(format.duration(samples), expected);
        }
        check(PcmFormat::mono(8_000), 160, Duration::from_millis(20));
        check(PcmFormat { rate: 48_000, channels: 2 }, 1_920, Duration::from_millis(20));
        check(PcmFormat { rate: 0, channels: 0 }, 0, Duration::ZERO);
    }
}
