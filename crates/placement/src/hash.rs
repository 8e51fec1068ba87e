//! Scores: how much a worker is a key's.
//!
//! Every router computes the same score for the same names, in every version of this crate: sessions that share a value
//! meet only if routers agree. The constants are therefore part of the protocol between routers.

/// What a session is placed by: its id, its user, or a value of its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// A worker's part in its scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(u64);

impl Key {
    /// The key of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(fnv(text.as_bytes()))
    }

    /// In which of `parts` equal parts of all keys this one is, from 0: the same at every router, and independent of scores.
    #[must_use]
    pub fn part_of(self, parts: u32) -> u32 {
        let bits = mix(mix(self.0) ^ 0xa076_1d64_78bd_642f) >> 32;
        // The high half of a product of two 32-bit numbers, which fits.
        ((bits * u64::from(parts)) >> 32) as u32
    }
}

impl Seed {
    /// The seed of a worker's name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        // Apart from keys: a worker may be called as a session is.
        Self(mix(fnv(name.as_bytes()) ^ 0x9e37_79b9_7f4a_7c15))
    }
}

/// The score: uniform over all keys for a worker, and independent from worker to worker.
pub(crate) fn score(key: Key, seed: Seed) -> u64 {
    mix(mix(key.0) ^ seed.0)
}

/// FNV-1a, 64 bit (draft-eastlake-fnv): short texts, no state, the same everywhere. Its weak high bits are [`mix`]ed before use.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Mix13" of Stafford): every bit of the input changes half of the
/// output's.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another router of another version must agree.
    #[test]
    fn scores_stay_what_they_are() {
        assert_eq!(fnv(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv(b"foobar"), 0x8594_4171_f739_67e8, "the test vector of the draft");
        // SplitMix64's first output from the state 0.
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    }

    /// Another router must put a user into the same part.
    #[test]
    fn parts_are_equal_and_stay_what_they_are() {
        let mut counts = [0_u32; 10];
        for n in 0..10_000 {
            counts[Key::of(&format!("user-{n}")).part_of(10) as usize] += 1;
        }
        // Five deviations of a binomial of 10 000 by a tenth.
        assert!(counts.iter().all(|count| count.abs_diff(1_000) < 150), "{counts:?}");
        assert_eq!(Key::of("any").part_of(1), 0);
    }

    /// Chi-square over the winners of many keys that resemble each other, as counters and base-36 ids do.
    #[test]
    fn workers_with_alike_names_win_alike_often() {
        const SERVICES: usize = 40;
        for workers in [3_usize, 10, 50] {
            let keys: Vec<Key> = (0..workers * 400).map(|n| Key::of(&format!("user-{n}"))).collect();
            let expected = keys.len() as f64 / workers as f64;
            let chi = |service: usize| {
                let seeds: Vec<Seed> =
                    (0..workers).map(|n| Seed::of(&format!("service-{service}-worker-{n}"))).collect();
                let mut won = vec![0_f64; workers];
                for key in &keys {
                    let winner = (0..workers).max_by_key(|n| score(*key, seeds[*n]));
                    won[winner.unwrap_or(0)] += 1.0;
                }
                won.iter().map(|n| (n - expected).powi(2) / expected).sum::<f64>()
            };
            let mean = (0..SERVICES).map(chi).sum::<f64>() / SERVICES as f64;
            // The distribution has the mean `free` and the variance twice that: five deviations of the mean of forty.
            let free = workers as f64 - 1.0;
            assert!((mean - free).abs() < 5.0 * (2.0 * free / SERVICES as f64).sqrt(), "{workers} workers: {mean}");
        }
    }
}
