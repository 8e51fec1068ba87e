//! Where a connection is in its life.

use std::time::Instant;

use super::{END_MARK, Farewell, Transmit};
use crate::audio::SocketAudio;
use crate::close::CloseFrame;

#[derive(Debug)]
pub(super) enum State {
    /// For `start`.
    Waiting { until: Option<Instant> },
    /// Whether there will be a session.
    Deciding,
    /// There is one.
    Open(Box<SocketAudio>),
    /// It plays out.
    Ending { audio: Box<SocketAudio>, farewell: Farewell, mark: EchoedMark },
    /// The end is decided; the last frames are on their way.
    Closing { audio: Option<Box<SocketAudio>>, frame: CloseFrame, until: Instant, is_sent: bool },
    /// Nothing is left. The audio is kept for a client that comes back.
    Closed(Option<Box<SocketAudio>>),
}

/// The mark at the end of the audio, where the other side has marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EchoedMark {
    /// It has none: what was sent is taken to play at once.
    None,
    Unsent,
    /// It is waited for until then.
    Sent {
        until: Instant,
    },
    CameBack {
        at: Instant,
    },
}

impl State {
    /// Whether the end is decided.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Closed(_))
    }

    pub(super) fn audio_mut(&mut self) -> Option<&mut SocketAudio> {
        match self {
            Self::Open(audio) | Self::Ending { audio, .. } => Some(audio),
            Self::Closing { audio, .. } | Self::Closed(audio) => audio.as_deref_mut(),
            Self::Waiting { .. } | Self::Deciding => None,
        }
    }

    pub(super) fn audio(&self) -> Option<&SocketAudio> {
        match self {
            Self::Open(audio) | Self::Ending { audio, .. } => Some(audio),
            Self::Closing { audio, .. } | Self::Closed(audio) => audio.as_deref(),
            Self::Waiting { .. } | Self::Deciding => None,
        }
    }

    /// Takes the audio out of a state that needs it no more.
    pub(super) fn release_audio(&mut self) -> Option<Box<SocketAudio>> {
        match self {
            Self::Closing { audio, .. } | Self::Closed(audio) => audio.take(),
            Self::Waiting { .. } | Self::Deciding | Self::Open(_) | Self::Ending { .. } => None,
        }
    }

    /// The audio, if any of it may still be sent.
    pub(super) fn audio_to_send(&mut self) -> Option<&mut SocketAudio> {
        match self {
            Self::Open(audio) | Self::Ending { audio, .. } => Some(audio),
            _ => None,
        }
    }

    /// Takes the audio out; the state is to be replaced.
    pub(super) fn take_audio(&mut self) -> Option<Box<SocketAudio>> {
        match std::mem::replace(self, Self::Deciding) {
            Self::Open(audio) | Self::Ending { audio, .. } => Some(audio),
            Self::Closing { audio, .. } | Self::Closed(audio) => audio,
            Self::Waiting { .. } | Self::Deciding => None,
        }
    }

    /// The close frame, once.
    pub(super) fn close_frame(&mut self) -> Option<Transmit> {
        match self {
            Self::Closing { frame, is_sent, .. } if !*is_sent => {
                *is_sent = true;
                Some(Transmit::Close(*frame))
            }
            _ => None,
        }
    }

    /// The end mark is to be sent now: whether this is the first time that this is said.
    pub(super) fn mark_is_due(&mut self, until: Instant) -> bool {
        match self {
            Self::Ending { mark: mark @ EchoedMark::Unsent, .. } => {
                *mark = EchoedMark::Sent { until };
                true
            }
            _ => false,
        }
    }

    /// A mark was echoed.
    pub(super) fn mark_came_back(&mut self, name: &str, at: Instant) {
        if let Self::Ending { mark: mark @ EchoedMark::Sent { .. }, .. } = self
            && name == END_MARK
        {
            *mark = EchoedMark::CameBack { at };
        }
    }

    /// When everything has played, as far as that is known yet.
    pub(super) fn over_at(&self) -> Option<Instant> {
        let Self::Ending { audio, mark, .. } = self else { return None };
        let played_out_at = audio.output.played_out_at()?;
        match *mark {
            EchoedMark::None => Some(played_out_at),
            EchoedMark::Unsent => None,
            EchoedMark::Sent { until } => Some(until),
            EchoedMark::CameBack { at } => Some(at),
        }
    }
}
