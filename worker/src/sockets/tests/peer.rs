//! A client that speaks the protocols word by word.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use streamfleet_audio::g711;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{PATIENCE, World};

pub(super) struct Peer {
    socket: WebSocketStream<TcpStream>,
}

/// What came.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Text(Value),
    Closed { code: u16, reason: String },
    Gone,
}

impl Peer {
    /// Opens a socket, or gives the status that it was refused with.
    pub(super) async fn try_open(world: &World, path: &str) -> Result<Self, u16> {
        Self::over(TcpStream::connect(world.address).await.unwrap(), world, path).await
    }

    /// Opens a socket that takes very little before it is read.
    pub(super) async fn narrow(world: &World, path: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        Self::over(socket.connect(world.address).await.unwrap(), world, path).await.unwrap()
    }

    async fn over(stream: TcpStream, world: &World, path: &str) -> Result<Self, u16> {
        let url = format!("ws://{}{path}", world.address);
        match timeout(PATIENCE, tokio_tungstenite::client_async(url, stream)).await.unwrap() {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a socket with these headers beside those of a handshake.
    pub(super) async fn with(world: &World, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{}{path}", world.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(world.address).await.unwrap();
        let (socket, _) = timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await.unwrap().unwrap();
        Self { socket }
    }

    pub(super) async fn open(world: &World, path: &str) -> Self {
        Self::try_open(world, path).await.unwrap()
    }

    /// Opens a socket of FastRTC's kind and says `start`.
    pub(super) async fn start(world: &World, service: &str, id: &str, resume: Value) -> Self {
        let mut peer = Self::open(world, &format!("/{service}/websocket/offer")).await;
        peer.say(json!({ "event": "start", "websocket_id": id, "resume": resume })).await;
        peer
    }

    pub(super) async fn say(&mut self, value: Value) {
        self.socket.send(Message::Text(value.to_string().into())).await.unwrap();
    }

    /// Says it over and over, and reads nothing.
    pub(super) async fn insist(&mut self, value: Value) {
        let text = value.to_string();
        while self.socket.send(Message::Text(text.clone().into())).await.is_ok() {}
    }

    /// Mu-law.
    pub(super) async fn speak(&mut self, mu_law: &[u8]) {
        self.say(json!({ "event": "media", "media": { "payload": STANDARD.encode(mu_law) } })).await;
    }

    pub(super) async fn next(&mut self) -> Heard {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("something comes");
            return match message {
                Some(Ok(Message::Text(text))) => Heard::Text(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.expect("our close frames have a code");
                    Heard::Closed { code: frame.code.into(), reason: frame.reason.to_string() }
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Heard::Gone,
            };
        }
    }

    /// The next message that is no media.
    pub(super) async fn word(&mut self) -> Heard {
        loop {
            match self.next().await {
                Heard::Text(value) if value["event"] == "media" => {}
                other => return other,
            }
        }
    }

    /// The token of the first message.
    pub(super) async fn token(&mut self) -> Value {
        match self.next().await {
            Heard::Text(value) if value["type"] == "session" => value["data"]["resume"].clone(),
            other => panic!("{other:?}"),
        }
    }

    /// At least so many samples of what is played from now on, and the stream that it came on.
    pub(super) async fn hear(&mut self, samples: usize) -> (Vec<i16>, Value) {
        let (mut heard, mut stream) = (Vec::new(), Value::Null);
        while heard.len() < samples {
            match self.next().await {
                Heard::Text(value) if value["event"] == "media" => {
                    let payload = STANDARD.decode(value["media"]["payload"].as_str().unwrap()).unwrap();
                    heard.extend(payload.iter().map(|byte| g711::MU_LAW[usize::from(*byte)]));
                    stream = value["streamSid"].clone();
                }
                Heard::Text(_) => {}
                other => panic!("{other:?} after {} samples", heard.len()),
            }
        }
        (heard, stream)
    }

    /// The socket breaks: no close frame, no goodbye.
    pub(super) fn vanish(self) {
        let stream = self.socket.into_inner();
        // A reset, as a network makes one that has given up.
        let _ = stream.set_zero_linger();
        drop(stream);
    }
}

pub(super) fn refused(error: &str) -> Heard {
    Heard::Text(json!({ "status": "failed", "meta": { "error": error } }))
}

pub(super) fn closed(code: u16, reason: &str) -> Heard {
    Heard::Closed { code, reason: reason.to_owned() }
}
