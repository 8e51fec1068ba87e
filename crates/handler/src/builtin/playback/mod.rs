//! `playback`: a file, from its beginning to its end.

mod ogg_opus;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use streamfleet_audio::wav::{self, WavError};
use tokio::time::{Instant, sleep_until};

use crate::{
    AudioFrame, CodecName, ConfigError, Emit, EncodedPacket, Handler, HandlerError, Input, Keys, Media, PcmFormat,
    Registered, Switch, TrackKind, async_trait,
};
use ogg_opus::OpusPackets;

/// The largest file played, in bytes: it is kept in memory, once for all sessions. Eleven minutes of 48 kHz mono WAV,
/// or five hours of Opus.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What is emitted of a WAV file at a time: one packet's worth.
const FRAME: Duration = Duration::from_millis(20);

/// Plays a WAV file (decoded, paced by the link's back-pressure) or an Ogg Opus file (its packets untouched, paced by
/// their own durations), once or for ever; then ends the stream. The file is read once, when the handler is configured.
///
/// RTP has no place for what RFC 7845 cuts off at both ends of an Ogg file (pre-skip and end trimming): those few
/// milliseconds are played.
#[derive(Debug)]
pub struct Playback {
    clip: Clip,
    repeat: Switch,
    at: Mutex<Position>,
}

#[derive(Clone, Debug)]
enum Clip {
    /// At least one sample.
    Pcm(Arc<wav::Clip>),
    Opus(Arc<OpusPackets>),
}

/// Where a session is in its clip.
#[derive(Debug, Default)]
struct Position {
    /// The next sample or packet of the clip.
    next: usize,
    /// Packets emitted.
    index: u64,
    /// Time emitted.
    elapsed: Duration,
    /// When the first packet was due.
    began: Option<Instant>,
}

/// Why a file cannot be played; the rest of a sentence that begins with the key.
#[derive(Debug, thiserror::Error)]
enum Unplayable {
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("is larger than {} MiB", MAX_FILE / (1024 * 1024))]
    TooLarge,
    #[error("is neither a WAV nor an Ogg file")]
    Unknown,
    #[error("is not a WAV file that can be played: {0}")]
    Wav(#[from] WavError),
    #[error("has no audio in it")]
    Empty,
    #[error(transparent)]
    Ogg(#[from] ogg_opus::BadOgg),
}

impl Playback {
    /// Plays the file at `path` again and again, or once.
    ///
    /// # Errors
    /// A [`ConfigError`] for the key `path` when the file cannot be read or played.
    pub fn open(path: &Path, repeat: Switch) -> Result<Self, ConfigError> {
        let clip = load(path).map_err(|cause| ConfigError::mistake("path", cause))?;
        Ok(Self::of(clip, repeat))
    }

    fn of(clip: Clip, repeat: Switch) -> Self {
        Self { clip, repeat, at: Mutex::default() }
    }

    pub(super) fn configure(config: Value) -> Result<Registered, ConfigError> {
        let mut keys = Keys::new(config);
        let repeat = keys.switch("loop", Switch::Off);
        let clip = keys.text("path").and_then(|path| match load(Path::new(&path)) {
            Ok(clip) => Some(clip),
            Err(cause) => {
                keys.mistake("path", cause);
                None
            }
        });
        keys.finish()?;
        // Without a clip there was a mistake, and `finish` has returned it.
        let clip = clip.ok_or_else(|| ConfigError::mistake("path", "is required"))?;
        Ok(Registered::Handler(Box::new(Self::of(clip, repeat))))
    }

    /// The next frame of a WAV file.
    fn frame(&self, pcm: &wav::Clip) -> Emit {
        let mut at = self.at.lock();
        if at.next == pcm.samples.len() {
            if self.repeat == Switch::Off {
                return Emit::EndStream(None);
            }
            at.next = 0;
        }
        let format = pcm.format;
        let until = pcm.samples.len().min(at.next + format.samples_in(FRAME));
        let samples = pcm.samples[at.next..until].to_vec();
        let frame = AudioFrame { samples, format, timestamp: at.elapsed };
        at.next = until;
        at.elapsed += frame.duration();
        Emit::Audio(frame)
    }

    /// The next packet of an Opus file, and when it is due.
    fn packet(&self, packets: &OpusPackets, now: Instant) -> (Emit, Instant) {
        let mut at = self.at.lock();
        let due = *at.began.get_or_insert(now) + at.elapsed;
        if at.next == packets.len() {
            if self.repeat == Switch::Off {
                return (Emit::EndStream(None), due);
            }
            at.next = 0;
        }
        let (payload, duration) = packets.get(at.next);
        let packet = EncodedPacket {
            kind: TrackKind::Audio,
            codec: CodecName::Opus,
            index: at.index,
            timestamp: rtp_time(at.elapsed),
            marker: at.index == 0,
            payload,
        };
        at.next += 1;
        at.index += 1;
        at.elapsed += duration;
        (Emit::Packet(packet), due)
    }
}

/// Opus packets are whole multiples of 2.5 ms, so nothing is lost; the RTP clock wraps.
fn rtp_time(elapsed: Duration) -> u32 {
    (elapsed.as_micros() * u128::from(CodecName::Opus.clock_rate()) / 1_000_000) as u32
}

fn load(path: &Path) -> Result<Clip, Unplayable> {
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there is more; the file's own word for its length may be out of date.
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Unplayable::TooLarge);
    }
    match bytes.get(..4) {
        Some(b"RIFF") => {
            // The file is bounded already, and with it the clip.
            let clip = wav::read(&bytes[..], Duration::MAX)?;
            if clip.samples.is_empty() { Err(Unplayable::Empty) } else { Ok(Clip::Pcm(Arc::new(clip))) }
        }
        Some(b"OggS") => Ok(Clip::Opus(Arc::new(OpusPackets::parse(bytes)?))),
        _ => Err(Unplayable::Unknown),
    }
}

#[async_trait]
impl Handler for Playback {
    fn media(&self) -> Media {
        match &self.clip {
            Clip::Pcm(pcm) => {
                // What comes in is not listened to: the cheapest format does.
                Media::Frames { input: PcmFormat::mono(8_000), output: pcm.format }
            }
            Clip::Opus(_) => Media::Packets,
        }
    }

    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::of(self.clip.clone(), self.repeat))
    }

    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn emit(&self) -> Result<Emit, HandlerError> {
        match &self.clip {
            Clip::Pcm(pcm) => Ok(self.frame(pcm)),
            Clip::Opus(packets) => {
                let (emit, due) = self.packet(packets, Instant::now());
                sleep_until(due).await;
                Ok(emit)
            }
        }
    }
}

#[cfg(test)]
mod tests;
