//! Words shared by both directions: sample formats, codecs, errors.

use std::time::Duration;

use crate::decoder::inspect;

/// The shape of PCM audio: interleaved signed 16-bit samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PcmFormat {
    /// Sample rate in Hz, per channel.
    pub rate: u32,
    /// Interleaved channels: 1 is mono, 2 is left, right.
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

    /// How long `samples` interleaved samples (all channels counted) last. A format without a rate or without channels
    /// has no time: zero.
    #[must_use]
    pub fn duration(self, samples: usize) -> Duration {
        if self.rate == 0 || self.channels == 0 {
            return Duration::ZERO;
        }
        let frames = samples as u64 / u64::from(self.channels);
        let rate = u64::from(self.rate);
        // Split before multiplying: a sample count times 10^9 would overflow after half a day of audio at 192 kHz.
        Duration::new(frames / rate, ((frames % rate) * 1_000_000_000 / rate) as u32)
    }

    /// Interleaved samples (all channels counted) in `time`, rounded down to a whole sample of every channel.
    #[must_use]
    pub fn samples_in(self, time: Duration) -> usize {
        let frames = time.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        usize::try_from(frames * u128::from(self.channels)).unwrap_or(usize::MAX)
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

    /// How long an RTP payload lasts, read from it without decoding. `None` if it is empty or, for Opus, longer than
    /// the 120 ms of RFC 6716, 3.4.
    #[must_use]
    pub fn payload_duration(self, payload: &[u8]) -> Option<Duration> {
        let (ticks, _) = inspect(self, payload)?;
        Some(PcmFormat::mono(self.clock_rate()).duration(ticks as usize))
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
    fn durations_and_sample_counts() {
        fn check(rate: u32, channels: u16, samples: usize, expected: Duration) {
            let format = PcmFormat { rate, channels };
            assert_eq!(format.duration(samples), expected, "{format:?} {samples}");
        }
        check(8_000, 1, 160, Duration::from_millis(20));
        check(24_000, 1, 480, Duration::from_millis(20));
        check(48_000, 1, 960, Duration::from_millis(20));
        check(48_000, 2, 1_920, Duration::from_millis(20));
        check(44_100, 1, 44_100, Duration::from_secs(1));
        check(8_000, 1, 0, Duration::ZERO);
        check(0, 1, 960, Duration::ZERO);
        check(48_000, 0, 960, Duration::ZERO);
        check(192_000, 1, usize::MAX, Duration::new(96_076_792_050_570, 581_328_125));
        assert_eq!(PcmFormat { rate: 48_000, channels: 2 }.samples_in(Duration::from_millis(20)), 1_920);
        assert_eq!(PcmFormat::mono(44_100).samples_in(Duration::from_micros(33)), 1, "rounded down");
        assert_eq!(PcmFormat::mono(0).samples_in(Duration::MAX), 0);
    }

    #[test]
    fn payload_durations() {
        fn check(codec: Codec, payload: &[u8], expected: Option<Duration>) {
            assert_eq!(codec.payload_duration(payload), expected, "{codec:?}");
        }
        check(Codec::Opus, &[0x78, 0, 0], Some(Duration::from_millis(20)));
        check(Codec::Opus, &[16 << 3, 0, 0], Some(Duration::from_micros(2_500)));
        check(Codec::Opus, &[], None);
        check(Codec::Pcmu, &[0xff; 160], Some(Duration::from_millis(20)));
        check(Codec::Pcma, &[0xd5; 80], Some(Duration::from_millis(10)));
        check(Codec::Pcma, &[], None);
    }
}
