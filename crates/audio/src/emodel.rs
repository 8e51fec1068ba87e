//! How good a call sounds, estimated from how it is carried: the E-model of ITU-T G.107 (06/2015), with all values that
//! are not a network's at their defaults.
//!
//! `R = 93.2 - Idd - Ie,eff`: what a perfect line has by the defaults, less what its delay and its losses take. Echo is
//! left out (clients cancel their own), and so is the advantage of mobility.

use std::time::Duration;

use crate::Codec;

/// The rating of a line without delay and loss (G.107, table 3: all defaults).
const BEST: f64 = 93.2;
/// Delay up to which nobody minds, in milliseconds (G.107, 7.4: `mT` of the default class).
const UNNOTICED_MS: f64 = 100.0;

/// What a codec takes from the rating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    /// `Ie`: without loss.
    pub equipment: f64,
    /// `Bpl`: how well it stands random loss; greater is better.
    pub robustness: f64,
}

impl Impairment {
    /// G.711 has its value from G.113, appendix I (05/2002), with the concealment that every receiver of today has.
    ///
    /// Opus is in no table of the narrow-band model. At our rates it has nothing of what would be heard as a codec over
    /// that band, hence no `Ie`; for `Bpl` it has that of GSM-EFR, the least robust codec with concealment in the table,
    /// so that the estimate errs to the low side.
    #[must_use]
    pub const fn of(codec: Codec) -> Self {
        match codec {
            Codec::Pcmu | Codec::Pcma => Self { equipment: 0.0, robustness: 25.1 },
            Codec::Opus => Self { equipment: 0.0, robustness: 10.0 },
        }
    }
}

/// One direction of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// What its codec takes.
    pub impairment: Impairment,
    /// From mouth to ear, all buffers included.
    pub delay: Duration,
    /// Audio that did not come, 0 to 1; what was repaired did.
    pub loss: f64,
}

impl Line {
    /// The transmission rating factor `R`, 0 to 93.2.
    #[must_use]
    pub fn rating(&self) -> f64 {
        (BEST - delay_impairment(self.delay) - self.loss_impairment()).max(0.0)
    }

    /// The mean opinion score of a conversation (MOS-CQE), 1 (bad) to 4.41 (G.107, annex B).
    #[must_use]
    pub fn mos(&self) -> f64 {
        mos(self.rating())
    }

    /// `Ie,eff` for losses that come at random (G.107, 7.5; `BurstR` is 1).
    fn loss_impairment(&self) -> f64 {
        let Impairment { equipment, robustness } = self.impairment;
        let percent = self.loss.clamp(0.0, 1.0) * 100.0;
        equipment + (95.0 - equipment) * percent / (percent + robustness)
    }
}

/// `Idd`: what delay alone takes from a conversation without echo (G.107, 7.4; `sT` is 1).
fn delay_impairment(delay: Duration) -> f64 {
    let ms = delay.as_secs_f64() * 1e3;
    if ms <= UNNOTICED_MS {
        return 0.0;
    }
    let x = (ms / UNNOTICED_MS).log2();
    let knee = |x: f64| (1.0 + x.powi(6)).powf(1.0 / 6.0);
    25.0 * (knee(x) - 3.0 * knee(x / 3.0) + 2.0)
}

fn mos(rating: f64) -> f64 {
    match rating {
        r if r <= 0.0 => 1.0,
        r if r >= 100.0 => 4.5,
        // The polynomial dips a little below 1 for the worst lines.
        r => (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(impairment: Impairment, ms: u64, percent: f64) -> Line {
        Line { impairment, delay: Duration::from_millis(ms), loss: percent / 100.0 }
    }

    /// G.107, table B.1.
    #[test]
    fn scores_are_those_of_the_recommendation() {
        for (rating, score) in [
            (100.0, 4.5),
            (93.2, 4.41),
            (90.0, 4.34),
            (80.0, 4.03),
            (70.0, 3.60),
            (60.0, 3.10),
            (50.0, 2.58),
            (0.0, 1.0),
        ] {
            assert!((mos(rating) - score).abs() < 0.0065, "{} for R = {rating}", mos(rating));
        }
    }

    /// G.113 has listened to these codecs: their `Ie` at each share of lost packets, from which `Bpl` was derived.
    #[test]
    fn losses_cost_what_was_heard() {
        let g729a = Impairment { equipment: 11.0, robustness: 19.0 };
        let g723 = Impairment { equipment: 15.0, robustness: 16.1 };
        let heard = [
            (g729a, [(0.0, 11.0), (1.0, 15.0), (2.0, 19.0), (3.0, 23.0), (4.0, 26.0), (8.0, 36.0), (16.0, 49.0)]),
            (g723, [(0.0, 15.0), (1.0, 19.0), (2.0, 24.0), (3.0, 27.0), (4.0, 32.0), (8.0, 41.0), (16.0, 55.0)]),
        ];
        for (impairment, table) in heard {
            for (percent, expected) in table {
                let cost = line(impairment, 0, percent).loss_impairment();
                assert!((cost - expected).abs() < 1.3, "{cost} for {percent} % of {impairment:?}");
            }
        }
    }

    /// The rounded values of planning tables, which the formula replaced.
    #[test]
    fn delay_costs_what_planning_tables_say() {
        for (ms, expected) in [
            (0, 0.0),
            (100, 0.0),
            (150, 0.0),
            (200, 3.0),
            (250, 10.0),
            (300, 15.0),
            (400, 25.0),
            (500, 30.0),
            (600, 35.0),
            (800, 40.0),
        ] {
            let cost = delay_impairment(Duration::from_millis(ms));
            assert!((cost - expected).abs() < 1.2, "{cost} for {ms} ms");
        }
    }

    #[test]
    fn whole_lines() {
        for (codec, ms, percent, expected) in [
            (Codec::Opus, 60, 0.0, 4.41),
            (Codec::Pcmu, 60, 0.0, 4.41),
            (Codec::Pcmu, 60, 5.0, 3.93),
            (Codec::Opus, 60, 5.0, 3.17),
            (Codec::Opus, 400, 0.0, 3.56),
            (Codec::Opus, 3_000, 50.0, 1.0),
        ] {
            let score = line(Impairment::of(codec), ms, percent).mos();
            assert!((score - expected).abs() < 0.02, "{score} for {codec:?}, {ms} ms, {percent} %");
        }
    }

    proptest! {
        /// More delay or more loss is never better, and no input leaves the scale.
        #[test]
        fn worse_is_worse(ms in 0u64..100_000, more in 0u64..1_000, loss in -1.0..2.0f64, lost in 0.0..0.5f64) {
            for codec in [Codec::Opus, Codec::Pcma] {
                let at = |ms, loss: f64| line(Impairment::of(codec), ms, loss * 100.0);
                let (good, bad) = (at(ms, loss), at(ms + more, loss + lost));
                prop_assert!(good.rating() >= bad.rating() && (0.0..=BEST).contains(&bad.rating()));
                prop_assert!((1.0..=4.42).contains(&bad.mos()));
            }
        }
    }
}
