//! Packet-loss concealment for codecs without their own: the last pitch period is repeated and fades
//! (the method of ITU-T G.711 Appendix I, simplified).

/// The rate that all of this is made for, in Hz.
const RATE: usize = 8_000;
/// What is remembered: enough for two of the longest periods (30 ms).
const HISTORY: usize = RATE * 30 / 1_000;
/// Shortest and longest period: 400 and 66 Hz, as in Appendix I.
const SHORTEST: usize = RATE / 400;
const LONGEST: usize = RATE * 15 / 1_000;
/// Repetition stays at full level for 10 ms and is gone after 60 ms, as in Appendix I.
const FULL: usize = RATE * 10 / 1_000;
const GONE: usize = RATE * 60 / 1_000;
/// Cross-fade to real audio after a loss (4 ms).
const RETURN: usize = RATE * 4 / 1_000;

/// Repeats what was heard last. Mono, 8 kHz.
#[derive(Debug)]
pub(crate) struct Repeater {
    history: [i16; HISTORY],
    period: usize,
    /// Samples made up since the last real one.
    made: usize,
}

impl Repeater {
    pub(crate) fn new() -> Self {
        Self { history: [0; HISTORY], period: SHORTEST, made: 0 }
    }

    /// Hears real audio, whose start is blended with the repetition if there was a loss before it.
    pub(crate) fn hear(&mut self, audio: &mut [i16]) {
        if self.made > 0 {
            let fade = RETURN.min(audio.len());
            for (at, sample) in audio[..fade].iter_mut().enumerate() {
                let weight = (at as f32 + 0.5) / fade as f32;
                let made = f32::from(self.sample(self.made + at));
                *sample = (f32::from(*sample) * weight + made * (1.0 - weight)).round() as i16;
            }
            self.made = 0;
        }
        let new = &audio[audio.len().saturating_sub(HISTORY)..];
        self.history.copy_within(new.len().., 0);
        self.history[HISTORY - new.len()..].copy_from_slice(new);
    }

    /// Fills `audio` with what probably came next.
    pub(crate) fn conceal(&mut self, audio: &mut [i16]) {
        if self.made == 0 {
            self.period = self.find_period();
        }
        for sample in audio {
            *sample = self.sample(self.made);
            self.made += 1;
        }
    }

    fn sample(&self, made: usize) -> i16 {
        if made >= GONE {
            return 0;
        }
        let gain = if made < FULL { 1.0 } else { (GONE - made) as f32 / (GONE - FULL) as f32 };
        let start = HISTORY - self.period;
        (f32::from(self.history[start + made % self.period]) * gain).round() as i16
    }

    fn find_period(&self) -> usize {
        let recent = HISTORY - LONGEST;
        let likeness = |lag: usize| {
            let (mut cross, mut energy) = (0.0f32, 1.0f32);
            for at in recent..HISTORY {
                let (now, then) = (f32::from(self.history[at]), f32::from(self.history[at - lag]));
                cross += now * then;
                energy += then * then;
            }
            cross / energy.sqrt()
        };
        (SHORTEST..=LONGEST)
            .map(|lag| (lag, likeness(lag)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(LONGEST, |(lag, _)| lag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{level_dbfs, tone_level};
    use crate::tone::Tone;

    #[test]
    fn a_lost_packet_of_a_tone_is_hardly_missed() {
        for hz in [100.0, 170.0, 300.0, 440.0] {
            let mut tone = Tone::new(8_000, hz, -12.0);
            let mut repeater = Repeater::new();
            let mut heard = Vec::new();
            for packet in 0..50 {
                let mut audio = [0; 160];
                tone.fill(&mut audio);
                if packet % 10 == 9 {
                    repeater.conceal(&mut audio)
                } else {
                    repeater.hear(&mut audio)
                }
                heard.extend_from_slice(&audio);
            }
            let (tone, all) = (tone_level(&heard, 8_000, hz), level_dbfs(&heard));
            assert!((tone + 12.0).abs() < 1.0, "{hz}: {tone} of {all}");
        }
    }

    #[test]
    fn a_long_loss_fades_to_silence() {
        let mut repeater = Repeater::new();
        let mut audio = [0; 160];
        Tone::new(8_000, 200.0, -12.0).fill(&mut audio);
        repeater.hear(&mut audio);
        let levels: Vec<f32> = (0..4)
            .map(|_| {
                repeater.conceal(&mut audio);
                level_dbfs(&audio)
            })
            .collect();
        assert!(levels[0] > -14.0 && levels[1] < levels[0] && levels[2] < levels[1], "{levels:?}");
        assert_eq!(levels[3], crate::analysis::SILENCE_DBFS);
    }

    #[test]
    fn any_length_is_heard() {
        let mut repeater = Repeater::new();
        for length in [0, 1, 31, 160, 239, 240, 241, 1_500] {
            repeater.conceal(&mut vec![0; length]);
            repeater.hear(&mut vec![7; length]);
        }
        assert_eq!(repeater.history, [7; HISTORY]);
    }
}
