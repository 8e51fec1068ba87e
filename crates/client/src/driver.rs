//! The task of one call: waits for whatever comes first, applies it, sends what is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use streamfleet_audio::PcmFormat;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webrtc::peer_connection::RTCPeerConnectionState;

use crate::call::{Command, Event, Shared, Summary, VideoPacket};
use crate::error::ClientError;
use crate::join::{self, Joined, Persistence};
use crate::life::{EndReason, Input, Life, Loss, Output};
use crate::media::{AudioLine, Inbound};
use crate::message::Message;
use crate::options::{ClientOptions, Resume};
use crate::peer::{OutboundPacket, Peer, PeerEvent, TrackKind};
use crate::signal::Signaling;
use crate::stats::{CallStats, Report, SetupTimes, Stopwatch, TrackCounters};

/// How often the WebRTC stack is asked for its figures: receiver reports come no faster.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Texts that wait for the data channel to open.
const MAX_PENDING_TEXTS: usize = 64;
/// Events of the peer that are applied before media that is due is sent.
const MAX_BATCH: usize = 64;

/// Runs one call.
pub(crate) struct Driver {
    options: Arc<ClientOptions>,
    signaling: Signaling,
    tasks: TaskTracker,
    shared: Arc<Shared>,
    peer: Peer,
    next: JoinSet<Result<Joined, ClientError>>,
    adopted: Option<Box<Joined>>,
    life: Life,
    audio: AudioLine,
    video: TrackCounters,
    pending_texts: VecDeque<String>,
    channel: Channel,
    resume: Option<Resume>,
    stopwatch: Stopwatch,
    setup: SetupTimes,
    report: Report,
    next_report: Instant,
    reconnects: u32,
    peer_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Opening,
    Open,
}

/// What woke the driver.
enum Wake {
    HangUp,
    Audio(Vec<i16>, PcmFormat),
    Command(Command),
    Peer(PeerEvent),
    PeerState(RTCPeerConnectionState),
    Next(Result<Box<Joined>, String>),
    Timeout,
}

impl Driver {
    pub(crate) fn new(
        options: ClientOptions,
        signaling: Signaling,
        tasks: TaskTracker,
        shared: Arc<Shared>,
        joined: Joined,
    ) -> Result<Self, ClientError> {
        let Joined { peer, stopwatch, setup, resume } = joined;
        let mut audio = AudioLine::new(options.playout, options.delay);
        if let Some((codec, _)) = peer.audio_codec() {
            audio.send_with(codec)?;
        }
        Ok(Self {
            life: Life::new(options.reconnect),
            options: Arc::new(options),
            signaling,
            tasks,
            shared,
            peer,
            next: JoinSet::new(),
            adopted: None,
            audio,
            video: TrackCounters::default(),
            pending_texts: VecDeque::new(),
            channel: Channel::Opening,
            resume,
            stopwatch,
            setup,
            report: Report::default(),
            next_report: Instant::now() + REPORT_INTERVAL,
            reconnects: 0,
            peer_gone: false,
        })
    }

    /// Runs the call to its end.
    pub(crate) async fn run(
        mut self,
        mut audio: mpsc::Receiver<(Vec<i16>, PcmFormat)>,
        mut commands: mpsc::Receiver<Command>,
        hang_up: CancellationToken,
    ) -> Summary {
        let reason = loop {
            let wake = self.wait(&mut audio, &mut commands, &hang_up).await;
            let now = Instant::now();
            self.apply(now, wake).await;
            for _ in 0..MAX_BATCH {
                let Ok(event) = self.peer.events.try_recv() else { break };
                self.apply_peer(now, event);
            }
            if let Some(reason) = self.follow_life(now).await {
                break reason;
            }
            self.send_and_play(now).await;
        };
        let stats = self.stats(Instant::now()).await;
        self.next.shutdown().await;
        self.peer.close().await;
        self.shared.events.put(Event::Ended(reason.clone()));
        Summary { reason, stats }
    }

    async fn wait(
        &mut self,
        audio: &mut mpsc::Receiver<(Vec<i16>, PcmFormat)>,
        commands: &mut mpsc::Receiver<Command>,
        hang_up: &CancellationToken,
    ) -> Wake {
        let deadline = [self.audio.poll_timeout(), self.life.poll_timeout(), Some(self.next_report)];
        let deadline = deadline.into_iter().flatten().min().unwrap_or(self.next_report);
        let room = self.audio.has_room();
        let watch = !self.peer_gone;
        tokio::select! {
            () = hang_up.cancelled() => Wake::HangUp,
            () = tokio::time::sleep_until(deadline.into()) => Wake::Timeout,
            Some(event) = self.peer.events.recv() => Wake::Peer(event),
            Ok(()) = self.peer.status.changed(), if watch => Wake::PeerState(self.peer.status.borrow_and_update().peer),
            Some((samples, format)) = audio.recv(), if room => Wake::Audio(samples, format),
            Some(command) = commands.recv() => Wake::Command(command),
            Some(joined) = self.next.join_next() => Wake::Next(match joined {
                Ok(joined) => joined.map(Box::new).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }),
        }
    }

    async fn apply(&mut self, now: Instant, wake: Wake) {
        match wake {
            Wake::HangUp => self.life.handle_input(now, Input::HangUp),
            Wake::Audio(samples, format) => {
                if let Err(error) = self.audio.push(now, &samples, format) {
                    tracing::warn!(%error, "audio cannot be sent");
                }
            }
            Wake::Command(command) => self.command(now, command).await,
            Wake::Peer(event) => self.apply_peer(now, event),
            Wake::PeerState(RTCPeerConnectionState::Failed) => self.lost(now, Loss::Vanished),
            Wake::PeerState(RTCPeerConnectionState::Closed) => self.lost(now, Loss::Closed),
            Wake::PeerState(_) => {}
            Wake::Next(Ok(joined)) => {
                self.adopted = Some(joined);
                self.life.handle_input(now, Input::Rejoined);
            }
            Wake::Next(Err(reason)) => {
                self.shared.events.put(Event::ReconnectFailed { reason: reason.clone() });
                self.life.handle_input(now, Input::RejoinFailed(reason));
            }
            Wake::Timeout => {
                self.life.handle_timeout(now);
                if self.next_report <= now {
                    self.next_report = now + REPORT_INTERVAL;
                    self.take_report(now).await;
                }
            }
        }
        if self.channel == Channel::Open {
            while let Some(text) = self.pending_texts.pop_front() {
                self.send_text(text).await;
            }
        }
    }

    fn lost(&mut self, now: Instant, loss: Loss) {
        if !std::mem::replace(&mut self.peer_gone, true) {
            self.life.handle_input(now, Input::Lost(loss));
        }
    }

    async fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Flush => self.audio.flush(),
            Command::Clear => self.audio.clear(),
            Command::Text(text) if self.channel == Channel::Open => self.send_text(text).await,
            Command::Text(text) => {
                if self.pending_texts.len() == MAX_PENDING_TEXTS {
                    self.pending_texts.pop_front();
                    tracing::warn!("the data channel does not open: the oldest text is forgotten");
                }
                self.pending_texts.push_back(text);
            }
            Command::Video(VideoPacket { timestamp, marker, payload }) => {
                let packet = OutboundPacket { timestamp, marker, payload };
                if self.peer.send_rtp(TrackKind::Video, packet).await {
                    self.video.sent += 1;
                }
            }
            // `Call` refuses them without a telephone.
            Command::Digit(_) => {}
            // A receiver that is gone does not want the answer any more.
            Command::Stats(reply) => drop(reply.send(self.stats(now).await)),
            Command::Resume(reply) => drop(reply.send(self.resume.clone())),
        }
    }

    async fn send_text(&mut self, text: String) {
        if let Err(error) = self.peer.send_text(&text).await {
            tracing::debug!(%error, "a text was not sent");
        }
    }

    fn apply_peer(&mut self, now: Instant, event: PeerEvent) {
        match event {
            PeerEvent::Rtp(TrackKind::Audio, packet) => {
                // Padding alone keeps a path open (RFC 6464 and others); comfort noise and events are not audio of ours.
                let Some(codec) = self.peer.audio_codec_of(packet.header.payload_type) else { return };
                if packet.payload.is_empty() {
                    return;
                }
                self.setup.first_media.get_or_insert_with(|| self.stopwatch.at(now));
                let inbound = Inbound {
                    ssrc: packet.header.ssrc,
                    sequence: packet.header.sequence_number,
                    timestamp: packet.header.timestamp,
                    codec,
                    payload: &packet.payload,
                };
                if let Err(error) = self.audio.receive(now, inbound) {
                    tracing::warn!(%error, "audio cannot be received");
                }
            }
            PeerEvent::Rtp(TrackKind::Video, packet) => {
                self.setup.first_media.get_or_insert_with(|| self.stopwatch.at(now));
                self.video.received += 1;
                let rtc::rtp::Header { timestamp, marker, .. } = packet.header;
                self.shared.video.put(VideoPacket { timestamp, marker, payload: packet.payload });
            }
            PeerEvent::ChannelOpen => {
                self.setup.channel.get_or_insert_with(|| self.stopwatch.at(now));
                self.channel = Channel::Open;
                self.shared.events.put(Event::ChannelOpen);
            }
            PeerEvent::ChannelClosed => self.lost(now, Loss::Closed),
            PeerEvent::Text(text) => self.said(now, Message::parse(&text)),
        }
    }

    fn said(&mut self, now: Instant, message: Message) {
        if let Message::Reconnect { reason, .. } = &message {
            tracing::info!(%reason, "the server asks for a new offer");
        }
        if let Some(input) = Input::of(&message) {
            self.life.handle_input(now, input);
        }
        self.shared.events.put(Event::Message(message));
    }

    /// Does what the call's life asks for; `Some` at its end.
    async fn follow_life(&mut self, now: Instant) -> Option<EndReason> {
        while let Some(output) = self.life.poll_output() {
            match output {
                Output::Finish(reason) => return Some(reason),
                Output::Rejoin { resume } => self.rejoin(resume),
                Output::Adopt => self.adopt(now).await,
            }
        }
        None
    }

    fn rejoin(&mut self, resume: Option<Resume>) {
        if resume.is_some() {
            self.resume = resume;
        }
        let reason = if self.peer_gone { "the connection was lost" } else { "the server asked for it" };
        self.shared.events.put(Event::Reconnecting { reason: reason.to_owned() });
        let (options, signaling, tasks) = (Arc::clone(&self.options), self.signaling.clone(), self.tasks.clone());
        let resume = self.resume.clone();
        self.next.spawn(async move {
            let limit = options.timeouts.rejoin + options.timeouts.connect;
            let joining = join::join(&options, &signaling, resume.as_ref(), Persistence::Again, &tasks);
            tokio::time::timeout(limit, joining).await.unwrap_or_else(|_| {
                Err(ClientError::NotConnected { after: limit, state: "joining again took too long".to_owned() })
            })
        });
    }

    async fn adopt(&mut self, now: Instant) {
        let Some(joined) = self.adopted.take() else { return };
        let Joined { peer, stopwatch, setup, resume } = *joined;
        let old = std::mem::replace(&mut self.peer, peer);
        self.tasks.spawn(old.close());
        if let Some((codec, _)) = self.peer.audio_codec()
            && let Err(error) = self.audio.send_with(codec)
        {
            tracing::warn!(%error, "audio cannot be sent");
        }
        (self.stopwatch, self.setup, self.channel, self.peer_gone) = (stopwatch, setup, Channel::Opening, false);
        self.resume = resume;
        self.report = Report::default();
        self.reconnects += 1;
        self.shared.events.put(Event::Reconnected);
        // A state that was reached before the adoption would not be reported as a change.
        let state = self.peer.status.borrow_and_update().peer;
        match state {
            RTCPeerConnectionState::Failed => self.lost(now, Loss::Vanished),
            RTCPeerConnectionState::Closed => self.lost(now, Loss::Closed),
            _ => {}
        }
    }

    async fn send_and_play(&mut self, now: Instant) {
        let mut payload = Vec::new();
        while let Some(info) = self.audio.poll_packet(now, &mut payload) {
            let payload = Bytes::copy_from_slice(&payload);
            let packet = OutboundPacket { timestamp: info.timestamp, marker: info.marker, payload };
            self.peer.send_rtp(TrackKind::Audio, packet).await;
        }
        while let Some(chunk) = self.audio.poll_chunk(now) {
            if !chunk.samples.is_empty() {
                self.shared.audio.put(chunk);
            }
        }
    }

    async fn take_report(&mut self, now: Instant) {
        self.report = self.peer.report(now).await;
        if let Some(lost) = self.report.remote_loss {
            self.audio.report(now, lost);
        }
    }

    async fn stats(&mut self, now: Instant) -> CallStats {
        if !self.peer_gone {
            self.take_report(now).await;
        }
        let counters = self.audio.counters();
        CallStats {
            setup: self.setup,
            round_trip: self.report.round_trip,
            audio: TrackCounters { sent: counters.sent, received: counters.received, lost: self.audio.lost() },
            video: self.video,
            remote_loss: self.report.remote_loss,
            playout: self.audio.receiver_stats(),
            chunks_dropped: self.shared.audio.dropped(),
            reconnects: self.reconnects,
        }
    }
}
