//! Finding the bursts of [`super::clip::Clip::bursts`] in what comes back decoded: the echo's latency where packets do not
//! come back as they went.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::clip::{BURST_EVERY, Clip};

/// What packets are decoded at, Hz.
const RATE: u32 = 16_000;
/// The longest packet that Opus has, 120 ms.
const MAX_SAMPLES: usize = RATE as usize * 120 / 1_000;
/// A burst has begun at the first sample of this amplitude (its own is 8 200) ...
const LOUD: u16 = 2_000;
/// ... that follows so much that stays below it, in tenths of a second.
const QUIET_TENTHS: u32 = 3;
/// Bursts that may be under way.
const PENDING: usize = 4;
/// An echo later than this cannot be told from that of the next burst.
pub(super) const LATEST: Duration = Duration::from_millis(20 * BURST_EVERY - 100);

/// Measures one session's echo.
///
/// The latency is how much later the sound comes than it went, both taken at the moment that a packet passes the socket:
/// the server's buffers, decoder and encoder, without a buffer of our own. The delay of our own encoder and decoder is
/// measured beforehand and taken off.
pub(super) struct Probe {
    decoder: opus::Decoder,
    onsets: Onsets,
    /// Our own codec's part.
    own: Duration,
    /// When the packets went that begin a burst.
    sent: VecDeque<Instant>,
    newest: Option<u64>,
}

impl Probe {
    pub(super) fn new(own: Duration) -> anyhow::Result<Self> {
        let decoder = decoder()?;
        Ok(Self { decoder, onsets: Onsets::new(RATE), own, sent: VecDeque::new(), newest: None })
    }

    /// What an encoder and a decoder alone delay a burst.
    pub(super) fn calibrate(bursts: &Clip) -> anyhow::Result<Duration> {
        let mut probe = Self::new(Duration::ZERO)?;
        let start = Instant::now();
        let mut packet = Vec::new();
        // The first burst comes after the decoder has heard silence.
        for number in BURST_EVERY / 2..BURST_EVERY + 50 {
            let at = start + Duration::from_millis(20) * number as u32;
            probe.sent(number as u32, at);
            packet.clear();
            bursts.write(number as u32, &mut packet);
            if let Some(latency) = probe.received(number, &packet, at) {
                return Ok(latency);
            }
        }
        anyhow::bail!("the encoder's own burst was not found after decoding")
    }

    /// Packet `number` of the clip goes.
    pub(super) fn sent(&mut self, number: u32, now: Instant) {
        if u64::from(number).is_multiple_of(BURST_EVERY) {
            if self.sent.len() == PENDING {
                self.sent.pop_front();
            }
            self.sent.push_back(now);
        }
    }

    /// A packet came. The latency, if a burst begins in it.
    pub(super) fn received(&mut self, index: u64, payload: &[u8], now: Instant) -> Option<Duration> {
        // What is overtaken is late for a player too.
        if self.newest.is_some_and(|newest| index <= newest) {
            return None;
        }
        self.newest = Some(index);
        let mut samples = [0; MAX_SAMPLES];
        let count = self.decoder.decode(payload, &mut samples, false).ok()?;
        let onset = self.onsets.find(&samples[..count])?;
        let heard = now + Duration::from_secs(onset as u64) / RATE;
        let latencies = self.sent.iter().filter_map(|sent| heard.checked_duration_since(*sent + self.own));
        latencies.filter(|latency| *latency < LATEST).min()
    }
}

fn decoder() -> anyhow::Result<opus::Decoder> {
    opus::Decoder::new(RATE, opus::Channels::Mono).context("no Opus decoder")
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("own", &self.own).field("newest", &self.newest).finish_non_exhaustive()
    }
}

/// Finds where sound begins after quiet.
#[derive(Debug)]
pub(super) struct Onsets {
    quiet: usize,
    needed: usize,
}

impl Onsets {
    /// At so many samples a second.
    pub(super) fn new(rate: u32) -> Self {
        Self { quiet: 0, needed: (rate * QUIET_TENTHS / 10) as usize }
    }

    /// The first sample of `samples` that begins a sound.
    pub(super) fn find(&mut self, samples: &[i16]) -> Option<usize> {
        let mut found = None;
        for (i, sample) in samples.iter().enumerate() {
            if sample.unsigned_abs() < LOUD {
                self.quiet += 1;
                continue;
            }
            if self.quiet >= self.needed && found.is_none() {
                found = Some(i);
            }
            self.quiet = 0;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onsets_follow_quiet() {
        const QUIET: usize = (RATE * QUIET_TENTHS / 10) as usize;
        #[track_caller]
        fn check(pieces: &[&[(usize, i16)]], expected: &[Option<usize>]) {
            let mut onsets = Onsets::new(RATE);
            let got: Vec<Option<usize>> = pieces
                .iter()
                .map(|piece| {
                    let samples: Vec<i16> = piece.iter().flat_map(|(count, sample)| vec![*sample; *count]).collect();
                    onsets.find(&samples)
                })
                .collect();
            assert_eq!(got, expected);
        }
        check(&[&[(QUIET, 0), (100, 5_000)]], &[Some(QUIET)]);
        check(&[&[(QUIET - 1, 0), (100, 5_000)]], &[None]);
        check(&[&[(QUIET, 1_999), (3, i16::MIN)]], &[Some(QUIET)]);
        check(&[&[(QUIET, 0)], &[(7, 0), (9, -3_000)], &[(9, 3_000)]], &[None, Some(7), None]);
        check(
            &[&[(QUIET, 0), (9, 3_000), (QUIET, 0), (1, 3_000)], &[(QUIET, 0), (1, 3_000)]],
            &[Some(QUIET), Some(QUIET)],
        );
        check(&[&[]], &[None]);
    }

    #[test]
    fn an_echo_of_known_latency_is_measured() {
        let clip = Clip::bursts().unwrap();
        let own = Probe::calibrate(&clip).unwrap();
        assert!(own < Duration::from_millis(15), "{own:?}");
        for millis in [0, 1, 37, 148, 700, 1_700] {
            let mut probe = Probe::new(own).unwrap();
            let (start, mut found) = (Instant::now(), vec![]);
            let latency = Duration::from_millis(millis);
            let at = |number: u64| start + Duration::from_millis(20) * number as u32;
            let mut packet = vec![];
            for number in 0..500u64 {
                probe.sent(number as u32, at(number));
                // What comes now went so many packets ago, plus a rest.
                let Some(back) = number.checked_sub(millis.div_ceil(20)) else { continue };
                packet.clear();
                clip.write(back as u32, &mut packet);
                found.extend(probe.received(back, &packet, at(back) + latency));
            }
            // The first burst has no quiet before it.
            assert_eq!(found.len(), 4, "{millis} ms");
            assert!(found.iter().all(|got| got.abs_diff(latency) < Duration::from_micros(100)), "{found:?}");
        }
    }

    #[test]
    fn packets_out_of_order_and_nonsense_find_nothing() {
        let mut probe = Probe::new(Duration::ZERO).unwrap();
        let now = Instant::now();
        assert_eq!(probe.received(5, &[0xFF; 3], now), None);
        assert_eq!(probe.received(5, &[], now), None);
        assert_eq!(probe.received(4, &[0; 40], now), None);
    }
}
