//! A client of servers that speak FastRTC's protocol, on any of its transports.
//!
//! [`Client::connect`] makes a call by WebRTC, [`Client::connect_socket`] over a WebSocket, and [`Client::connect_phone`] as a
//! telephone company connects one. All give a [`Call`].
//!
//! By WebRTC: it gathers candidates, posts the offer to `{url}/webrtc/offer`,
//! connects, opens the data channel, and returns a [`Call`]. Audio goes in and out as PCM: the call encodes, paces
//! 20 ms packets in real time, and plays out what it receives through an adaptive jitter buffer. A call outlives its
//! connection: it follows the server's `reconnect` with the resume token, and joins again when the server vanishes (telephone
//! calls do not, their company calls back).
//!
//! ```no_run
//! use std::time::Duration;
//! use streamfleet_client::{Client, ClientOptions, Event, PcmFormat};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let call = Client::connect(ClientOptions::new("http://127.0.0.1:8080/echo".parse()?)).await?;
//!
//! let format = PcmFormat { rate: 24_000, channels: 1 };
//! let silence = vec![0i16; 24_000];
//! let send = call.send_audio(&silence, format);
//! let hear = async {
//!     while let Some(chunk) = call.next_audio().await {
//!         println!("{} samples to be heard at {:?}", chunk.samples.len(), chunk.at);
//!     }
//! };
//! let watch = async {
//!     while let Some(event) = call.next_event().await {
//!         if let Event::Message(message) = event {
//!             println!("{message:?}");
//!         }
//!     }
//! };
//! let talk = async {
//!     send.await?;
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, streamfleet_client::ClientError>(())
//! };
//! tokio::select! { sent = talk => sent?, () = hear => {}, () = watch => {} }
//!
//! let summary = call.end().await;
//! println!("{:?}: {} packets back, {:.1} % lost", summary.reason, summary.stats.audio.received, summary.stats.loss() * 100.0);
//! # Ok(())
//! # }
//! ```
//!
//! A complete program is in `examples/call.rs`.
//!
//! # What is where
//! Pure: the life of a call over several connections, the back-off, the audio line, session descriptions, messages.
//! Shells: HTTP, one peer connection or socket, the task that drives them. The WebRTC stack is the `webrtc` crate.

mod call;
mod codecs;
mod driver;
mod error;
mod feedback;
mod ice;
mod join;
mod life;
mod local;
mod mailbox;
mod media;
mod message;
mod options;
mod peer;
mod phone;
mod retry;
mod runtime;
mod sdp;
mod sequence;
mod signal;
mod socket;
mod stats;

pub use call::{Call, Client, Event, Summary, Transport, VideoPacket};
pub use error::{ClientError, Refusal};
pub use life::EndReason;
pub use media::AudioChunk;
pub use message::Message;
pub use options::{
    ClientOptions, Gathering, IceServer, IceServers, InvalidUrl, Media, Reconnect, Resume, ServiceUrl, Timeouts, Tls,
    Ways, random_id,
};
pub use phone::options::{AuthToken, Digit, Incoming, PhoneOptions};
pub use phone::webhook::InvalidTwiml;
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub use sdp::InvalidSdp;
pub use socket::bare::{BareEvent, BareSocket};
pub use socket::options::{Direction, Framing, InvalidRate, Reattach, SampleRate, SocketCodec, SocketOptions};
pub use socket::words::media_text;
pub use stats::{CallStats, SetupTimes, TrackCounters};
pub use streamfleet_audio::{DelayBounds, PcmFormat, ReceiverStats};
pub use streamfleet_session::{SessionId, UserId};
