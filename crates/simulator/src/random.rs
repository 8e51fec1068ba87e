//! Chance that is the same everywhere: SplitMix64 (Steele, Lea and Flood 2014). A library's generators may change with its
//! versions, and committed seeds would then be other days.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of a seed. `what` keeps the streams of one seed apart.
    pub(crate) fn new(seed: u64, what: u64) -> Self {
        let mut apart = Self(seed);
        let first = apart.next();
        Self(first ^ what.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Uniform in (0, 1].
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits are what a double holds.
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The high half of the product: the bias of 2^-64 × bound is nobody's.
        let product = u128::from(self.next()) * bound as u128;
        (product >> 64) as usize
    }

    /// The time until the next of events that happen `rate` times a second, in seconds.
    pub(crate) fn exponential(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }

    /// Normal, mean 0 and deviation 1 (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_what_it_is() {
        // SplitMix64's first outputs from the state 0.
        let mut zero = Random(0);
        assert_eq!([zero.next(), zero.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_ne!(Random::new(1, 0).next(), Random::new(1, 1).next());
    }

    /// Means and variances of many, within five deviations of what they should be.
    #[test]
    fn distributions_are_what_they_are_called() {
        const N: usize = 100_000;
        let mut random = Random::new(7, 0);
        let mut mean = |draw: &mut dyn FnMut(&mut Random) -> f64| {
            let values: Vec<f64> = (0..N).map(|_| draw(&mut random)).collect();
            let mean = values.iter().sum::<f64>() / N as f64;
            (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / N as f64)
        };
        let near = |value: f64, expected: f64, within: f64| assert!((value - expected).abs() < within, "{value}");
        let (unit, variance) = mean(&mut Random::unit);
        near(unit, 0.5, 5.0 * (1.0 / 12.0 / N as f64).sqrt());
        near(variance, 1.0 / 12.0, 0.002);
        let (gap, variance) = mean(&mut |random| random.exponential(4.0));
        near(gap, 0.25, 5.0 * 0.25 / (N as f64).sqrt());
        near(variance, 0.0625, 0.004);
        let (normal, variance) = mean(&mut Random::normal);
        near(normal, 0.0, 5.0 / (N as f64).sqrt());
        near(variance, 1.0, 0.03);
        let (below, _) = mean(&mut |random| random.below(10) as f64);
        near(below, 4.5, 0.05);
    }
}
