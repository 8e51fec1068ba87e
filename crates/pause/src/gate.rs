//! From a model's probability to a decision: the room, and speech that stands out of it.
//!
//! A model of voice activity hears voices, not distances: in a café it hears speech without end, and nobody who speaks
//! there ever pauses. And it is surer of everything that is loud: what it makes of music grows with the volume. The
//! caller is the loudest voice. So the level that the room has while the caller is silent is followed all the time, and
//! used twice: what the model hears is turned down until that level is a quiet room's, and speech is only what is likely
//! a voice *and* stands out.
//!
//! What has been decided to be speech counts little for the room: a caller who talks for a quarter of a minute must not
//! become what they have to stand out of. It does count, or a noise that is taken for speech would be one for ever.

use crate::Activity;

/// Bins of the level histogram: 1 dB each, from [`QUIETEST`] to 0 dBFS.
const BINS: usize = 101;

/// Digital silence, in dBFS.
const QUIETEST: f32 = -100.0;

/// The thresholds. The defaults were chosen on other recordings than those they are reported on; see
/// `examples/compare`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateOptions {
    /// Probability from which silence turns into speech.
    pub enter: f32,
    /// Probability below which speech turns into silence.
    pub leave: f32,
    /// How far speech stands out of the room, in dB.
    pub margin: f32,
    /// How many hops that are no speech are bridged, once as many have been speech: a closed mouth between two syllables.
    pub hold_hops: u32,
    /// Which part of the recent past of the room is quieter than the level that counts as the room's: 0.0 to 1.0.
    pub floor_quantile: f32,
    /// How long the past is remembered, in hops: what is so old counts a third of what is new.
    pub memory_hops: f32,
    /// How much a hop of speech counts for the room, where another counts 1.0. Not nothing: what is taken for speech
    /// without end becomes the room at last.
    pub speech_weight: f32,
    /// How many hops of a quiet room are believed in before anything has been heard.
    pub prior_hops: f32,
    /// The level, in dBFS, that a louder room is turned down to before the model hears it.
    pub room_level: f32,
    /// Nothing below this level, in dBFS, is speech.
    pub least_level: f32,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self {
            enter: 0.7,
            leave: 0.25,
            margin: 2.0,
            hold_hops: 1,
            floor_quantile: 0.75,
            memory_hops: 1_700.0,
            speech_weight: 0.05,
            prior_hops: 15.0,
            room_level: -55.0,
            least_level: -65.0,
        }
    }
}

/// What is known about the room that a stream comes from: 500 bytes, a hundred operations a hop.
#[derive(Clone, Debug)]
pub struct Room {
    quantile: f32,
    /// By how much what is new counts more than what was a hop ago.
    growth: f32,
    speech_growth: f32,
    speech_weight: f32,
    histogram: [f32; BINS],
    total: f32,
    /// What a new hop counts. It grows, where all others would have to shrink.
    weight: f32,
    /// The level smoothed over some hops: a syllable and the gap after it are one.
    level: Option<f32>,
    floor: f32,
}

impl Room {
    /// A quiet room, until the contrary is heard: whoever speaks first is heard at once.
    #[must_use]
    pub fn new(options: &GateOptions) -> Self {
        let mut histogram = [0.0; BINS];
        histogram[bin(options.least_level)] = options.prior_hops;
        let speech_weight = options.speech_weight.clamp(0.0, 1.0);
        let growth = 1.0 + 1.0 / options.memory_hops.max(1.0);
        Self {
            quantile: options.floor_quantile,
            growth,
            speech_growth: growth.powf(speech_weight),
            speech_weight,
            histogram,
            total: options.prior_hops,
            weight: 1.0,
            level: None,
            floor: options.least_level,
        }
    }

    /// Hears a hop's level in dBFS, and gives it smoothed over about 50 ms.
    pub fn hear(&mut self, level_dbfs: f32) -> f32 {
        /// A third of the new hop.
        const WEIGHT: f32 = 0.35;
        let level = if level_dbfs.is_nan() { QUIETEST } else { level_dbfs.clamp(QUIETEST, 0.0) };
        let smoothed = self.level.map_or(level, |before| before + WEIGHT * (level - before));
        self.level = Some(smoothed);
        smoothed
    }

    /// Learns from the hop last heard, which was decided to be this.
    pub fn learn(&mut self, activity: Activity) {
        /// Far from where 24 bits cannot tell the newest hop from none.
        const MUCH: f32 = 1e6;
        let Some(level) = self.level else { return };
        let (share, growth) = match activity {
            Activity::Silence => (1.0, self.growth),
            Activity::Speech => (self.speech_weight, self.speech_growth),
        };
        self.weight *= growth;
        let weight = share * self.weight;
        self.histogram[bin(level)] += weight;
        self.total += weight;
        if self.weight > MUCH {
            let factor = self.weight.recip();
            self.histogram.iter_mut().for_each(|counted| *counted *= factor);
            self.total = self.histogram.iter().sum();
            self.weight = 1.0;
        }
        self.floor = self.quietest_part();
    }

    /// The level that the room has by itself, in dBFS.
    #[must_use]
    pub fn floor(&self) -> f32 {
        self.floor
    }

    /// The stream begins anew; the room is still the same.
    pub fn forget_stream(&mut self) {
        self.level = None;
    }

    fn quietest_part(&self) -> f32 {
        let wanted = self.total * self.quantile;
        let mut below = 0.0;
        for (at, weight) in self.histogram.iter().enumerate() {
            below += weight;
            if below >= wanted {
                return QUIETEST + at as f32;
            }
        }
        0.0
    }
}

fn bin(level: f32) -> usize {
    (level.clamp(QUIETEST, 0.0) - QUIETEST).round() as usize
}

/// Hysteresis in probability, a margin in level, and a bridge over what is too short to be a pause. One margin for both
/// ways: what begins to stand out less has usually ended.
#[derive(Clone, Debug)]
pub struct Gate {
    options: GateOptions,
    /// Whether the last hop was speech by itself.
    last: Activity,
    /// How many hops in a row were, up to `hold_hops`.
    run: u32,
    /// How many more hops are bridged.
    held: u32,
}

impl Gate {
    /// A gate that has heard nothing.
    #[must_use]
    pub fn new(options: GateOptions) -> Self {
        Self { options, last: Activity::Silence, run: 0, held: 0 }
    }

    /// Whether a hop of this level in a room of that, both in dBFS, could be speech at all. If not, the model's opinion
    /// makes no difference.
    #[must_use]
    pub fn may_speak(&self, level: f32, floor: f32) -> bool {
        level - floor >= self.options.margin && level >= self.options.least_level
    }

    /// Decides about a hop that [may be speech](Gate::may_speak), from the model's probability of it (0.0 to 1.0; what is
    /// not a number is no speech); `None` for one that may not.
    pub fn decide(&mut self, probability: Option<f32>) -> Activity {
        let threshold = match self.last {
            Activity::Silence => self.options.enter,
            Activity::Speech => self.options.leave,
        };
        let speaks = probability.is_some_and(|probability| probability >= threshold);
        self.last = if speaks { Activity::Speech } else { Activity::Silence };
        self.bridged()
    }

    fn bridged(&mut self) -> Activity {
        match self.last {
            Activity::Speech => {
                self.run = (self.run + 1).min(self.options.hold_hops);
                if self.run == self.options.hold_hops {
                    self.held = self.options.hold_hops;
                }
                Activity::Speech
            }
            Activity::Silence => {
                self.run = 0;
                let bridged = self.held > 0;
                self.held = self.held.saturating_sub(1);
                if bridged { Activity::Speech } else { Activity::Silence }
            }
        }
    }

    /// The stream begins anew.
    pub fn forget_stream(&mut self) {
        (self.last, self.run, self.held) = (Activity::Silence, 0, 0);
    }
}

/// Measures levels in the band where voices are strongest, about 150 to 1 000 Hz: a voice stands out of hiss there by
/// some 8 dB more than in the whole band, and the hum of a machine does not count.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    lower: f32,
}

impl Meter {
    /// The level of a hop in dB relative to a full-scale square wave; digital silence is at -100.
    pub fn dbfs(&mut self, hop: &[i16]) -> f32 {
        /// Sums of eight samples are a low pass at 900 Hz, and eight times fewer to go on with.
        const SUMMED: usize = 8;
        /// A one-pole filter at 150 Hz, at the rate of the sums: 1 - exp(-2 pi f / 2 000).
        const LOWER: f32 = 0.375_7;
        let mut energy = 0.0;
        let mut count = 0;
        for eight in hop.chunks(SUMMED) {
            let sum: i32 = eight.iter().map(|&sample| i32::from(sample)).sum();
            let low = sum as f32 / SUMMED as f32;
            self.lower += LOWER * (low - self.lower);
            energy += (low - self.lower).powi(2);
            count += 1;
        }
        let mean_square = energy / count.max(1) as f32 / (32_768.0 * 32_768.0);
        10.0 * mean_square.max(1e-10).log10()
    }
}

/// How much the model's input is turned down in a room of this level: a factor from 0.0 to 1.0. Never up: in a quiet room
/// everything is heard as it is.
#[must_use]
pub fn attenuation(options: &GateOptions, floor: f32) -> f32 {
    10_f32.powf((options.room_level - floor).min(0.0) / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activity::{Silence, Speech};

    /// Not the defaults: those are found by measurement, and may change.
    const OPTIONS: GateOptions = GateOptions {
        enter: 0.7,
        leave: 0.2,
        margin: 3.0,
        hold_hops: 0,
        floor_quantile: 0.65,
        memory_hops: 1_700.0,
        speech_weight: 0.2,
        prior_hops: 15.0,
        room_level: -55.0,
        least_level: -65.0,
    };

    fn decide(gate: &mut Gate, probability: f32, level: f32, floor: f32) -> Activity {
        let asked = gate.may_speak(level, floor);
        gate.decide(asked.then_some(probability))
    }

    fn decided(probability: f32, level: f32, floor: f32, hops: usize) -> Activity {
        let mut gate = Gate::new(OPTIONS);
        (0..hops).map(|_| decide(&mut gate, probability, level, floor)).last().unwrap()
    }

    #[test]
    fn levels_are_those_of_the_band() {
        fn check(hz: f32, expected: f32, within: f32) {
            let tone: Vec<i16> = (0..16_000)
                .map(|at| (3_276.8 * (std::f32::consts::TAU * hz * at as f32 / 16_000.0).sin()) as i16)
                .collect();
            let level = Meter::default().dbfs(&tone);
            assert!((level - expected).abs() < within, "{hz} Hz: {level} dBFS, not {expected}");
        }
        check(400.0, -26.3, 1.0);
        check(20.0, -42.7, 1.0);
        check(5_000.0, -43.8, 2.0);
        assert_eq!(Meter::default().dbfs(&[0; 256]), -100.0);
        assert_eq!(Meter::default().dbfs(&[]), -100.0);
    }

    #[test]
    fn speech_is_probable_and_stands_out() {
        fn check(probability: f32, level: f32, floor: f32, expected: Activity) {
            assert_eq!(decided(probability, level, floor, 1), expected, "{probability} at {level} in {floor}");
        }
        check(0.9, -30.0, -60.0, Speech);
        check(0.69, -30.0, -60.0, Silence);
        check(0.9, -30.0, -32.0, Silence);
        check(0.9, -66.0, -90.0, Silence);
        check(f32::NAN, -30.0, -60.0, Silence);
        check(0.9, f32::NAN, -60.0, Silence);
    }

    #[test]
    fn what_has_begun_goes_on_at_less() {
        let mut gate = Gate::new(OPTIONS);
        let mut decide = |probability| decide(&mut gate, probability, -30.0, -60.0);
        assert_eq!([0.5, 0.7, 0.3, 0.1, 0.3].map(&mut decide), [Silence, Speech, Speech, Silence, Silence]);
    }

    #[test]
    fn what_has_gone_on_is_bridged_and_a_click_is_not() {
        let mut gate = Gate::new(GateOptions { hold_hops: 2, ..OPTIONS });
        let mut decide = |speaks: bool| gate.decide(speaks.then_some(0.9));
        let heard = [true, false, true, true, false, true, false, false, false, false].map(&mut decide);
        assert_eq!(heard[..4], [Speech, Silence, Speech, Speech]);
        assert_eq!(heard[4..], [Speech, Speech, Speech, Silence, Silence, Silence]);
        gate.decide(Some(0.9));
        gate.decide(Some(0.9));
        gate.forget_stream();
        assert_eq!(gate.decide(None), Silence);
    }

    fn hear(room: &mut Room, hops: usize, level: f32, activity: Activity) {
        for _ in 0..hops {
            room.hear(level);
            room.learn(activity);
        }
    }

    #[test]
    fn the_room_is_what_is_heard_between_words_however_long_they_are() {
        let mut room = Room::new(&OPTIONS);
        assert_eq!(room.floor(), -65.0);
        for _ in 0..20 {
            hear(&mut room, 300, -48.0, Silence);
            // Ten seconds without a breath.
            hear(&mut room, 600, -25.0, Speech);
            assert!((room.floor() + 48.0).abs() <= 1.0, "{}", room.floor());
        }
        assert!((room.floor() + 48.0).abs() <= 1.0, "{}", room.floor());
        for level in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e9] {
            hear(&mut room, 1, level, Silence);
            assert!((-100.0..=0.0).contains(&room.floor()));
        }
    }

    #[test]
    fn another_room_is_believed_in_and_what_is_taken_for_speech_at_last() {
        let settled = || {
            let mut room = Room::new(&OPTIONS);
            hear(&mut room, 20_000, -60.0, Silence);
            room
        };
        let mut room = settled();
        // The window is opened: within fifteen seconds.
        hear(&mut room, 940, -30.0, Silence);
        assert!((room.floor() + 30.0).abs() <= 1.0, "{}", room.floor());
        let mut room = settled();
        hear(&mut room, 940, -30.0, Speech);
        assert!((room.floor() + 60.0).abs() <= 1.0, "{}", room.floor());
        hear(&mut room, 10_000, -30.0, Speech);
        assert!((room.floor() + 30.0).abs() <= 1.0, "{}", room.floor());
    }

    #[test]
    fn the_weights_of_a_week_are_those_of_the_last_minute() {
        let mut room = Room::new(&OPTIONS);
        hear(&mut room, 100_000, -60.0, Silence);
        for _ in 0..50 {
            hear(&mut room, 2_000, -30.0, Silence);
            assert!((room.floor() + 30.0).abs() <= 1.0, "{}", room.floor());
            hear(&mut room, 2_000, -60.0, Silence);
            assert!((room.floor() + 60.0).abs() <= 1.0, "{}", room.floor());
            assert!(room.total.is_finite() && room.weight < 2e6);
        }
    }

    #[test]
    fn loud_rooms_are_turned_down_and_quiet_ones_left_alone() {
        fn check(floor: f32, expected: f32) {
            let factor = attenuation(&OPTIONS, floor);
            assert!((factor - expected).abs() < 0.001, "{floor} dBFS: {factor}");
        }
        check(-80.0, 1.0);
        check(-55.0, 1.0);
        check(-35.0, 0.1);
        check(-15.0, 0.01);
    }
}
