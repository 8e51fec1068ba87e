//! Payloads of media frames to PCM.

use streamfleet_audio::PcmFormat;
use streamfleet_audio::g711::MU_LAW;

use super::options::{SampleRate, SocketCodec};

/// The longest Opus packet, 120 ms (RFC 6716, 3.4), at the highest rate.
const MAX_OPUS: usize = 48_000 * 120 / 1_000;
/// The rates that Opus decodes to.
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// The inbound audio of one call.
pub(crate) struct Decoder {
    rate: u32,
    codec: Codec,
}

enum Codec {
    MuLaw,
    /// With the first half of a sample that a payload ended with.
    Pcm16(Option<u8>),
    Opus(opus::Decoder),
}

impl Decoder {
    pub(crate) fn new(codec: SocketCodec, rate: SampleRate) -> Result<Self, opus::Error> {
        let rate = rate.hz();
        Ok(match codec {
            SocketCodec::MuLaw => Self { rate, codec: Codec::MuLaw },
            SocketCodec::Pcm16 => Self { rate, codec: Codec::Pcm16(None) },
            SocketCodec::Opus => {
                let rate = if OPUS_RATES.contains(&rate) { rate } else { 48_000 };
                Self { rate, codec: Codec::Opus(opus::Decoder::new(rate, opus::Channels::Mono)?) }
            }
        })
    }

    /// The format of what it gives.
    pub(crate) fn format(&self) -> PcmFormat {
        PcmFormat::mono(self.rate)
    }

    /// The samples of one payload; `None` if it cannot be decoded.
    pub(crate) fn decode(&mut self, payload: &[u8]) -> Option<Vec<i16>> {
        match &mut self.codec {
            Codec::MuLaw => Some(payload.iter().map(|byte| MU_LAW[usize::from(*byte)]).collect()),
            Codec::Pcm16(odd) => {
                let mut bytes = odd.take().into_iter().chain(payload.iter().copied());
                let mut samples = Vec::with_capacity(payload.len() / 2 + 1);
                while let Some(low) = bytes.next() {
                    match bytes.next() {
                        Some(high) => samples.push(i16::from_le_bytes([low, high])),
                        None => *odd = Some(low),
                    }
                }
                Some(samples)
            }
            Codec::Opus(decoder) => {
                let mut samples = vec![0; MAX_OPUS];
                let count = decoder.decode(payload, &mut samples, false).ok()?;
                samples.truncate(count);
                Some(samples)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoder(codec: SocketCodec, hz: u32) -> Decoder {
        Decoder::new(codec, SampleRate::new(hz).unwrap()).unwrap()
    }

    #[test]
    fn payloads() {
        assert_eq!(decoder(SocketCodec::MuLaw, 24_000).decode(&[0xFF, 0x80]), Some(vec![0, 32_124]));
        let mut pcm = decoder(SocketCodec::Pcm16, 24_000);
        assert_eq!(pcm.decode(&[1, 0, 2]), Some(vec![1]), "half a sample waits");
        assert_eq!(pcm.decode(&[1, 255, 255]), Some(vec![258, -1]));
        assert_eq!(decoder(SocketCodec::Opus, 44_100).format(), PcmFormat::mono(48_000));
        assert_eq!(decoder(SocketCodec::Opus, 24_000).format(), PcmFormat::mono(24_000));
    }

    proptest! {
        #[test]
        fn no_payload_breaks_a_decoder(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            for codec in [SocketCodec::MuLaw, SocketCodec::Pcm16, SocketCodec::Opus] {
                let _ = decoder(codec, 24_000).decode(&payload);
            }
        }
    }
}
