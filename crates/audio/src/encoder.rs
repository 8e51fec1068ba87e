//! From PCM to payloads: one face for all codecs.

use crate::decoder::opus_rate;
use crate::policy::{Coder, EncoderMode};
use crate::{AudioError, Codec, g711};

/// Room for any Opus frame of 20 ms (RFC 6716, 3.2.1: a frame has at most 1 275 bytes, after one byte of TOC).
const LARGEST: usize = 1_276;

/// Encodes mono blocks of 20 ms.
#[derive(Debug)]
pub(crate) enum Encoder {
    Opus {
        encoder: opus::Encoder,
        rate: u32,
        mode: EncoderMode,
        /// The first octet of the last packet; `None` before the first.
        toc: Option<u8>,
    },
    G711 {
        law: fn(i16) -> u8,
    },
}

impl Encoder {
    /// An encoder that loses as little as possible of input at `rate` Hz.
    pub(crate) fn new(codec: Codec, rate: u32, mode: impl FnOnce(u32) -> EncoderMode) -> Result<Self, AudioError> {
        match codec {
            Codec::Pcmu => Ok(Self::G711 { law: g711::encode_mu_law }),
            Codec::Pcma => Ok(Self::G711 { law: g711::encode_a_law }),
            Codec::Opus => {
                let rate = opus_rate(rate);
                // "Audio" and not "restricted low delay", though the latter looks 4 ms less ahead: only an encoder that
                // has both coders can change between them with the transition frames of RFC 6716, 4.5. Two encoders, or
                // one that is reset, click, and need a second state of 32 kB.
                let encoder = opus::Encoder::new(rate, opus::Channels::Mono, opus::Application::Audio)?;
                let mode = mode(rate);
                let mut this = Self::Opus { encoder, rate, mode, toc: None };
                this.apply(mode)?;
                Ok(this)
            }
        }
    }

    /// The rate of the blocks in Hz.
    pub(crate) fn rate(&self) -> u32 {
        match self {
            Self::Opus { rate, .. } => *rate,
            Self::G711 { .. } => 8_000,
        }
    }

    /// Samples of look-ahead: the end of what was encoded so far is heard only with the next block.
    pub(crate) fn lookahead(&mut self) -> usize {
        match self {
            Self::Opus { encoder, .. } => encoder.get_lookahead().map_or(0, |samples| samples.unsigned_abs() as usize),
            Self::G711 { .. } => 0,
        }
    }

    /// Changes the mode for the next block.
    pub(crate) fn set_mode(&mut self, mode: EncoderMode) -> Result<(), AudioError> {
        match self {
            Self::Opus { mode: current, .. } if *current != mode => self.apply(mode),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, wanted: EncoderMode) -> Result<(), AudioError> {
        let Self::Opus { encoder, mode, .. } = self else { return Ok(()) };
        *mode = wanted;
        // libopus has no public switch between its coders, but its choice is determined by these three: redundancy with
        // expected loss means SILK, and at our bit rates "music" means CELT. A test reads the choice from the packets.
        let (signal, bandwidth) = match wanted.coder {
            Coder::Transform => (opus::Signal::Music, opus::Bandwidth::Fullband),
            Coder::Speech => (opus::Signal::Voice, opus::Bandwidth::Wideband),
        };
        encoder.set_signal(signal)?;
        encoder.set_max_bandwidth(bandwidth)?;
        encoder.set_complexity(wanted.complexity.into())?;
        encoder.set_bitrate(opus::Bitrate::Bits(wanted.bitrate.cast_signed()))?;
        encoder.set_inband_fec(wanted.inband_fec())?;
        encoder.set_packet_loss_perc(wanted.packet_loss_perc.into())?;
        Ok(())
    }

    /// Replaces `payload` by the packet of one block.
    pub(crate) fn encode(&mut self, block: &[i16], payload: &mut Vec<u8>) -> Result<(), AudioError> {
        payload.clear();
        match self {
            Self::G711 { law } => payload.extend(block.iter().map(|&sample| law(sample))),
            Self::Opus { encoder, toc, .. } => {
                payload.resize(LARGEST, 0);
                let length = encoder.encode(block, payload);
                payload.truncate(*length.as_ref().unwrap_or(&0));
                length?;
                *toc = payload.first().copied();
            }
        }
        Ok(())
    }

    /// The packet that says that nothing is sent for now: one without a frame, as libopus makes it (RFC 6716, 2.1.9).
    /// G.711 has none.
    pub(crate) fn pause(&self) -> Option<u8> {
        match self {
            // Code 0: one frame, which is all that follows.
            Self::Opus { toc, .. } => toc.map(|toc| toc & !0b11),
            Self::G711 { .. } => None,
        }
    }
}
