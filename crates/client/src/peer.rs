//! One peer connection: how it is made, what comes out of it, how it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::Slot;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use streamfleet_audio::Codec;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::media_stream::track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceConnectionState, RTCIceGatheringState, RTCIceServer, RTCIceTransportPolicy, RTCPeerConnectionIceEvent,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder, StatsSelector, configure_nack,
    configure_rtcp_reports,
};
use webrtc::runtime::Runtime;

use crate::codecs;
use crate::error::ClientError;
use crate::feedback::{Feedback, RemoteLoss};
use crate::local;
use crate::options::{ClientOptions, IceServer, Media, Ways};
use crate::runtime::Prompt;
use crate::sdp::{Description, Kind, MediaLine};
use crate::stats::Report;

/// A second of audio and as much video. Behind it the WebRTC stack holds 256 more and then drops.
const MAX_EVENTS: usize = 512;
/// Sixteen addresses with a few servers each.
const MAX_CANDIDATES: usize = 256;
/// Longest data-channel message that is handed on; the protocol's own have a few hundred bytes.
const MAX_TEXT: usize = 256 * 1024;

/// What a peer connection reports.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    Rtp(TrackKind, rtp::Packet),
    ChannelOpen,
    Text(String),
    ChannelClosed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackKind {
    Audio,
    Video,
}

/// The states that matter, and when they were first reached.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Status {
    pub(crate) gathered: bool,
    pub(crate) ice: RTCIceConnectionState,
    pub(crate) peer: RTCPeerConnectionState,
    pub(crate) ice_at: Option<Instant>,
    pub(crate) connected_at: Option<Instant>,
}

/// Where reports are read: beside the interceptor that makes ours. It only looks on, so any place would do.
const FEEDBACK: Slot = Slot::Custom(10_500);

/// A local track, with the numbers of its RTP stream.
pub(crate) struct Outbound {
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    /// Where the stream's RTP clock begins: random for audio (RFC 3550, 5.1), the caller's own for video.
    clock_start: u32,
    sequence: AtomicU16,
}

/// A peer connection that is being made or in use. Dropping it closes it.
pub(crate) struct Peer {
    connection: Option<Arc<dyn PeerConnection>>,
    channel: Arc<dyn DataChannel>,
    audio: Option<Outbound>,
    video: Option<Outbound>,
    pub(crate) events: mpsc::Receiver<PeerEvent>,
    pub(crate) status: watch::Receiver<Status>,
    tasks: TaskTracker,
    closed: CancellationToken,
    runtime: Arc<Prompt>,
    negotiated: Negotiated,
    remote_loss: RemoteLoss,
}

/// What the answer chose.
#[derive(Debug, Default)]
struct Negotiated {
    audio: Option<MediaLine>,
    video: Option<MediaLine>,
}

/// Candidates as they are found.
pub(crate) type Candidates = mpsc::Receiver<String>;

impl Peer {
    /// Builds a connection with the tracks and the data channel of the options. Nothing is sent yet.
    pub(crate) async fn build(
        options: &ClientOptions,
        ice_servers: Vec<IceServer>,
        server: &[std::net::IpAddr],
        tasks: &TaskTracker,
    ) -> Result<(Self, Candidates), ClientError> {
        let interfaces = if options.local_addresses.is_empty() {
            local::bind_addresses(&local::interfaces(), server)
        } else {
            options.local_addresses.iter().map(|address| (*address, 0).into()).collect()
        };
        if interfaces.is_empty() {
            return Err(ClientError::NoAddress);
        }
        let (event_tx, events) = mpsc::channel(MAX_EVENTS);
        let (candidate_tx, candidates) = mpsc::channel(MAX_CANDIDATES);
        let (status_tx, status) = watch::channel(Status::default());
        let closed = CancellationToken::new();
        let observer = Observer {
            events: event_tx.clone(),
            candidates: candidate_tx,
            status: status_tx,
            tasks: tasks.clone(),
            closed: closed.clone(),
        };

        let mut engine = MediaEngine::default();
        codecs::register(&mut engine, options.media)?;
        let remote_loss = RemoteLoss::default();
        let registry = configure_rtcp_reports(configure_nack(Registry::new(), &mut engine))
            .with(FEEDBACK, Feedback::new(remote_loss.clone()));
        // Half of the silence makes a connection doubtful, the other half failed.
        let half = options.timeouts.liveness / 2;
        let settings = SettingEngineBuilder::new()
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_ice_timeouts(Some(half), Some(half), Some(half / 4));
        let settings = match options.ways {
            Ways::Any => settings,
            // Nothing better can come that would be worth the usual two seconds.
            Ways::Relayed => settings.with_relay_acceptance_min_wait(Some(Duration::ZERO)),
        };
        let servers = ice_servers.into_iter().map(|IceServer { urls, username, credential }| RTCIceServer {
            urls,
            username,
            credential,
        });
        let policy = match options.ways {
            Ways::Any => RTCIceTransportPolicy::All,
            Ways::Relayed => RTCIceTransportPolicy::Relay,
        };
        let configuration = RTCConfigurationBuilder::new().with_ice_servers(servers.collect());
        let runtime = Arc::new(Prompt::new());
        let building = PeerConnectionBuilder::new()
            .with_configuration(configuration.with_ice_transport_policy(policy).build())
            .with_media_engine(engine)
            .with_setting_engine(settings.build())
            .with_interceptor_registry(registry)
            .with_runtime(Arc::clone(&runtime) as Arc<dyn Runtime>)
            .with_handler(Arc::new(observer))
            .with_udp_addrs(interfaces);
        // Boxed: its future holds the whole connection, 20 kB.
        let connection: Arc<dyn PeerConnection> = Arc::new(Box::pin(building.build()).await?);
        // From here on an early return must close the connection: its driver keeps it alive otherwise.
        let guard = Guard { connection: Some(connection), tasks: tasks.clone() };
        let mut audio = None;
        let mut video = None;
        if options.media != Media::None {
            audio = Some(Outbound::add(guard.get(), RtpCodecKind::Audio).await?);
        }
        if options.media == Media::AudioVideo {
            video = Some(Outbound::add(guard.get(), RtpCodecKind::Video).await?);
        }
        let channel = guard.get().create_data_channel(&options.data_channel, None).await?;
        tasks.spawn(pump_channel(Arc::clone(&channel), event_tx));
        let peer = Self {
            connection: guard.disarm(),
            channel,
            audio,
            video,
            events,
            status,
            tasks: tasks.clone(),
            closed,
            runtime,
            negotiated: Negotiated::default(),
            remote_loss,
        };
        Ok((peer, candidates))
    }

    pub(crate) fn connection(&self) -> &Arc<dyn PeerConnection> {
        self.connection.as_ref().expect("invariant: only close and drop take the connection")
    }

    /// Cancelled when the connection is closed.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Remembers what the answer chose.
    pub(crate) fn negotiate(&mut self, answer: &Description) {
        self.negotiated =
            Negotiated { audio: answer.line(Kind::Audio).cloned(), video: answer.line(Kind::Video).cloned() };
    }

    /// Applies the answer: the handshakes begin.
    pub(crate) async fn accept(&self, answer: RTCSessionDescription) -> Result<(), ClientError> {
        self.runtime.hurry(Instant::now());
        Ok(self.connection().set_remote_description(answer).await?)
    }

    /// The codec to send audio with and its payload type: the server's first choice that we have.
    pub(crate) fn audio_codec(&self) -> Option<(Codec, u8)> {
        let line = self.negotiated.audio.as_ref()?;
        line.formats.iter().find_map(|format| Some((codecs::named(&format.name)?, format.payload_type)))
    }

    /// The codec of a received audio payload type.
    pub(crate) fn audio_codec_of(&self, payload_type: u8) -> Option<Codec> {
        codecs::named(self.negotiated.audio.as_ref()?.name_of(payload_type)?)
    }

    /// The payload type to send video with, and its codec's name in upper case.
    pub(crate) fn video_codec(&self) -> Option<(&str, u8)> {
        let line = self.negotiated.video.as_ref()?;
        let format = line.formats.iter().find(|format| matches!(format.name.as_str(), "VP8" | "H264"))?;
        Some((&format.name, format.payload_type))
    }

    /// Sends one RTP packet. `false`: there is no such track, or the connection is gone.
    pub(crate) async fn send_rtp(&self, kind: TrackKind, packet: OutboundPacket) -> bool {
        let (track, payload_type) = match kind {
            TrackKind::Audio => (&self.audio, self.audio_codec().map(|(_, payload_type)| payload_type)),
            TrackKind::Video => (&self.video, self.video_codec().map(|(_, payload_type)| payload_type)),
        };
        let (Some(track), Some(payload_type)) = (track, payload_type) else { return false };
        track.send(payload_type, packet).await.is_ok()
    }

    /// Sends one text message.
    pub(crate) async fn send_text(&self, text: &str) -> Result<(), ClientError> {
        Ok(self.channel.send_text(text).await?)
    }

    pub(crate) async fn report(&self, now: Instant) -> Report {
        Report::read(&self.connection().get_stats(now, StatsSelector::None).await, self.remote_loss.last())
    }

    /// Closes the connection and tells the peer.
    pub(crate) async fn close(mut self) {
        self.closed.cancel();
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "closing the peer connection");
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.closed.cancel();
        close_behind(self.connection.take(), &self.tasks);
    }
}

/// Closes a connection that was never finished.
struct Guard {
    connection: Option<Arc<dyn PeerConnection>>,
    tasks: TaskTracker,
}

impl Guard {
    fn get(&self) -> &Arc<dyn PeerConnection> {
        self.connection.as_ref().expect("invariant: only disarm and drop take the connection")
    }

    fn disarm(mut self) -> Option<Arc<dyn PeerConnection>> {
        self.connection.take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        close_behind(self.connection.take(), &self.tasks);
    }
}

/// A connection that is only dropped goes on for ever, because its driver holds it: close it in a task of its own.
fn close_behind(connection: Option<Arc<dyn PeerConnection>>, tasks: &TaskTracker) {
    if let Some(connection) = connection
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        let close = async move {
            // Nobody is left to hear of an error.
            let _ = connection.close().await;
        };
        tasks.spawn_on(close, &runtime);
    }
}

/// One packet to send; the track adds SSRC, sequence number and payload type.
#[derive(Clone, Debug)]
pub(crate) struct OutboundPacket {
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: Bytes,
}

impl Outbound {
    async fn add(connection: &Arc<dyn PeerConnection>, kind: RtpCodecKind) -> Result<Self, ClientError> {
        let ssrc: u32 = rand::random();
        let (label, codec, clock_start) = match kind {
            RtpCodecKind::Video => ("video", codecs::vp8(), 0),
            _ => ("audio", codecs::opus(), rand::random()),
        };
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec,
            ..Default::default()
        };
        let track = MediaStreamTrack::new("streamfleet".into(), label.into(), label.into(), kind, vec![encoding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        connection.add_track(Arc::clone(&track) as Arc<dyn TrackLocal>).await?;
        Ok(Self { track, ssrc, clock_start, sequence: AtomicU16::new(rand::random()) })
    }

    async fn send(&self, payload_type: u8, packet: OutboundPacket) -> Result<(), ClientError> {
        let header = rtp::Header {
            version: 2,
            marker: packet.marker,
            payload_type,
            sequence_number: self.sequence.fetch_add(1, Ordering::Relaxed),
            timestamp: packet.timestamp.wrapping_add(self.clock_start),
            ssrc: self.ssrc,
            ..Default::default()
        };
        Ok(self.track.write_rtp(rtp::Packet { header, payload: packet.payload }).await?)
    }
}

/// Receives the callbacks. They run on the connection's driver, so none of them waits.
struct Observer {
    events: mpsc::Sender<PeerEvent>,
    candidates: mpsc::Sender<String>,
    status: watch::Sender<Status>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Observer {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(init) if !init.candidate.is_empty() => {
                if self.candidates.try_send(init.candidate).is_err() {
                    tracing::debug!("a local candidate is left away: nobody takes it");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a local candidate cannot be written"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.status.send_modify(|status| status.gathered = true);
        }
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        tracing::debug!(%state, "ICE");
        self.status.send_modify(|status| {
            status.ice = state;
            if matches!(state, RTCIceConnectionState::Connected | RTCIceConnectionState::Completed) {
                status.ice_at.get_or_insert_with(Instant::now);
            }
        });
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        tracing::debug!(%state, "peer connection");
        self.status.send_modify(|status| {
            status.peer = state;
            if state == RTCPeerConnectionState::Connected {
                status.connected_at.get_or_insert_with(Instant::now);
            }
        });
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let kind = match track.kind().await {
            RtpCodecKind::Audio => TrackKind::Audio,
            RtpCodecKind::Video => TrackKind::Video,
            _ => return,
        };
        self.tasks.spawn(pump_track(kind, track, self.events.clone(), self.closed.clone()));
    }
}

async fn pump_track(
    kind: TrackKind,
    track: Arc<dyn TrackRemote>,
    events: mpsc::Sender<PeerEvent>,
    closed: CancellationToken,
) {
    let pump = async {
        while let Some(event) = track.poll().await {
            let packet = match event {
                TrackRemoteEvent::OnRtpPacket(packet) => packet,
                TrackRemoteEvent::OnEnded => break,
                _ => continue,
            };
            if events.send(PeerEvent::Rtp(kind, packet)).await.is_err() {
                break;
            }
        }
    };
    // The end of a connection is not always told to its tracks.
    let _ = closed.run_until_cancelled(pump).await;
}

async fn pump_channel(channel: Arc<dyn DataChannel>, events: mpsc::Sender<PeerEvent>) {
    while let Some(event) = channel.poll().await {
        let event = match event {
            DataChannelEvent::OnOpen => PeerEvent::ChannelOpen,
            DataChannelEvent::OnMessage(message) if message.data.len() <= MAX_TEXT => {
                PeerEvent::Text(String::from_utf8_lossy(&message.data).into_owned())
            }
            DataChannelEvent::OnClose => PeerEvent::ChannelClosed,
            _ => continue,
        };
        if events.send(event).await.is_err() {
            break;
        }
    }
}
