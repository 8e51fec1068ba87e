//! From PCM to payloads.

use std::time::{Duration, Instant};

use streamfleet_audio::{AudioError, AudioSender, Codec, PcmFormat, g711};

use super::FRAME;
use crate::codec::WireCodec;

/// Encodes one stream of mono PCM.
#[derive(Debug)]
pub(super) enum Encoder {
    MuLaw,
    Pcm16,
    Opus(Box<OpusEncoder>),
}

/// The sender of the RTP path as nothing but an encoder: it is always asked at the time at which it has a packet.
#[derive(Debug)]
pub(super) struct OpusEncoder {
    sender: AudioSender,
    epoch: Instant,
    /// The packet under way: the sender replaces what it is given, payloads are appended to.
    packet: Vec<u8>,
}

impl Encoder {
    /// `now` is any time: it is what the encoder's own clock starts at.
    pub(super) fn new(codec: WireCodec, now: Instant) -> Result<Self, AudioError> {
        Ok(match codec {
            WireCodec::MuLaw | WireCodec::Telephone => Self::MuLaw,
            WireCodec::Pcm16 => Self::Pcm16,
            WireCodec::Opus => Self::Opus(Box::new(OpusEncoder {
                sender: AudioSender::new(Codec::Opus)?,
                epoch: now,
                packet: Vec::new(),
            })),
        })
    }

    /// Appends the payload of a frame of at most 20 ms at `rate` Hz to `out`, and says how long it plays. `None` if the frame
    /// fills no packet yet, which happens at rates that Opus does not have.
    pub(super) fn encode(
        &mut self,
        frame: &[i16],
        rate: u32,
        out: &mut Vec<u8>,
    ) -> Result<Option<Duration>, AudioError> {
        match self {
            Self::MuLaw => out.extend(frame.iter().map(|&sample| g711::encode_mu_law(sample))),
            Self::Pcm16 => out.extend(frame.iter().flat_map(|sample| sample.to_le_bytes())),
            Self::Opus(opus) => {
                opus.sender.push(opus.epoch, frame, PcmFormat::mono(rate))?;
                return Ok(opus.packet(out));
            }
        }
        Ok(Some(PcmFormat::mono(rate).duration(frame.len())))
    }

    /// Whether a packet is complete already.
    pub(super) fn has_packet(&self) -> bool {
        match self {
            Self::MuLaw | Self::Pcm16 => false,
            Self::Opus(opus) => opus.sender.poll_timeout().is_some(),
        }
    }

    /// Appends the packet that is complete to `out`.
    pub(super) fn packet(&mut self, out: &mut Vec<u8>) -> Option<Duration> {
        match self {
            Self::MuLaw | Self::Pcm16 => None,
            Self::Opus(opus) => opus.packet(out),
        }
    }

    /// Whether two payloads, one behind the other, are one.
    pub(super) fn is_joinable(&self) -> bool {
        !matches!(self, Self::Opus(_))
    }

    /// Whether the end of what was encoded is still inside.
    pub(super) fn looks_ahead(&self) -> bool {
        matches!(self, Self::Opus(_))
    }

    /// No more comes for now: what is inside becomes packets.
    pub(super) fn flush(&mut self) {
        if let Self::Opus(opus) = self {
            opus.sender.flush();
        }
    }

    /// What is inside is forgotten.
    pub(super) fn clear(&mut self) {
        if let Self::Opus(opus) = self {
            opus.sender.clear();
        }
    }
}

impl OpusEncoder {
    fn packet(&mut self, out: &mut Vec<u8>) -> Option<Duration> {
        let due = self.sender.poll_timeout()?;
        self.sender.poll(due, &mut self.packet)?;
        out.extend_from_slice(&self.packet);
        Some(FRAME)
    }
}
