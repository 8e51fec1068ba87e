//! From a model's probability to a decision: the room, and speech that stands out of it.
//!
//! A model of voice activity hears voices, not distances: in a café it hears speech without end, and nobody who speaks
//! there ever pauses. And it is surer of everything that is loud: what it makes of music grows with the volume. The
//! caller is the loudest voice. So the level that the room has while the caller is silent is followed all the time, and
//! used twice: what the model hears is turned down until that level is a quiet room's, and speech is only what is likely
//! a voice *and* stands out.

use crate::Activity;

/// Bins of the level histogram: 1 dB each, from [`QUIETEST`] to 0 dBFS.
const BINS: usize = 101;

/// Digital silence, in dBFS.
const QUIETEST: f32 = -100.0;

/// The thresholds. The defaults were chosen on other recordings than those they are reported on; see
/// `examples/compare`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GateOptions {
    /// Probability from which silence turns into speech, in a room that the model takes for silent.
    pub enter: f32,
    /// The same in a room that the model takes for speech.
    pub enter_at_most: f32,
    /// How much more probable than the room itself speech must be to begin, between the two.
    pub enter_above_room: f32,
    /// Which part of the time the room is less probable to be speech than what counts as usual for it: 0.0 to 1.0.
    pub usual_quantile: f32,
    /// Probability below which speech turns into silence.
    pub leave: f32,
    /// How far speech stands out of the room, in dB.
    pub margin: f32,
    /// Which part of the recent past is quieter than the level that counts as the room's: 0.0 to 1.0.
    pub floor_quantile: f32,
    /// How long the past is remembered, in hops: what is so old counts a third of what is new.
    pub memory_hops: f32,
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
            enter: 0.65,
            enter_at_most: 0.7,
            enter_above_room: 0.1,
            usual_quantile: 0.92,
            leave: 0.45,
            margin: 4.0,
            floor_quantile: 0.35,
            memory_hops: 1_000.0,
            prior_hops: 15.0,
            room_level: -55.0,
            least_level: -65.0,
        }
    }
}

/// What is known about the room that a stream comes from: 500 bytes, a few hundred operations a hop.
#[derive(Clone, Debug)]
pub struct Room {
    quantile: f32,
    keep: f32,
    histogram: [f32; BINS],
    total: f32,
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
        let keep = 1.0 - 1.0 / options.memory_hops.max(1.0);
        let (quantile, floor) = (options.floor_quantile, options.least_level);
        Self { quantile, keep, histogram, total: options.prior_hops, level: None, floor }
    }

    /// Hears a hop's level in dBFS, and gives it smoothed over about 50 ms.
    pub fn hear(&mut self, level_dbfs: f32) -> f32 {
        /// A third of the new hop.
        const WEIGHT: f32 = 0.35;
        let level = level_dbfs.clamp(QUIETEST, 0.0);
        let smoothed = self.level.map_or(level, |before| before + WEIGHT * (level - before));
        self.level = Some(smoothed);
        for weight in &mut self.histogram {
            *weight *= self.keep;
        }
        self.histogram[bin(smoothed)] += 1.0;
        self.total = self.total * self.keep + 1.0;
        self.floor = self.quietest_part();
        smoothed
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

/// How fast the usual probability follows the room, per hop.
const USUAL_STEP: f32 = 0.01;

/// Hysteresis in probability, and the margin in level. One margin for both ways: what begins to stand out less has
/// usually ended.
#[derive(Clone, Debug)]
pub struct Gate {
    options: GateOptions,
    /// What the model makes of the room most of the time.
    usual: f32,
    last: Activity,
}

impl Gate {
    /// A gate that has heard nothing.
    #[must_use]
    pub fn new(options: GateOptions) -> Self {
        Self { options, usual: 0.0, last: Activity::Silence }
    }

    /// Decides about a hop, from the model's probability of speech (0.0 to 1.0; what is not a number is no speech), its
    /// level and the room's, both in dBFS.
    pub fn decide(&mut self, probability: f32, level: f32, floor: f32) -> Activity {
        let options = &self.options;
        let enter = (self.usual + options.enter_above_room).clamp(options.enter, options.enter_at_most);
        // A step up or down each hop settles where both are as frequent as they are small; from one end of the range to
        // the other takes seconds.
        let quantile = options.usual_quantile;
        self.usual += USUAL_STEP * if probability > self.usual { quantile } else { quantile - 1.0 };
        let threshold = match self.last {
            Activity::Silence => enter,
            Activity::Speech => options.leave,
        };
        let speaks = probability >= threshold && level - floor >= options.margin && level >= options.least_level;
        self.last = if speaks { Activity::Speech } else { Activity::Silence };
        self.last
    }

    /// The stream begins anew.
    pub fn forget_stream(&mut self) {
        self.last = Activity::Silence;
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

    fn decided(probability: f32, level: f32, floor: f32, hops: usize) -> Activity {
        let mut gate = Gate::new(GateOptions::default());
        (0..hops).map(|_| gate.decide(probability, level, floor)).last().unwrap()
    }

    #[test]
    fn speech_is_probable_and_stands_out() {
        fn check(probability: f32, level: f32, floor: f32, expected: Activity) {
            assert_eq!(decided(probability, level, floor, 1), expected, "{probability} at {level} in {floor}");
        }
        check(0.9, -30.0, -60.0, Speech);
        check(0.6, -30.0, -60.0, Silence);
        check(0.9, -30.0, -33.0, Silence);
        check(0.9, -66.0, -90.0, Silence);
        check(f32::NAN, -30.0, -60.0, Silence);
        check(0.9, f32::NAN, -60.0, Silence);
    }

    #[test]
    fn what_has_begun_goes_on_at_less() {
        let mut gate = Gate::new(GateOptions::default());
        let mut decide = |probability| gate.decide(probability, -30.0, -60.0);
        assert_eq!([0.5, 0.7, 0.5, 0.4, 0.5].map(&mut decide), [Silence, Speech, Speech, Silence, Silence]);
    }

    #[test]
    fn where_everything_is_probable_speech_must_be_more_so_but_never_too_much() {
        let mut gate = Gate::new(GateOptions::default());
        assert_eq!(gate.decide(0.68, -30.0, -60.0), Speech);
        for _ in 0..1_000 {
            // The room, not standing out.
            assert_eq!(gate.decide(0.8, -59.0, -60.0), Silence);
        }
        assert_eq!(gate.decide(0.68, -30.0, -60.0), Silence);
        assert_eq!(gate.decide(0.71, -30.0, -60.0), Speech);
    }

    #[test]
    fn the_room_is_what_is_heard_most_of_the_time_between_words() {
        let mut room = Room::new(&GateOptions::default());
        assert_eq!(room.floor(), -65.0);
        // Words of a second, pauses of a second.
        for at in 0..2_000 {
            room.hear(if at / 62 % 2 == 0 { -25.0 } else { -48.0 });
        }
        assert!((room.floor() + 48.0).abs() <= 1.0, "{}", room.floor());
        // The window is opened: believed within ten seconds.
        for _ in 0..600 {
            room.hear(-30.0);
        }
        assert!((room.floor() + 30.0).abs() <= 1.0, "{}", room.floor());
        for level in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e9] {
            room.hear(level);
            assert!((-100.0..=0.0).contains(&room.floor()));
        }
    }

    #[test]
    fn loud_rooms_are_turned_down_and_quiet_ones_left_alone() {
        fn check(floor: f32, expected: f32) {
            let factor = attenuation(&GateOptions::default(), floor);
            assert!((factor - expected).abs() < 0.001, "{floor} dBFS: {factor}");
        }
        check(-80.0, 1.0);
        check(-55.0, 1.0);
        check(-35.0, 0.1);
        check(-15.0, 0.01);
    }
}
