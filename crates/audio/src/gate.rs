//! Discontinuous transmission: what is sent of silence.

/// The largest sample of silence: -72 dBFS. A-law has no zero, so that its silence is a constant 8; Opus makes noise of one
/// or two steps of it. A room is louder.
const QUIET: u16 = 8;
/// Blocks of silence that are encoded like sound, 200 ms: the receiver's decoder comes to rest, and pauses between words
/// are not taken apart. libopus waits as long.
const HANGOVER: u32 = 10;
/// From then on one of so many blocks is marked by a packet without audio: every 400 ms, as libopus does. What waits for
/// the next packet knows that the sender is there, and not to call the pause a loss.
const PAUSE_EVERY: u32 = 20;

/// Decides block by block.
#[derive(Debug)]
pub(crate) enum Gate {
    /// Everything is sent.
    Open,
    /// Silence is not. Holds the silent blocks since the last sound.
    Watching { silent: u32 },
}

/// What to do with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Encode and send it.
    Encode,
    /// Send a packet without audio in its place.
    Pause,
    /// Send nothing.
    Skip,
}

impl Gate {
    pub(crate) fn judge(&mut self, block: &[i16]) -> Verdict {
        let Self::Watching { silent } = self else { return Verdict::Encode };
        if block.iter().any(|sample| sample.unsigned_abs() > QUIET) {
            *silent = 0;
            return Verdict::Encode;
        }
        *silent = silent.saturating_add(1);
        match silent.checked_sub(HANGOVER + 1) {
            None => Verdict::Encode,
            Some(paused) if paused.is_multiple_of(PAUSE_EVERY) => Verdict::Pause,
            Some(_) => Verdict::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdicts on blocks of these peaks, in runs: how often which.
    fn judged(gate: &mut Gate, peaks: &[(u32, i16)]) -> Vec<(u32, Verdict)> {
        let mut runs: Vec<(u32, Verdict)> = Vec::new();
        for &(blocks, peak) in peaks {
            for _ in 0..blocks {
                let verdict = gate.judge(&[0, peak, 0]);
                match runs.last_mut() {
                    Some((count, last)) if *last == verdict => *count += 1,
                    _ => runs.push((1, verdict)),
                }
            }
        }
        runs
    }

    #[test]
    fn silence_is_sent_for_a_moment_then_marked_now_and_then() {
        use Verdict::{Encode, Pause, Skip};
        fn check(name: &str, peaks: &[(u32, i16)], expected: &[(u32, Verdict)]) {
            assert_eq!(judged(&mut Gate::Watching { silent: 0 }, peaks), expected, "{name}");
        }
        check("sound", &[(100, 9), (100, i16::MIN)], &[(200, Encode)]);
        check("pauses between words", &[(10, 0), (1, -9), (10, 8), (1, 9)], &[(22, Encode)]);
        check(
            "a long pause",
            &[(52, -8)],
            &[(10, Encode), (1, Pause), (19, Skip), (1, Pause), (19, Skip), (1, Pause), (1, Skip)],
        );
        check("sound again", &[(12, 0), (5, 900)], &[(10, Encode), (1, Pause), (1, Skip), (5, Encode)]);
        assert_eq!(judged(&mut Gate::Open, &[(100, 0)]), [(100, Encode)]);
    }
}
