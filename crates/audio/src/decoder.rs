//! From payloads to PCM: one face for all codecs.

use crate::jitter::{Continuity, Redundancy, Traits};
use crate::plc::Repeater;
use crate::resample::Resampler;
use crate::{AudioError, Codec, PcmFormat, g711, opus_packet};

/// The rates that libopus decodes to and encodes from, in Hz.
pub(crate) const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// The cheapest rate of Opus that loses nothing of `rate`.
pub(crate) fn opus_rate(rate: u32) -> u32 {
    OPUS_RATES.into_iter().find(|&candidate| candidate >= rate).unwrap_or(48_000)
}

/// Length in RTP clock units and traits of a payload; `None` if it is no packet of the codec.
pub(crate) fn inspect(codec: Codec, payload: &[u8]) -> Option<(u32, Traits)> {
    match codec {
        Codec::Opus => {
            let ticks = opus_packet::ticks(payload)?;
            let redundancy = if opus_packet::has_redundancy(payload) { Redundancy::Previous } else { Redundancy::None };
            let continuity =
                if opus_packet::is_discontinuous(payload) { Continuity::Discontinuous } else { Continuity::Continuous };
            Some((ticks, Traits { redundancy, continuity }))
        }
        Codec::Pcmu | Codec::Pcma => {
            let ticks = u32::try_from(payload.len()).ok()?;
            (ticks > 0).then_some((ticks, Traits::default()))
        }
    }
}

/// Decoder, concealment and, if the rates differ, a resampler.
#[derive(Debug)]
pub(crate) struct Decoder {
    engine: Engine,
    /// What the engine gives.
    native: PcmFormat,
    output: PcmFormat,
    resampling: Option<Resampling>,
}

#[derive(Debug)]
enum Engine {
    Opus(opus::Decoder),
    G711 { table: &'static [i16; 256], repeater: Box<Repeater> },
}

#[derive(Debug)]
struct Resampling {
    resampler: Resampler,
    native: Vec<i16>,
}

impl Decoder {
    /// A decoder to `output`, which has one or two channels.
    pub(crate) fn new(codec: Codec, output: PcmFormat) -> Result<Self, AudioError> {
        let output = output.check(2)?;
        let (engine, native) = match codec {
            Codec::Opus => {
                let native = PcmFormat { rate: opus_rate(output.rate), ..output };
                let channels = if output.channels == 2 { opus::Channels::Stereo } else { opus::Channels::Mono };
                (Engine::Opus(opus::Decoder::new(native.rate, channels)?), native)
            }
            Codec::Pcmu | Codec::Pcma => {
                let table = if codec == Codec::Pcmu { &g711::MU_LAW } else { &g711::A_LAW };
                (Engine::G711 { table, repeater: Box::new(Repeater::new()) }, PcmFormat::mono(8_000))
            }
        };
        let resampling = (native.rate != output.rate).then(|| Resampling {
            resampler: Resampler::new(native.rate, output.rate, native.channels),
            native: Vec::new(),
        });
        Ok(Self { engine, native, output, resampling })
    }

    /// Appends the packet's audio. A packet that cannot be decoded sounds like a lost one.
    pub(crate) fn decode(&mut self, payload: &[u8], ticks: u32, out: &mut Vec<i16>) -> Outcome {
        let mut outcome = Outcome::Decoded;
        self.emit(out, |engine, native, buffer| match engine {
            Engine::Opus(decoder) => {
                let audio = extend(buffer, native, ticks, 48_000);
                if decoder.decode(payload, audio, false).is_err() {
                    outcome = Outcome::Damaged;
                    conceal_opus(decoder, audio);
                }
            }
            Engine::G711 { table, repeater } => {
                let start = buffer.len();
                buffer.extend(payload.iter().map(|&byte| table[usize::from(byte)]));
                repeater.hear(&mut buffer[start..]);
            }
        });
        outcome
    }

    /// Appends `ticks` of the audio before `next`, recovered from its redundancy.
    pub(crate) fn repair(&mut self, next: &[u8], ticks: u32, out: &mut Vec<i16>) {
        self.emit(out, |engine, native, buffer| match engine {
            Engine::Opus(decoder) => {
                let audio = extend(buffer, native, ticks, 48_000);
                if decoder.decode(next, audio, true).is_err() {
                    conceal_opus(decoder, audio);
                }
            }
            Engine::G711 { repeater, .. } => repeater.conceal(extend(buffer, native, ticks, 8_000)),
        });
    }

    /// Appends `ticks` of made-up audio; a multiple of 2.5 ms.
    pub(crate) fn conceal(&mut self, ticks: u32, out: &mut Vec<i16>) {
        self.emit(out, |engine, native, buffer| match engine {
            Engine::Opus(decoder) => conceal_opus(decoder, extend(buffer, native, ticks, 48_000)),
            Engine::G711 { repeater, .. } => repeater.conceal(extend(buffer, native, ticks, 8_000)),
        });
    }

    /// Appends `ticks` of silence.
    pub(crate) fn silence(&mut self, ticks: u32, out: &mut Vec<i16>) {
        self.emit(out, |engine, native, buffer| {
            let clock = if matches!(engine, Engine::Opus(_)) { 48_000 } else { 8_000 };
            extend(buffer, native, ticks, clock);
        });
    }

    fn emit(&mut self, out: &mut Vec<i16>, make: impl FnOnce(&mut Engine, PcmFormat, &mut Vec<i16>)) {
        let start = out.len();
        match &mut self.resampling {
            None => make(&mut self.engine, self.native, out),
            Some(Resampling { resampler, native }) => {
                native.clear();
                make(&mut self.engine, self.native, native);
                resampler.process(native, out);
            }
        }
        if self.native.channels < self.output.channels {
            duplicate_channel(out, start);
        }
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Decoded,
    Damaged,
}

fn conceal_opus(decoder: &mut opus::Decoder, audio: &mut [i16]) {
    // An error leaves the zeros that are already there.
    let _ = decoder.decode(&[], audio, false);
}

/// Appends zeros for `ticks` of a clock and gives them.
fn extend(buffer: &mut Vec<i16>, format: PcmFormat, ticks: u32, clock: u32) -> &mut [i16] {
    let start = buffer.len();
    let frames = u64::from(ticks) * u64::from(format.rate) / u64::from(clock);
    buffer.resize(start + frames as usize * usize::from(format.channels), 0);
    &mut buffer[start..]
}

/// Turns the mono samples from `start` on into stereo.
fn duplicate_channel(out: &mut Vec<i16>, start: usize) {
    let mono = out.len() - start;
    out.resize(start + mono * 2, 0);
    for at in (0..mono).rev() {
        let sample = out[start + at];
        out[start + at * 2] = sample;
        out[start + at * 2 + 1] = sample;
    }
}
