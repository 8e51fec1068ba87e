//! From payloads to PCM.

use streamfleet_audio::resample::Resampler;
use streamfleet_audio::{AudioError, g711};

use crate::codec::WireCodec;

/// The rates that libopus decodes to, in Hz.
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// libopus's own clock, in Hz.
const OPUS_CLOCK: u32 = 48_000;
/// The longest Opus packet: 120 ms (RFC 6716, 3.2.5).
const LONGEST_OPUS: usize = 5_760;

/// A payload that is not of the session's codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// 16-bit samples of which one is half.
    #[error("pcm16 must have an even number of bytes")]
    OddPcm,
    /// Not an Opus packet.
    #[error("a payload must be one Opus packet")]
    NotOpus,
}

/// Decodes one stream to mono at its handler's rate.
#[derive(Debug)]
pub(super) struct Decoder {
    engine: Engine,
    /// The rate that the engine gives, in Hz.
    native: u32,
    resampling: Option<Resampling>,
}

#[derive(Debug)]
enum Engine {
    MuLaw,
    Pcm16,
    Opus(opus::Decoder),
}

#[derive(Debug)]
struct Resampling {
    resampler: Resampler,
    native: Vec<i16>,
}

impl Decoder {
    /// A decoder to `rate` Hz.
    pub(super) fn new(codec: WireCodec, rate: u32) -> Result<Self, AudioError> {
        let (engine, native) = match codec {
            WireCodec::MuLaw | WireCodec::Telephone => (Engine::MuLaw, codec.rate(rate)),
            WireCodec::Pcm16 => (Engine::Pcm16, codec.rate(rate)),
            WireCodec::Opus => {
                let native = OPUS_RATES.into_iter().find(|&native| native >= rate).unwrap_or(OPUS_CLOCK);
                (Engine::Opus(opus::Decoder::new(native, opus::Channels::Mono)?), native)
            }
        };
        let resampling =
            (native != rate).then(|| Resampling { resampler: Resampler::new(native, rate, 1), native: Vec::new() });
        Ok(Self { engine, native, resampling })
    }

    /// The rate in which [`Self::length`] counts, in Hz.
    pub(super) fn clock(&self) -> u32 {
        self.native
    }

    /// Samples in a payload.
    pub(super) fn length(&self, payload: &[u8]) -> Result<usize, BadPayload> {
        match &self.engine {
            Engine::MuLaw => Ok(payload.len()),
            Engine::Pcm16 if payload.len() % 2 == 1 => Err(BadPayload::OddPcm),
            Engine::Pcm16 => Ok(payload.len() / 2),
            Engine::Opus(_) if payload.is_empty() => Ok(0),
            Engine::Opus(_) => match opus::packet::get_nb_samples(payload, OPUS_CLOCK) {
                Ok(ticks @ 1..=LONGEST_OPUS) => Ok(ticks * self.native as usize / OPUS_CLOCK as usize),
                _ => Err(BadPayload::NotOpus),
            },
        }
    }

    /// Whether the beginning of a payload can be had without its end.
    pub(super) fn is_divisible(&self) -> bool {
        !matches!(self.engine, Engine::Opus(_))
    }

    /// Appends the first `length` samples of a payload, which [`Self::length`] has found to be one.
    pub(super) fn decode(&mut self, payload: &[u8], length: usize, out: &mut Vec<i16>) -> Result<(), BadPayload> {
        match &mut self.resampling {
            None => self.engine.decode(payload, length, out),
            Some(Resampling { resampler, native }) => {
                native.clear();
                self.engine.decode(payload, length, native)?;
                resampler.process(native, out);
                Ok(())
            }
        }
    }
}

impl Engine {
    fn decode(&mut self, payload: &[u8], length: usize, out: &mut Vec<i16>) -> Result<(), BadPayload> {
        match self {
            Self::MuLaw => out.extend(payload.iter().take(length).map(|&byte| g711::MU_LAW[usize::from(byte)])),
            Self::Pcm16 => {
                out.extend(payload.as_chunks::<2>().0.iter().take(length).map(|&bytes| i16::from_le_bytes(bytes)));
            }
            // An empty payload is a pause, not a loss to be concealed.
            Self::Opus(_) if length == 0 => {}
            Self::Opus(decoder) => {
                let start = out.len();
                out.resize(start + length, 0);
                let decoded = decoder.decode(payload, &mut out[start..], false);
                out.truncate(start + decoded.as_ref().map_or(0, |&samples| samples.min(length)));
                decoded.map_err(|_| BadPayload::NotOpus)?;
            }
        }
        Ok(())
    }
}
