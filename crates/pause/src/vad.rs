//! Voice activity: which stretches of audio are speech.

use std::num::NonZeroUsize;

use crate::gate::{Gate, GateOptions, Meter, Room, attenuation};

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

/// How many hops before one that is no silence the model hears as well, if it was not asked about them: the beginning of a
/// word is soft, and the model looks at three hops at once and remembers some more.
const LOOK_BACK: usize = 6;

/// The detector that ships in the binary: the `earshot` model (a convolution and two recurrent layers, 40 KiB of
/// weights) in front of a [gate](crate::gate) that wants speech to stand out of the room it is heard in.
///
/// The model tells voice from noise. It cannot tell the caller's voice from other voices further away, and takes loud
/// music for somewhat of a voice: that is what the gate is for.
///
/// The model is the costly part, and it is not asked about silence, where its opinion could make no difference: below the
/// level of all speech, but for the few hops before something is heard. Most of a call is silent, and costs a thirtieth.
pub struct Earshot {
    model: Box<earshot::Detector>,
    options: GateOptions,
    meter: Meter,
    room: Room,
    gate: Gate,
    /// The hops that the model was not asked about, the latest only: hop n is at n modulo [`LOOK_BACK`].
    passed: Box<[[i16; EARSHOT_HOP.get()]; LOOK_BACK]>,
    /// How many there are since the model was last asked.
    passed_hops: usize,
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
        Self {
            model: earshot::Detector::default_boxed(),
            options,
            meter: Meter::default(),
            room: Room::new(&options),
            gate: Gate::new(options),
            passed: Box::new([[0; EARSHOT_HOP.get()]; LOOK_BACK]),
            passed_hops: 0,
        }
    }

    /// The model's probability of speech in a hop that it has not passed over.
    fn probability(&mut self, hop: &[i16; EARSHOT_HOP.get()]) -> f32 {
        let factor = attenuation(&self.options, self.room.floor()) / 32_768.0;
        let mut predict =
            |hop: &[i16; EARSHOT_HOP.get()]| self.model.predict_f32(&hop.map(|sample| f32::from(sample) * factor));
        for hop in self.passed_hops.saturating_sub(LOOK_BACK)..self.passed_hops {
            predict(&self.passed[hop % LOOK_BACK]);
        }
        self.passed_hops = 0;
        predict(hop)
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
        let Ok(hop): Result<&[i16; EARSHOT_HOP.get()], _> = hop.try_into() else { return Activity::Silence };
        let level = self.room.hear(self.meter.dbfs(hop));
        let probability = if level >= self.options.least_level {
            // Also where it makes no difference: what the model makes of a noise depends on what it has heard before.
            Some(self.probability(hop)).filter(|_| self.gate.may_speak(level, self.room.floor()))
        } else {
            self.passed[self.passed_hops % LOOK_BACK] = *hop;
            self.passed_hops += 1;
            None
        };
        let activity = self.gate.decide(probability);
        self.room.learn(activity);
        activity
    }

    fn reset(&mut self) {
        self.model.reset();
        self.meter = Meter::default();
        self.room.forget_stream();
        self.gate.forget_stream();
        self.passed_hops = 0;
    }
}

impl std::fmt::Debug for Earshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Earshot").field("room", &self.room).field("gate", &self.gate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    /// What the crate's documentation says that a session keeps of it.
    #[test]
    fn it_takes_twelve_kilobytes() {
        let bytes = size_of::<Earshot>() + size_of::<earshot::Detector>() + size_of_val(&*Earshot::new().passed);
        assert!((11_500..12_500).contains(&bytes), "{bytes}");
    }

    /// A noise that does not stand out is heard without gaps: with gaps, the model took the chords of a piece of music for
    /// words, one after the other.
    #[test]
    fn the_model_hears_everything_but_silence() {
        let mut vad = Earshot::new();
        let hop = |level: i16| -> Vec<i16> { (0..256).map(|at| if at % 32 < 16 { level } else { -level }).collect() };
        for silent in 1..=20 {
            vad.hear(&hop(1));
            assert_eq!(vad.passed_hops, silent);
        }
        // The level is smoothed: the second or third is heard.
        for _ in 0..3 {
            vad.hear(&hop(9_000));
        }
        assert_eq!(vad.passed_hops, 0);
        for _ in 0..2_000 {
            vad.hear(&hop(300));
        }
        assert!(!vad.gate.may_speak(-43.0, vad.room.floor()), "{}", vad.room.floor());
        assert_eq!(vad.passed_hops, 0);
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
