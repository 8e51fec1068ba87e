//! An echo server of FastRTC's protocol for the client's tests: real ICE, DTLS, SRTP and SCTP over loopback sockets.
//!
//! It runs in a runtime and thread of its own, so that a test can also kill it without a goodbye.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind};
use serde_json::{Value, json};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::media_stream::track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    configure_rtcp_reports,
};

/// What the server saw and did.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) offers: Vec<Value>,
    pub(crate) candidates: Vec<Value>,
    pub(crate) tokens: u32,
    pub(crate) connected: u32,
    /// When a peer's close was noticed.
    pub(crate) closed: Vec<Instant>,
}

/// What it shall do.
#[derive(Default)]
pub(crate) struct Script {
    /// These failures are answered first, in this order.
    pub(crate) refuse: Vec<(StatusCode, Value)>,
    /// The first offers wait so long for what becomes of them.
    pub(crate) late: Vec<Duration>,
    /// Answer with PCMU only.
    pub(crate) pcmu: bool,
}

struct Inner {
    seen: Mutex<Seen>,
    script: Mutex<Script>,
    sessions: Mutex<HashMap<String, Session>>,
}

#[derive(Clone)]
struct Session {
    connection: Arc<dyn PeerConnection>,
    channel: Arc<Mutex<Option<Arc<dyn DataChannel>>>>,
}

/// A running server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    pub(crate) fn start(script: Script) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script)
    }

    pub(crate) fn start_at(address: SocketAddr, script: Script) -> Self {
        let inner = Arc::new(Inner { seen: Mutex::default(), script: Mutex::new(script), sessions: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let app = Router::new().route("/echo/webrtc/offer", post(offer)).with_state(Arc::clone(&inner));
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, app).await
        });
        Self { address, inner, runtime: Some(runtime) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/echo", self.address)
    }

    pub(crate) fn seen<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        read(&self.inner.seen.lock())
    }

    /// Says something to every client.
    pub(crate) async fn say(&self, message: Value) {
        let sessions: Vec<Session> = self.inner.sessions.lock().values().cloned().collect();
        self.run(async move {
            for session in sessions {
                let channel = session.channel.lock().clone().expect("the channel is open");
                channel.send_text(&message.to_string()).await.unwrap();
            }
        })
        .await;
    }

    /// Closes every session.
    pub(crate) async fn close_all(&self) {
        let sessions: Vec<Session> = self.inner.sessions.lock().drain().map(|(_, session)| session).collect();
        self.run(async move {
            for session in sessions {
                session.connection.close().await.unwrap();
            }
        })
        .await;
    }

    async fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.as_ref().unwrap().spawn(task).await.unwrap();
    }

    /// Ends at once, with all its sockets, and says nothing to anybody.
    pub(crate) fn kill(mut self) -> SocketAddr {
        let runtime = self.runtime.take().unwrap();
        // A thread of its own, because a test's runtime does not allow to wait for another one.
        std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_millis(200))).join().unwrap();
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn offer(State(inner): State<Arc<Inner>>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let id = body["webrtc_id"].as_str().unwrap().to_owned();
    if body["type"] == "ice-candidate" {
        inner.seen.lock().candidates.push(body["candidate"].clone());
        let session = inner.sessions.lock().get(&id).cloned();
        let text = body["candidate"]["candidate"].as_str().unwrap().to_owned();
        if let Some(session) = session
            && !text.is_empty()
        {
            let init = RTCIceCandidateInit { candidate: text, ..Default::default() };
            session.connection.add_ice_candidate(init).await.unwrap();
        }
        return (StatusCode::OK, Json(json!({"status": "success"})));
    }
    inner.seen.lock().offers.push(body.clone());
    let late = {
        let mut script = inner.script.lock();
        (!script.late.is_empty()).then(|| script.late.remove(0))
    };
    if let Some(late) = late {
        tokio::time::sleep(late).await;
    }
    let refusal = {
        let mut script = inner.script.lock();
        (!script.refuse.is_empty()).then(|| script.refuse.remove(0))
    };
    if let Some((status, refusal)) = refusal {
        return (status, Json(refusal));
    }
    let sdp = answer(&inner, &id, body["sdp"].as_str().unwrap().to_owned()).await;
    let token = {
        let mut seen = inner.seen.lock();
        seen.tokens += 1;
        format!("token-{}", seen.tokens)
    };
    (StatusCode::OK, Json(json!({"sdp": sdp, "type": "answer", "resume": token})))
}

async fn answer(inner: &Arc<Inner>, id: &str, offer: String) -> String {
    let pcmu = inner.script.lock().pcmu;
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().unwrap();
    // As if the client had offered nothing else.
    let offer = if pcmu { offer.replace("RTP/SAVPF 111 0 8", "RTP/SAVPF 0") } else { offer };
    let settings = SettingEngineBuilder::new()
        .with_answering_dtls_role(RTCDtlsRole::Server)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .build();
    let mut tracks = HashMap::new();
    for (kind, name, line) in [(RtpCodecKind::Audio, "audio", "m=audio"), (RtpCodecKind::Video, "video", "m=video")] {
        if offer.contains(line) {
            tracks.insert(name, echo_track(kind, name, pcmu));
        }
    }
    let channel = Arc::new(Mutex::new(None));
    let (gathered_tx, mut gathered) = tokio::sync::watch::channel(false);
    let handler = Handler {
        inner: Arc::clone(inner),
        tracks: tracks.clone(),
        channel: Arc::clone(&channel),
        gathered: gathered_tx,
    };
    let connection: Arc<dyn PeerConnection> = Arc::new(
        Box::pin(
            PeerConnectionBuilder::new()
                .with_configuration(RTCConfigurationBuilder::new().build())
                .with_media_engine(engine)
                .with_setting_engine(settings)
                .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
                .with_handler(Arc::new(handler))
                .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
                .build(),
        )
        .await
        .unwrap(),
    );
    for name in ["audio", "video"] {
        if let Some((track, _)) = tracks.get(name) {
            connection.add_track(Arc::clone(track) as Arc<dyn TrackLocal>).await.unwrap();
        }
    }
    connection.set_remote_description(RTCSessionDescription::offer(offer).unwrap()).await.unwrap();
    let answer = connection.create_answer(None).await.unwrap();
    connection.set_local_description(answer).await.unwrap();
    gathered.wait_for(|done| *done).await.unwrap();
    let sdp = connection.local_description().await.unwrap().sdp;
    inner.sessions.lock().insert(id.to_owned(), Session { connection, channel });
    sdp
}

type EchoTrack = (Arc<TrackLocalStaticRTP>, u32);

fn echo_track(kind: RtpCodecKind, name: &str, pcmu: bool) -> EchoTrack {
    let ssrc: u32 = rand::random();
    let (mime, clock_rate, channels) = match kind {
        RtpCodecKind::Video => ("video/VP8", 90_000, 0),
        _ if pcmu => ("audio/PCMU", 8_000, 0),
        _ => ("audio/opus", 48_000, 2),
    };
    let codec = rtc::rtp_transceiver::rtp_sender::RTCRtpCodec {
        mime_type: mime.into(),
        clock_rate,
        channels,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: Vec::new(),
    };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
        codec,
        ..Default::default()
    };
    let track = MediaStreamTrack::new("echo".into(), name.into(), name.into(), kind, vec![encoding]);
    (Arc::new(TrackLocalStaticRTP::new(track)), ssrc)
}

struct Handler {
    inner: Arc<Inner>,
    tracks: HashMap<&'static str, EchoTrack>,
    channel: Arc<Mutex<Option<Arc<dyn DataChannel>>>>,
    gathered: tokio::sync::watch::Sender<bool>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Connected {
            self.inner.seen.lock().connected += 1;
        }
    }

    async fn on_data_channel(&self, channel: Arc<dyn DataChannel>) {
        *self.channel.lock() = Some(Arc::clone(&channel));
        let inner = Arc::clone(&self.inner);
        let pump = async move {
            while let Some(event) = channel.poll().await {
                match event {
                    DataChannelEvent::OnMessage(message) => {
                        let text = String::from_utf8(message.data.to_vec()).unwrap();
                        let log = json!({"type": "log", "data": format!("Server received: {text}")});
                        channel.send_text(&log.to_string()).await.unwrap();
                    }
                    DataChannelEvent::OnClose => inner.seen.lock().closed.push(Instant::now()),
                    _ => {}
                }
            }
        };
        tokio::runtime::Handle::current().spawn(pump);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let name = if track.kind().await == RtpCodecKind::Video { "video" } else { "audio" };
        let (out, ssrc) = self.tracks[name].clone();
        let pump = async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(mut packet) = event {
                    packet.header.ssrc = ssrc;
                    packet.header.extension = false;
                    packet.header.extensions.clear();
                    if out.write_rtp(packet).await.is_err() {
                        break;
                    }
                }
            }
        };
        tokio::runtime::Handle::current().spawn(pump);
    }
}
