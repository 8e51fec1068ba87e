//! Voice activity: which stretches of audio are speech.

use std::num::NonZeroUsize;

use crate::gate::{Gate, GateOptions, Room, attenuation};

/// The rate of the audio that a [`Vad`] hears, in Hz. Every model in use was trained at it, and speech has little above
/// half of it.
pub const VAD_RATE: u32 = 16_000;

/// What a stretch of audio is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Somebody speaks.
    Speech,
    /// Nobody does, whatever else may be heard.
    Silence,
}

/// A voice activity detector: a stream of short hops in, a decision for each out.
///
/// One instance hears one stream, from its first sample to its last, without gaps. It costs no allocation per hop and
/// never blocks: it runs where the audio is received.
pub trait Vad {
    /// The length of a hop in samples at [`VAD_RATE`]; the same for the life of the instance.
    fn hop(&self) -> NonZeroUsize;

    /// Hears the next hop: mono, [`VAD_RATE`] Hz, exactly [`hop`](Vad::hop) samples. The decision may take into account
    /// everything heard so far. A hop of another length is [`Activity::Silence`].
    fn hear(&mut self, hop: &[i16]) -> Activity;

    /// Forgets the stream: the next hop has nothing to do with the last. What was learned about the room (its noise
    /// floor) may be kept.
    fn reset(&mut self);
}

impl<V: Vad + ?Sized> Vad for Box<V> {
    fn hop(&self) -> NonZeroUsize {
        (**self).hop()
    }

    fn hear(&mut self, hop: &[i16]) -> Activity {
        (**self).hear(hop)
    }

    fn reset(&mut self) {
        (**self).reset();
    }
}

/// 16 ms, what the model was trained on.
const EARSHOT_HOP: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not zero");

/// The detector that ships in the binary: the `earshot` model (a convolution and two recurrent layers, 40 KiB of
/// weights) in front of a [gate](crate::gate) that wants speech to stand out of the room it is heard in.
///
/// The model tells voice from noise. It cannot tell the caller's voice from other voices further away, and takes loud
/// music for somewhat of a voice: that is what the gate is for.
pub struct Earshot {
    model: Box<earshot::Detector>,
    options: GateOptions,
    meter: Meter,
    room: Room,
    gate: Gate,
}

impl Earshot {
    /// A detector at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(GateOptions::default())
    }

    /// As [`new`](Earshot::new), with other thresholds.
    #[must_use]
    pub fn with_options(options: GateOptions) -> Self {
        let model = earshot::Detector::default_boxed();
        let meter = Meter::default();
        Self { model, options, meter, room: Room::new(&options), gate: Gate::new(options) }
    }

    /// The model's probability of speech in a hop, and the levels that the gate compares, in dBFS: the hop's and the
    /// room's. For tuning.
    pub fn measure(&mut self, hop: &[i16; EARSHOT_HOP.get()]) -> (f32, f32, f32) {
        let level = self.room.hear(self.meter.dbfs(hop));
        let floor = self.room.floor();
        let factor = attenuation(&self.options, floor) / 32_768.0;
        let turned_down = hop.map(|sample| f32::from(sample) * factor);
        (self.model.predict_f32(&turned_down), level, floor)
    }
}

impl Default for Earshot {
    fn default() -> Self {
        Self::new()
    }
}

impl Vad for Earshot {
    fn hop(&self) -> NonZeroUsize {
        EARSHOT_HOP
    }

    fn hear(&mut self, hop: &[i16]) -> Activity {
        let Ok(hop) = hop.try_into() else { return Activity::Silence };
        let (probability, level, floor) = self.measure(hop);
        self.gate.decide(probability, level, floor)
    }

    fn reset(&mut self) {
        self.model.reset();
        self.meter = Meter::default();
        self.room.forget_stream();
        self.gate.forget_stream();
    }
}

impl std::fmt::Debug for Earshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Earshot").field("room", &self.room).field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// Measures levels in the band where voices are strongest, about 150 to 1 000 Hz: a voice stands out of hiss there by
/// some 8 dB more than in the whole band, and the hum of a machine does not count.
#[derive(Clone, Debug, Default)]
struct Meter {
    low: f32,
    lower: f32,
}

impl Meter {
    /// The level of a hop in dB relative to a full-scale square wave; digital silence is at -100.
    fn dbfs(&mut self, hop: &[i16]) -> f32 {
        /// One-pole filters at 1 000 and 150 Hz: 1 - exp(-2 pi f / 16 000).
        const LOW: f32 = 0.324_8;
        const LOWER: f32 = 0.057_2;
        let mut energy = 0.0;
        for &sample in hop {
            self.low += LOW * (f32::from(sample) - self.low);
            self.lower += LOWER * (self.low - self.lower);
            energy += (self.low - self.lower).powi(2);
        }
        let mean_square = energy / hop.len().max(1) as f32 / (32_768.0 * 32_768.0);
        10.0 * mean_square.max(1e-10).log10()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_are_those_of_the_band() {
        fn check(hz: f32, expected: f32, within: f32) {
            let tone: Vec<i16> = (0..16_000)
                .map(|at| (3_276.8 * (std::f32::consts::TAU * hz * at as f32 / 16_000.0).sin()) as i16)
                .collect();
            let level = Meter::default().dbfs(&tone);
            assert!((level - expected).abs() < within, "{hz} Hz: {level} dBFS, not {expected}");
        }
        check(400.0, -24.0, 1.0);
        check(20.0, -40.5, 1.0);
        check(6_000.0, -38.5, 2.0);
        assert_eq!(Meter::default().dbfs(&[0; 256]), -100.0);
        assert_eq!(Meter::default().dbfs(&[]), -100.0);
    }

    #[test]
    fn silence_tones_and_wrong_lengths_are_no_speech() {
        fn check(hop: &[i16]) {
            let mut vad = Earshot::new();
            // From the second on: a model needs some hops to know that something has gone on for long.
            let heard = (0..300).map(|_| vad.hear(hop)).skip(60).filter(|&heard| heard == Activity::Speech);
            assert_eq!(heard.count(), 0);
        }
        check(&[0; 256]);
        check(&[1; 256]);
        check(&[i16::MAX; 256]);
        let square: Vec<i16> = (0..256).map(|at| if at % 16 < 8 { 9_000 } else { -9_000 }).collect();
        check(&square);
        check(&[9_000; 255]);
        check(&[]);
    }

    proptest! {
        /// Nothing that a client can send is a panic: neither full-scale noise nor square waves nor clicks.
        #[test]
        fn any_hops_are_heard(hops in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<i16>(), 256),
            prop::collection::vec(prop_oneof![Just(i16::MIN), Just(i16::MAX), Just(0)], 256),
            any::<i16>().prop_map(|sample| vec![sample; 256]),
        ], 1..20)) {
            let mut vad = Earshot::new();
            for hop in &hops {
                vad.hear(hop);
            }
            // A reset detector is as good as new, but for what it knows about the room.
            vad.reset();
            vad.room = Room::new(&GateOptions::default());
            let mut fresh = Earshot::new();
            for hop in &hops {
                prop_assert_eq!(vad.hear(hop), fresh.hear(hop));
            }
        }
    }
}
