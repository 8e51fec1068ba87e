//! A call, as its user sees it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use streamfleet_audio::PcmFormat;
use streamfleet_session::SessionId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::driver::Driver;
use crate::error::ClientError;
use crate::join::{self, Persistence};
use crate::life::EndReason;
use crate::mailbox::Mailbox;
use crate::media::AudioChunk;
use crate::message::Message;
use crate::options::{ClientOptions, Media, Resume};
use crate::phone::options::{Digit, PhoneOptions};
use crate::signal::Signaling;
use crate::socket::driver::SocketDriver;
use crate::socket::options::SocketOptions;
use crate::stats::CallStats;

/// Five seconds of audio: a reader that is further behind does not want the oldest.
const MAX_CHUNKS: usize = 250;
/// Five seconds of a small video at ten packets a frame.
const MAX_VIDEO: usize = 1_500;
/// More messages than a conversation has in minutes.
const MAX_EVENTS: usize = 256;
/// Pieces of audio between [`Call::send_audio`] and the encoder; its own queue is what paces the caller.
const AUDIO_COMMANDS: usize = 4;
/// Everything else that a user may ask at once.
const COMMANDS: usize = 64;
/// Audio is handed on in pieces of this many milliseconds, so that pacing works whatever the caller's pieces are.
const PIECE_MS: usize = 20;

/// Makes calls.
#[derive(Debug, Clone, Copy)]
pub struct Client;

impl Client {
    /// Makes a call: returns once the server has answered and the connection stands.
    ///
    /// # Errors
    /// [`ClientError`] says which step failed and what to do. Refusals that pass by themselves
    /// (`connection_already_exists`, `no_capacity`, …) are retried within `timeouts.admission`.
    pub async fn connect(options: ClientOptions) -> Result<Call, ClientError> {
        let tasks = TaskTracker::new();
        let signaling = Signaling::new(&options)?;
        let joined = join::join(&options, &signaling, options.resume.as_ref(), Persistence::First, &tasks).await?;
        let shared = Shared::new();
        let (id, media, playout) = (options.webrtc_id.clone(), options.media, options.playout);
        let driver = Driver::new(options, signaling, tasks.clone(), Arc::clone(&shared), joined)?;
        let call = CallKind { id, transport: Transport::WebRtc, media, playout };
        Ok(launch(call, shared, tasks, |ends| driver.run(ends.audio, ends.commands, ends.hang_up)))
    }

    /// Makes a call over a WebSocket: returns once the server has taken it.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_socket(options: SocketOptions) -> Result<Call, ClientError> {
        let (id, shared) = (options.websocket_id.clone(), Shared::new());
        let driver = Box::pin(SocketDriver::plain(options, Arc::clone(&shared))).await?;
        let call = CallKind { id, transport: Transport::WebSocket, media: Media::Audio, playout: driver.format() };
        Ok(launch(call, shared, TaskTracker::new(), |ends| driver.run(ends.audio, ends.commands, ends.hang_up)))
    }

    /// Phones a service as a telephone company would connect the call: returns once its media stream stands. A service
    /// that refuses the call does so afterwards, which ends it.
    ///
    /// # Errors
    /// The service cannot be reached, refuses the webhook, or its TwiML connects no stream.
    pub async fn connect_phone(options: PhoneOptions) -> Result<Call, ClientError> {
        let (id, shared) = (options.stream_sid.clone(), Shared::new());
        let driver = Box::pin(SocketDriver::phone(options, Arc::clone(&shared))).await?;
        let call = CallKind { id, transport: Transport::Phone, media: Media::Audio, playout: driver.format() };
        Ok(launch(call, shared, TaskTracker::new(), |ends| driver.run(ends.audio, ends.commands, ends.hang_up)))
    }
}

/// What carries a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RTP over ICE and DTLS, with a data channel.
    WebRtc,
    /// A WebSocket of FastRTC's kind.
    WebSocket,
    /// A telephone company's media stream.
    Phone,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WebRtc => "WebRTC",
            Self::WebSocket => "WebSocket",
            Self::Phone => "telephone",
        })
    }
}

/// What a call is, whoever drives it.
#[derive(Debug)]
struct CallKind {
    id: SessionId,
    transport: Transport,
    media: Media,
    playout: PcmFormat,
}

/// The driver's ends of what the user holds.
struct Ends {
    audio: mpsc::Receiver<(Vec<i16>, PcmFormat)>,
    commands: mpsc::Receiver<Command>,
    hang_up: CancellationToken,
}

/// Starts the call's task.
fn launch<F>(kind: CallKind, shared: Arc<Shared>, tasks: TaskTracker, run: impl FnOnce(Ends) -> F) -> Call
where
    F: Future<Output = Summary> + Send + 'static,
{
    let (audio_tx, audio) = mpsc::channel(AUDIO_COMMANDS);
    let (command_tx, commands) = mpsc::channel(COMMANDS);
    let (over_tx, over) = oneshot::channel();
    let hang_up = CancellationToken::new();
    let run = run(Ends { audio, commands, hang_up: hang_up.clone() });
    let closer = Closer(Arc::clone(&shared));
    tasks.spawn(async move {
        let summary = run.await;
        drop(closer);
        // The user may have dropped the call without waiting for its end.
        let _ = over_tx.send(summary);
    });
    tasks.close();
    Call { kind, shared, audio: audio_tx, commands: command_tx, over, hang_up: hang_up.drop_guard(), tasks }
}

/// What the driver hands to the user.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) audio: Mailbox<AudioChunk>,
    pub(crate) video: Mailbox<VideoPacket>,
    pub(crate) events: Mailbox<Event>,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            audio: Mailbox::new(MAX_CHUNKS),
            video: Mailbox::new(MAX_VIDEO),
            events: Mailbox::new(MAX_EVENTS),
        })
    }
}

/// Ends the user's waiting when the driver is gone, in whatever way.
struct Closer(Arc<Shared>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.audio.close();
        self.0.video.close();
        self.0.events.close();
    }
}

/// What the user asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Flush,
    Clear,
    Text(String),
    Digit(Digit),
    Video(VideoPacket),
    Stats(oneshot::Sender<CallStats>),
    Resume(oneshot::Sender<Option<Resume>>),
}

/// One RTP payload of the video track, as the codec's payload format has it (RFC 7741, RFC 6184).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoPacket {
    /// The frame's time on the 90 kHz clock.
    pub timestamp: u32,
    /// Set on the last packet of a frame.
    pub marker: bool,
    /// The payload with its codec's descriptor.
    pub payload: Bytes,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The data channel is open.
    ChannelOpen,
    /// The server said something.
    Message(Message),
    /// The server has taken back audio that was sent and not heard yet, because it was interrupted. Only telephones are
    /// told.
    Cleared,
    /// The call moves to another connection.
    Reconnecting {
        /// Why.
        reason: String,
    },
    /// The call goes on over another connection.
    Reconnected,
    /// Moving failed; the old connection still stands.
    ReconnectFailed {
        /// Why.
        reason: String,
    },
    /// The call is over; nothing follows.
    Ended(EndReason),
}

/// How a call went.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Why it is over.
    pub reason: EndReason,
    /// Its last figures.
    pub stats: CallStats,
}

/// A call. All methods may be used at the same time; dropping it hangs up.
#[derive(Debug)]
pub struct Call {
    kind: CallKind,
    shared: Arc<Shared>,
    audio: mpsc::Sender<(Vec<i16>, PcmFormat)>,
    commands: mpsc::Sender<Command>,
    over: oneshot::Receiver<Summary>,
    hang_up: DropGuard,
    tasks: TaskTracker,
}

impl Call {
    /// The session's id.
    pub fn id(&self) -> &SessionId {
        &self.kind.id
    }

    /// What carries the call.
    pub fn transport(&self) -> Transport {
        self.kind.transport
    }

    /// The format of received audio.
    pub fn playout(&self) -> PcmFormat {
        self.kind.playout
    }

    /// Sends interleaved PCM of any rate. Packets of 20 ms leave in real time; this waits while more than about
    /// 100 ms are queued, so a file can be given as fast as it is read.
    ///
    /// # Errors
    /// [`ClientError::NoTrack`] without an audio track, [`ClientError::Over`] after the end.
    pub async fn send_audio(&self, samples: &[i16], format: PcmFormat) -> Result<(), ClientError> {
        if self.kind.media == Media::None {
            return Err(ClientError::NoTrack("audio"));
        }
        let per_piece = (format.rate as usize * PIECE_MS / 1000).max(1) * usize::from(format.channels.max(1));
        for piece in samples.chunks(per_piece) {
            self.audio.send((piece.to_vec(), format)).await.map_err(|_| ClientError::Over)?;
        }
        Ok(())
    }

    /// Says that no more audio comes for now: the last packet is filled up with silence.
    ///
    /// # Errors
    /// [`ClientError::Over`] after the end.
    pub async fn flush_audio(&self) -> Result<(), ClientError> {
        self.command(Command::Flush).await
    }

    /// Forgets the audio that is queued and not sent yet.
    ///
    /// # Errors
    /// [`ClientError::Over`] after the end.
    pub async fn clear_audio(&self) -> Result<(), ClientError> {
        self.command(Command::Clear).await
    }

    /// The next piece of received audio, in playout order and real time. `None` after the end. Whoever reads too
    /// slowly loses the oldest after five seconds. Safe to cancel.
    pub async fn next_audio(&self) -> Option<AudioChunk> {
        self.shared.audio.take().await
    }

    /// The next piece of received audio that is already there.
    pub fn try_next_audio(&self) -> Option<AudioChunk> {
        self.shared.audio.try_take()
    }

    /// Sends one packet of video.
    ///
    /// # Errors
    /// [`ClientError::NoTrack`] without a video track, [`ClientError::Over`] after the end.
    pub async fn send_video(&self, packet: VideoPacket) -> Result<(), ClientError> {
        if self.kind.media != Media::AudioVideo {
            return Err(ClientError::NoTrack("video"));
        }
        self.command(Command::Video(packet)).await
    }

    /// The next packet of received video; `None` after the end. Safe to cancel.
    pub async fn next_video(&self) -> Option<VideoPacket> {
        self.shared.video.take().await
    }

    /// Sends a text on the data channel. Texts wait for it to open.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] without WebRTC, [`ClientError::Over`] after the end.
    pub async fn send_text(&self, text: impl Into<String>) -> Result<(), ClientError> {
        if self.kind.transport != Transport::WebRtc {
            return Err(ClientError::Unsupported { what: "data channel", transport: self.kind.transport });
        }
        self.command(Command::Text(text.into())).await
    }

    /// Presses a key of the telephone.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] on what is no telephone, [`ClientError::Over`] after the end.
    pub async fn send_digit(&self, digit: Digit) -> Result<(), ClientError> {
        if self.kind.transport != Transport::Phone {
            return Err(ClientError::Unsupported { what: "keys", transport: self.kind.transport });
        }
        self.command(Command::Digit(digit)).await
    }

    /// The next event; `None` after [`Event::Ended`]. Safe to cancel.
    pub async fn next_event(&self) -> Option<Event> {
        self.shared.events.take().await
    }

    /// The call's figures now.
    ///
    /// # Errors
    /// [`ClientError::Over`] after the end: [`Call::end`] has the last ones.
    pub async fn stats(&self) -> Result<CallStats, ClientError> {
        let (reply, stats) = oneshot::channel();
        self.command(Command::Stats(reply)).await?;
        stats.await.map_err(|_| ClientError::Over)
    }

    /// The token with which another call can continue this session, if the server gave one.
    ///
    /// # Errors
    /// [`ClientError::Over`] after the end.
    pub async fn resume_token(&self) -> Result<Option<Resume>, ClientError> {
        let (reply, token) = oneshot::channel();
        self.command(Command::Resume(reply)).await?;
        token.await.map_err(|_| ClientError::Over)
    }

    /// Hangs up, waits until everything is closed, and tells how it went. After the server's own end it only tells.
    pub async fn end(self) -> Summary {
        drop(self.hang_up);
        let summary = self.over.await;
        self.tasks.wait().await;
        summary.unwrap_or_else(|_| Summary {
            reason: EndReason::Lost("the call's task ended early".to_owned()),
            stats: CallStats::default(),
        })
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Over)
    }
}
