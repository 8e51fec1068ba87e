//! PCM of any rate to frames of 20 ms that leave in real time.

use std::time::{Duration, Instant};

use streamfleet_audio::g711::encode_mu_law;
use streamfleet_audio::resample::Resampler;
use streamfleet_audio::{AudioError, AudioSender, Codec, PcmFormat};

use super::options::{SampleRate, SocketCodec};

/// Frames per second.
const FRAMES_PER_SECOND: u64 = 50;
/// Length of a frame.
const FRAME: Duration = Duration::from_millis(20);
/// Audio waits here while the caller gives it faster than real time; more would only be latency.
const MAX_QUEUED: Duration = Duration::from_millis(100);
/// How late a frame may be and still follow the one before it at its own time; after more, the caller has paused.
const CONTINUED: Duration = Duration::from_millis(60);

/// What is sent while there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    /// Nothing.
    Quiet,
    /// Frames of silence: a telephone line never stops.
    Silence,
}

/// The outbound audio of one call.
pub(crate) enum Uplink {
    Linear(Linear),
    Opus(AudioSender),
}

impl Uplink {
    pub(crate) fn new(codec: SocketCodec, rate: SampleRate, idle: Idle) -> Result<Self, AudioError> {
        Ok(match codec {
            SocketCodec::MuLaw => Self::Linear(Linear::new(Law::MuLaw, rate, idle)),
            SocketCodec::Pcm16 => Self::Linear(Linear::new(Law::Pcm16, rate, idle)),
            SocketCodec::Opus => Self::Opus(AudioSender::new(Codec::Opus)?),
        })
    }

    /// Whether more audio is welcome.
    pub(crate) fn has_room(&self) -> bool {
        let queued = match self {
            Self::Linear(linear) => linear.queued(),
            Self::Opus(sender) => sender.queued(),
        };
        queued < MAX_QUEUED
    }

    /// Queues interleaved PCM.
    pub(crate) fn push(&mut self, now: Instant, samples: &[i16], format: PcmFormat) -> Result<(), AudioError> {
        match self {
            Self::Linear(linear) => linear.push(now, samples, format),
            Self::Opus(sender) => sender.push(now, samples, format),
        }
    }

    /// No more audio comes for now: what is there is filled up to a whole frame.
    pub(crate) fn flush(&mut self) {
        match self {
            Self::Linear(linear) => linear.flush(),
            Self::Opus(sender) => sender.flush(),
        }
    }

    /// Forgets what is queued.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Linear(linear) => linear.queue.clear(),
            Self::Opus(sender) => sender.clear(),
        }
    }

    /// The call stands: a line that never stops begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        if let Self::Linear(linear) = self {
            linear.begin(now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Linear(linear) => linear.poll_timeout(),
            Self::Opus(sender) => sender.poll_timeout(),
        }
    }

    /// Writes the payload of the next frame that is due; `None` if none is.
    pub(crate) fn poll(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<()> {
        payload.clear();
        match self {
            Self::Linear(linear) => linear.poll(now, payload),
            Self::Opus(sender) => sender.poll(now, payload).map(drop),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Law {
    MuLaw,
    Pcm16,
}

/// Frames whose size follows from their length in time.
pub(crate) struct Linear {
    law: Law,
    rate: u32,
    idle: Idle,
    input: Option<Input>,
    /// Mono at `rate`.
    queue: Vec<i16>,
    /// Frames made so far; a rate that is no multiple of fifty has frames of two lengths.
    frames: u64,
    /// When the next frame is due.
    due: Option<Instant>,
    idling: Idling,
}

/// Whether silence is being sent: then a frame does not wait for audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Idling {
    No,
    Yes,
}

struct Input {
    format: PcmFormat,
    resampler: Option<Resampler>,
    mono: Vec<i16>,
}

impl Linear {
    fn new(law: Law, rate: SampleRate, idle: Idle) -> Self {
        let rate = rate.hz();
        Self { law, rate, idle, input: None, queue: Vec::new(), frames: 0, due: None, idling: Idling::No }
    }

    fn queued(&self) -> Duration {
        PcmFormat::mono(self.rate).duration(self.queue.len())
    }

    /// Samples of the next frame.
    fn frame(&self) -> usize {
        let until = |frames: u64| frames * u64::from(self.rate) / FRAMES_PER_SECOND;
        (until(self.frames + 1) - until(self.frames)) as usize
    }

    fn push(&mut self, now: Instant, samples: &[i16], format: PcmFormat) -> Result<(), AudioError> {
        let input = match &mut self.input {
            Some(input) if input.format == format => input,
            other => other.insert(Input::new(format, self.rate)?),
        };
        input.take(samples, &mut self.queue)?;
        self.due.get_or_insert(now);
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(input) = &mut self.input {
            input.drain(&mut self.queue);
        }
        if !self.queue.is_empty() {
            let (mut end, mut frame) = (0, self.frame());
            let frames = self.frames;
            while end < self.queue.len() {
                end += frame;
                self.frames += 1;
                frame = self.frame();
            }
            self.frames = frames;
            self.queue.resize(end, 0);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due = self.due?;
        let complete = self.queue.len() >= self.frame();
        match (complete, self.idle, self.idling) {
            (true, ..) | (false, Idle::Silence, Idling::Yes) => Some(due),
            (false, Idle::Silence, Idling::No) => Some(due + CONTINUED),
            (false, Idle::Quiet, _) => None,
        }
    }

    fn poll(&mut self, now: Instant, payload: &mut Vec<u8>) -> Option<()> {
        self.poll_timeout().filter(|at| *at <= now)?;
        let due = self.due?;
        let frame = self.frame();
        let complete = self.queue.len() >= frame;
        if !complete {
            self.queue.resize(frame, 0);
        }
        self.idling = if complete { Idling::No } else { Idling::Yes };
        let samples = self.queue.drain(..frame);
        match self.law {
            Law::MuLaw => payload.extend(samples.map(encode_mu_law)),
            Law::Pcm16 => payload.extend(samples.flat_map(i16::to_le_bytes)),
        }
        self.frames += 1;
        let from = if now.saturating_duration_since(due) < CONTINUED { due } else { now };
        self.due = Some(from + FRAME);
        Some(())
    }

    fn begin(&mut self, now: Instant) {
        if self.idle == Idle::Silence {
            self.due.get_or_insert(now);
            self.idling = Idling::Yes;
        }
    }
}

impl Input {
    fn new(format: PcmFormat, to: u32) -> Result<Self, AudioError> {
        let rate = (PcmFormat::MIN_RATE..=PcmFormat::MAX_RATE).contains(&format.rate);
        if !rate || !(1..=PcmFormat::MAX_CHANNELS).contains(&format.channels) {
            return Err(AudioError::UnsupportedFormat(format));
        }
        let resampler = (format.rate != to).then(|| Resampler::new(format.rate, to, 1));
        Ok(Self { format, resampler, mono: Vec::new() })
    }

    fn take(&mut self, samples: &[i16], queue: &mut Vec<i16>) -> Result<(), AudioError> {
        let channels = self.format.channels;
        if !samples.len().is_multiple_of(usize::from(channels)) {
            return Err(AudioError::RaggedFrame { samples: samples.len(), channels });
        }
        let mix = |frame: &[i16]| {
            let sum: i32 = frame.iter().map(|sample| i32::from(*sample)).sum();
            (sum / i32::from(channels)) as i16
        };
        self.mono.clear();
        self.mono.extend(samples.chunks_exact(usize::from(channels)).map(mix));
        match &mut self.resampler {
            Some(resampler) => resampler.process(&self.mono, queue),
            None => queue.extend_from_slice(&self.mono),
        }
        Ok(())
    }

    /// Pushes out what the filter holds.
    fn drain(&mut self, queue: &mut Vec<i16>) {
        if let Some(resampler) = &mut self.resampler {
            let zeros = vec![0; resampler.delay()];
            resampler.process(&zeros, queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use streamfleet_audio::analysis::tone_level;
    use streamfleet_audio::g711::MU_LAW;
    use streamfleet_audio::tone::Tone;

    const MS: Duration = Duration::from_millis(1);

    fn rate(hz: u32) -> SampleRate {
        SampleRate::new(hz).unwrap()
    }

    /// Pushes and polls by the millisecond; the frames with the millisecond they left at.
    fn frames(uplink: &mut Uplink, pushes: &[(u64, Vec<i16>)], format: PcmFormat, until: u64) -> Vec<(u64, Vec<u8>)> {
        let start = Instant::now();
        let (mut found, mut payload) = (Vec::new(), Vec::new());
        uplink.begin(start);
        for ms in 0..until {
            let now = start + MS * ms as u32;
            for (_, samples) in pushes.iter().filter(|(at, _)| *at == ms) {
                uplink.push(now, samples, format).unwrap();
            }
            while uplink.poll(now, &mut payload).is_some() {
                found.push((ms, payload.clone()));
            }
        }
        found
    }

    #[test]
    fn frames_leave_in_real_time_and_have_the_exact_rate() {
        for (from, to) in [(48_000, 48_000), (24_000, 48_000), (48_000, 8_000), (16_000, 11_025)] {
            let mut samples = vec![0; from as usize];
            Tone::new(from, 440.0, -13.0).fill(&mut samples);
            let mut uplink = Uplink::new(SocketCodec::MuLaw, rate(to), Idle::Quiet).unwrap();
            let found = frames(&mut uplink, &[(0, samples)], PcmFormat::mono(from), 1_100);
            assert!(found.len() >= 49, "{from} {to}: {}", found.len());
            for (n, (ms, _)) in found.iter().enumerate() {
                assert_eq!(*ms, 20 * n as u64, "{from} {to}");
            }
            let heard: Vec<i16> = found.iter().flat_map(|(_, p)| p.iter().map(|b| MU_LAW[usize::from(*b)])).collect();
            assert!(heard.len().abs_diff(to as usize * found.len() / 50) <= 1);
            let level = tone_level(&heard[heard.len() / 4..], to, 440.0);
            assert!((level + 13.0).abs() < 0.5, "{from} {to}: {level} dBFS");
        }
    }

    #[test]
    fn a_pause_moves_the_clock_and_a_late_push_does_not() {
        #[track_caller]
        fn check(pushes: &[u64], expected: &[u64]) {
            let mut uplink = Uplink::new(SocketCodec::Pcm16, rate(8_000), Idle::Quiet).unwrap();
            let pushes: Vec<_> = pushes.iter().map(|ms| (*ms, vec![1; 160])).collect();
            let found = frames(&mut uplink, &pushes, PcmFormat::mono(8_000), 400);
            assert_eq!(found.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(), expected);
            assert!(found.iter().all(|(_, payload)| payload == &[1, 0].repeat(160)));
        }
        check(&[0, 20, 40], &[0, 20, 40]);
        check(&[0, 0, 0], &[0, 20, 40]);
        // 30 ms late: the next ones keep their times.
        check(&[0, 50, 50, 60], &[0, 50, 50, 60]);
        check(&[0, 200, 220], &[0, 200, 220]);
        // What is spoken after a pause is not hurried to make up for it.
        check(&[0, 200, 200], &[0, 200, 220]);
    }

    #[test]
    fn a_telephone_line_never_stops() {
        let mut uplink = Uplink::new(SocketCodec::MuLaw, SampleRate::TELEPHONE, Idle::Silence).unwrap();
        // The third is late, but not so late that silence should be put between it and the second.
        let pushes: Vec<_> = [107, 127, 175, 175, 187].into_iter().map(|ms| (ms, vec![8_000; 160])).collect();
        let found = frames(&mut uplink, &pushes, PcmFormat::mono(8_000), 401);
        let loud = encode_mu_law(8_000);
        let first = found.iter().position(|(_, payload)| payload.contains(&loud)).unwrap();
        let spoken = &found[first..first + 5];
        assert!(spoken.iter().all(|(_, payload)| payload == &[loud; 160]), "what is spoken is not torn apart");
        assert_eq!(spoken.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(), [120, 140, 175, 180, 200]);
        assert!((18..=21).contains(&found.len()), "{}", found.len());
        assert!(found.iter().all(|(_, payload)| payload.len() == 160));
    }

    #[test]
    fn the_rest_is_filled_up() {
        let mut uplink = Uplink::new(SocketCodec::Pcm16, rate(8_000), Idle::Quiet).unwrap();
        let now = Instant::now();
        uplink.push(now, &[7; 170], PcmFormat::mono(8_000)).unwrap();
        uplink.flush();
        let mut payload = Vec::new();
        uplink.poll(now, &mut payload).unwrap();
        assert_eq!(payload, [7, 0].repeat(160));
        assert_eq!(uplink.poll(now, &mut payload), None, "not before its time");
        uplink.poll(now + FRAME, &mut payload).unwrap();
        assert_eq!(payload, [[7, 0].repeat(10), [0, 0].repeat(150)].concat());
        assert_eq!(uplink.poll_timeout(), None);
    }

    #[test]
    fn formats_that_are_none_are_refused() {
        let mut uplink = Uplink::new(SocketCodec::MuLaw, rate(8_000), Idle::Quiet).unwrap();
        let now = Instant::now();
        for format in [PcmFormat::mono(0), PcmFormat::mono(7_999), PcmFormat { rate: 8_000, channels: 0 }] {
            assert!(uplink.push(now, &[0; 8], format).is_err(), "{format:?}");
        }
        assert!(uplink.push(now, &[0; 3], PcmFormat { rate: 8_000, channels: 2 }).is_err());
        assert_eq!(uplink.poll_timeout(), None);
    }

    proptest! {
        /// Pieces of any size make the same samples, and none is lost.
        #[test]
        fn chunking_does_not_matter(sizes in prop::collection::vec(0usize..700, 1..20), hz in 8_000u32..48_000) {
            let samples: Vec<i16> = (0..sizes.iter().sum::<usize>()).map(|n| (n * 7 % 2_000) as i16).collect();
            let collect = |pieces: Vec<&[i16]>| {
                let mut uplink = Uplink::new(SocketCodec::Pcm16, rate(hz), Idle::Quiet).unwrap();
                let mut now = Instant::now();
                for piece in pieces {
                    uplink.push(now, piece, PcmFormat::mono(16_000)).unwrap();
                }
                uplink.flush();
                let (mut all, mut payload) = (Vec::new(), Vec::new());
                while let Some(at) = uplink.poll_timeout() {
                    now = at;
                    prop_assert!(uplink.poll(now, &mut payload).is_some());
                    all.extend_from_slice(&payload);
                }
                Ok(all)
            };
            let mut rest = &samples[..];
            let pieces = sizes.iter().map(|size| { let (piece, tail) = rest.split_at(*size); rest = tail; piece }).collect();
            let parts = collect(pieces)?;
            let whole = collect(vec![&samples])?;
            prop_assert_eq!(&parts, &whole);
            prop_assert!(whole.len() / 2 + 1 >= samples.len() * hz as usize / 16_000);
        }
    }
}
