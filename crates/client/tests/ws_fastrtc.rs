//! Calls to FastRTC itself, version 0.0.34:
//! `STREAMFLEET_FASTRTC_PYTHON=venv/bin/python cargo test -p streamfleet-client --test ws_fastrtc -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_audio::tone::Tone;
use streamfleet_client::{
    Call, Client, ClientError, EndReason, Incoming, PcmFormat, PhoneOptions, ServiceUrl, SocketOptions,
};
use tokio::time::timeout;

const MONO: PcmFormat = PcmFormat { rate: 48_000, channels: 1 };
const PATIENCE: Duration = Duration::from_secs(30);

/// FastRTC in a process of its own.
struct FastRtc {
    process: Child,
    address: SocketAddr,
}

impl FastRtc {
    fn start() -> Self {
        let python = std::env::var("STREAMFLEET_FASTRTC_PYTHON").expect("the path of a Python that has FastRTC");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ws_fastrtc/server.py");
        let process = Command::new(python).arg(script).arg(address.port().to_string()).spawn().unwrap();
        let (server, start) = (Self { process, address }, Instant::now());
        // Its imports take ten seconds.
        while TcpStream::connect(address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(120), "FastRTC does not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn url(&self, path: &str) -> ServiceUrl {
        format!("http://{}/{path}", self.address).parse().unwrap()
    }

    async fn call(&self, path: &str) -> Result<Call, ClientError> {
        timeout(PATIENCE, Client::connect_socket(SocketOptions::new(self.url(path)))).await.unwrap()
    }
}

impl Drop for FastRtc {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Speaks two seconds of tone and returns what is audible of the answer.
async fn converse(call: &Call, hz: f32) -> Vec<i16> {
    let mut speech = vec![0; 96_000];
    Tone::new(48_000, hz, -15.0).fill(&mut speech);
    let mut heard = Vec::new();
    let speak = async {
        call.send_audio(&speech, MONO).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            heard.extend(chunk.samples);
        }
    };
    tokio::select! { () = speak => {}, () = listen => panic!("the call ended") }
    let rate = call.playout().rate as usize;
    heard.chunks_exact(rate / 100).filter(|piece| level_dbfs(piece) > -40.0).flatten().copied().collect()
}

#[track_caller]
fn assert_tone(heard: &[i16], rate: u32, hz: f32, dbfs: f32, seconds: f32) {
    assert!(heard.len() as f32 >= seconds * rate as f32, "{} s", heard.len() as f32 / rate as f32);
    // A short piece: FastRTC sends slower than real time, and what is between two frames does not belong to the tone.
    let level = tone_level(&heard[heard.len() / 2..][..rate as usize / 10], rate, hz);
    assert!((level - dbfs).abs() < 1.5, "{level} dBFS");
}

#[tokio::test]
#[ignore = "needs FastRTC 0.0.34: STREAMFLEET_FASTRTC_PYTHON"]
async fn fastrtc_understands_this_client() {
    let server = FastRtc::start();

    let call = server.call("echo").await.unwrap();
    let heard = converse(&call, 440.0).await;
    assert_tone(&heard, 24_000, 440.0, -15.0, 1.5);
    assert!(call.stats().await.unwrap().round_trip.is_some(), "it answers pings");
    assert_eq!(call.end().await.reason, EndReason::HungUp);

    let mut options = PhoneOptions::new(server.url("echo"));
    options.incoming = Incoming::Skip;
    let call = timeout(PATIENCE, Client::connect_phone(options)).await.unwrap().unwrap();
    let heard = converse(&call, 700.0).await;
    assert_tone(&heard, 8_000, 700.0, -15.0, 1.5);
    call.end().await;

    // It ends a stream by closing the socket, and says why on no transport but WebRTC; it waits for the next frame first.
    let call = server.call("tone").await.unwrap();
    let mut heard = Vec::new();
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            heard.extend(chunk.samples);
        }
    };
    let speak = async { while call.send_audio(&[0; 960], MONO).await.is_ok() {} };
    timeout(PATIENCE, async { tokio::join!(listen, speak) }).await.unwrap();
    assert_eq!(heard.len(), 12_000, "every sample before the end is heard");
    assert_tone(&heard, 24_000, 600.0, -17.8, 0.5);
    assert_eq!(call.end().await.reason, EndReason::ClosedByServer);

    let first = server.call("full").await.unwrap();
    match server.call("full").await {
        Err(ClientError::Refused(refusal)) => {
            assert_eq!((refusal.error.as_str(), refusal.limit), ("concurrency_limit_reached", Some(1)));
        }
        other => panic!("{other:?}"),
    }
    first.end().await;
}
