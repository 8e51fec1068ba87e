//! The audio of one session on a WebSocket: frames out in time, and an account of what comes back. No socket and no clock.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use streamfleet_audio::g711::{MU_LAW, encode_mu_law};
use streamfleet_audio::tone::Voice;
use streamfleet_client::media_text;

use super::arguments::FrameLength;
use super::clip::{BURST_EVERY, burst};
use super::media::{MAX_BEHIND, Pauses, Phase, Share, Tally};
use super::probe::{LATEST, Onsets};

/// What is counted, however many of them a frame holds.
const PIECE: Duration = Duration::from_millis(20);
/// Pieces per second.
const PIECES_PER_SECOND: u32 = 50;
/// Pieces of speech: three seconds.
const SPEECH: u32 = 150;
/// Bursts that may be under way.
const PENDING: usize = 4;

/// An endless sequence of mu-law frames, as the texts that carry them.
#[derive(Debug)]
pub(super) struct Frames {
    texts: Vec<String>,
    length: FrameLength,
}

impl Frames {
    /// Something like speech.
    pub(super) fn speech(rate: u32, length: FrameLength) -> Self {
        let mut samples = vec![0; (SPEECH * rate / PIECES_PER_SECOND) as usize];
        Voice::new(rate, 1).fill(&mut samples);
        Self::encode(&samples, rate, length)
    }

    /// Short bursts of a tone in silence. Every [`BURST_EVERY`]th piece begins one, and is a frame's first.
    pub(super) fn bursts(rate: u32, length: FrameLength) -> Self {
        Self::encode(&burst(rate), rate, length)
    }

    fn encode(samples: &[i16], rate: u32, length: FrameLength) -> Self {
        let frames = samples.chunks((rate / PIECES_PER_SECOND * length.pieces()) as usize);
        let text = |frame: &[i16]| media_text(&frame.iter().map(|sample| encode_mu_law(*sample)).collect::<Vec<_>>());
        Self { texts: frames.map(text).collect(), length }
    }
}

/// Whether a session's echo is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Speech,
    Probe,
}

/// One session's audio, from the moment that the server has taken it.
#[derive(Debug)]
pub(super) struct Line {
    frames: Rc<Frames>,
    role: Role,
    /// Output samples of the server in a second.
    rate: u32,
    number: u64,
    due: Instant,
    /// Samples that came and make no whole piece yet.
    rest: usize,
    onsets: Onsets,
    /// When the frames went that begin a burst.
    bursts: VecDeque<Instant>,
    first: Option<Instant>,
    pauses: Pauses,
    share: Share,
}

impl Line {
    /// Begins to speak at `now`; the server speaks at `rate` Hz.
    pub(super) fn new(frames: Rc<Frames>, role: Role, rate: u32, now: Instant) -> Self {
        Self {
            frames,
            role,
            rate,
            number: 0,
            due: now,
            rest: 0,
            onsets: Onsets::new(rate),
            bursts: VecDeque::new(),
            first: None,
            pauses: Pauses::default(),
            share: Share::default(),
        }
    }

    /// When [`Self::send`] has something.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// When the first audio came.
    pub(super) fn first(&self) -> Option<Instant> {
        self.first
    }

    /// Its figures, of which nothing counts after `end`.
    pub(super) fn share(&self, end: Instant) -> Share {
        Share { pause: self.pauses.until(end), ..self.share }
    }

    /// The next frame that is due; none while draining.
    pub(super) fn send(&mut self, now: Instant, tally: &mut Tally) -> Option<String> {
        let pieces = self.frames.length.pieces();
        let length = PIECE * pieces;
        if tally.phase == Phase::Drain {
            self.due = now + length;
            return None;
        }
        let behind = now.checked_duration_since(self.due)?;
        if behind > MAX_BEHIND {
            let missed = (behind.as_nanos() / length.as_nanos()) as u32;
            self.due += length * missed;
            tally.skipped += u64::from(missed * pieces);
        }
        let late = now - self.due;
        self.due += length;
        let number = self.number;
        self.number += 1;
        if tally.phase == Phase::Measure {
            tally.sent += u64::from(pieces);
            self.share.sent += u64::from(pieces);
            tally.late.record(late);
        }
        if self.role == Role::Probe && (number * u64::from(pieces)).is_multiple_of(BURST_EVERY) {
            if self.bursts.len() == PENDING {
                self.bursts.pop_front();
            }
            self.bursts.push_back(now);
        }
        Some(self.frames.texts[number as usize % self.frames.texts.len()].clone())
    }

    /// A payload came. Servers send pieces of any length, so what counts is how long they are.
    pub(super) fn receive(&mut self, payload: &[u8], now: Instant, tally: &mut Tally) {
        self.first.get_or_insert(now);
        self.pauses.hear(now, tally.phase);
        let piece = (self.rate / PIECES_PER_SECOND) as usize;
        self.rest += payload.len();
        let whole = (self.rest / piece) as u64;
        self.rest %= piece;
        tally.received += whole;
        if tally.phase == Phase::Measure {
            tally.recoded += whole;
            self.share.back += whole;
        }
        if self.role == Role::Probe {
            self.listen(payload, now, tally);
        }
    }

    /// The latency is how much later a burst's first sample would be heard than it was spoken, if what comes is played
    /// as it comes: the server's part, without a buffer of ours.
    fn listen(&mut self, payload: &[u8], now: Instant, tally: &mut Tally) {
        let samples: Vec<i16> = payload.iter().map(|byte| MU_LAW[usize::from(*byte)]).collect();
        let Some(onset) = self.onsets.find(&samples) else { return };
        let heard = now + Duration::from_secs(onset as u64) / self.rate;
        let latencies = self.bursts.iter().filter_map(|sent| heard.checked_duration_since(*sent));
        if let Some(latency) = latencies.filter(|latency| *latency < LATEST).min()
            && tally.phase == Phase::Measure
        {
            tally.bursts.record(latency);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    const MS: Duration = Duration::from_millis(1);
    const RATE: u32 = 24_000;

    fn payload(text: &str) -> Vec<u8> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let payload = value.pointer("/media/payload").and_then(serde_json::Value::as_str).unwrap();
        base64::engine::general_purpose::STANDARD.decode(payload).unwrap()
    }

    /// A server that sends everything back `delay` later, in pieces of its own size, for ten seconds.
    fn echo(role: Role, length: FrameLength, delay: u64, piece: usize) -> (Tally, Share) {
        let start = Instant::now();
        let frames = match role {
            Role::Probe => Frames::bursts(RATE, length),
            Role::Speech => Frames::speech(RATE, length),
        };
        let frames = Rc::new(frames);
        let mut line = Line::new(frames, role, RATE, start);
        let mut tally = Tally { phase: Phase::Measure, ..Tally::default() };
        let (mut way, mut held) = (VecDeque::new(), Vec::new());
        for ms in 0..10_000u64 {
            let now = start + MS * ms as u32;
            while let Some(text) = line.send(now, &mut tally) {
                held.extend(payload(&text));
                while held.len() >= piece {
                    let rest = held.split_off(piece);
                    way.push_back((ms + delay, std::mem::replace(&mut held, rest)));
                }
            }
            while way.front().is_some_and(|(at, _)| *at == ms) {
                let (_, payload) = way.pop_front().unwrap();
                line.receive(&payload, now, &mut tally);
            }
        }
        (tally, line.share(start))
    }

    #[test]
    fn what_comes_back_is_counted_whatever_its_pieces() {
        for length in [FrameLength::Ms20, FrameLength::Ms40] {
            for piece in [480, 960, 333] {
                let (tally, share) = echo(Role::Speech, length, 30, piece);
                assert_eq!((tally.sent, share.sent), (500, 500));
                assert!((495..=500).contains(&share.back), "{piece}: {share:?}");
                assert_eq!(tally.bursts.summary(), None);
                assert_eq!(tally.late.quantile(1.0), Duration::ZERO);
            }
        }
    }

    #[test]
    fn the_latency_of_bursts_is_measured() {
        for delay in [5, 60, 700] {
            for length in [FrameLength::Ms20, FrameLength::Ms40] {
                let (tally, _) = echo(Role::Probe, length, delay, 480);
                let found = tally.bursts.summary().unwrap();
                // The first has no silence before it.
                assert!((3..=4).contains(&found.count), "{found:?}");
                assert!((found.p50 - delay as f64).abs() < 1.0 + delay as f64 / 30.0, "{delay}: {found:?}");
            }
        }
    }

    #[test]
    fn a_late_client_says_so_and_gives_up_what_is_too_late() {
        let start = Instant::now();
        let mut line = Line::new(Rc::new(Frames::speech(8_000, FrameLength::Ms20)), Role::Speech, 8_000, start);
        let mut tally = Tally { phase: Phase::Measure, ..Tally::default() };
        let mut count = |now: Instant, tally: &mut Tally| std::iter::from_fn(|| line.send(now, tally)).count();
        assert_eq!(count(start + 50 * MS, &mut tally), 3);
        assert_eq!(tally.late.quantile(1.0), 50 * MS);
        assert_eq!(count(start + 1_050 * MS, &mut tally), 1);
        assert_eq!(tally.skipped, 49);
        tally.phase = Phase::Drain;
        assert_eq!(count(start + 2_000 * MS, &mut tally), 0);
    }
}
