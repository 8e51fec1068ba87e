//! A call that records all that it hears and is told.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use streamfleet_client::{
    Call, Client, ClientError, ClientOptions, DelayBounds, EndReason, Event, Incoming, Message, PcmFormat,
    PhoneOptions, Reconnect, Refusal, Resume, SessionId, SocketOptions, Summary, random_id,
};
use streamfleet_tests::Server;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::sound::{Sound, tone};
use crate::twiml::{PutThrough, taking_up};
use crate::{PATIENCE, blocking};

const MONO: PcmFormat = PcmFormat { rate: 48_000, channels: 1 };

/// The delay of [`Hears::Exactly`].
const STEADY: Duration = Duration::from_millis(300);

/// The transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    WebRtc,
    WebSocket,
    Telephone,
}

impl Via {
    pub(crate) const ALL: [Self; 3] = [Self::WebRtc, Self::WebSocket, Self::Telephone];

    /// As a handler's context has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebRtc => "webrtc",
            Self::WebSocket => "websocket",
            Self::Telephone => "telephone",
        }
    }

    /// What may have been heard of a stretch of sound of so many seconds, if all of it was. Sockets carry samples as they are
    /// and telephones resample them. A WebRTC client fills the gaps that a busy machine makes and goes on for a moment where
    /// packets stop: there it is the count of packets that shows a loss.
    pub(crate) fn all_of(self, seconds: f64) -> RangeInclusive<f64> {
        match self {
            Self::WebRtc => seconds * 0.9..=seconds + 1.0,
            Self::WebSocket => seconds - 0.002..=seconds + 0.002,
            Self::Telephone => seconds - 0.004..=seconds + 0.004,
        }
    }
}

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) service: String,
    pub(crate) id: SessionId,
    pub(crate) metadata: Vec<(&'static str, String)>,
    pub(crate) resume: Option<Resume>,
    pub(crate) hears: Hears,
    /// For a telephone, where it matters what its TwiML says; else the client asks for it by itself.
    pub(crate) call: Option<PutThrough>,
}

/// What a WebRTC client's jitter buffer is for. Sockets have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hears {
    /// As soon as it can be heard: the delay follows the network, and time is stretched and shortened for it.
    Soon,
    /// As it was said: a delay that no busy machine's jitter exceeds.
    Exactly,
}

impl Plan {
    /// A call with an id of its own and nothing to say about itself.
    pub(crate) fn of(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            id: random_id(),
            metadata: Vec::new(),
            resume: None,
            hears: Hears::Exactly,
            call: None,
        }
    }
}

/// What a call was told, and when.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) sound: Sound,
    pub(crate) events: Vec<(Instant, Event)>,
}

impl Told {
    /// When the call ended, and how.
    pub(crate) fn end(&self) -> Option<(Instant, EndReason)> {
        self.events.iter().find_map(|(at, event)| match event {
            Event::Ended(reason) => Some((*at, reason.clone())),
            _ => None,
        })
    }

    /// What the server said.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (Instant, &Message)> {
        self.events.iter().filter_map(|(at, event)| match event {
            Event::Message(message) => Some((*at, message)),
            _ => None,
        })
    }

    /// What it said of the turns of the conversation, in order.
    pub(crate) fn turns(&self) -> Vec<&str> {
        fn word(message: &Message) -> Option<&str> {
            match message {
                Message::Log(log) if !log.starts_with("Server received") => Some(log.as_str()),
                Message::SendInput => Some("send_input"),
                _ => None,
            }
        }
        self.messages().filter_map(|(_, message)| word(message)).collect()
    }
}

/// A call under way. Dropping it hangs up.
pub(crate) struct Caller {
    call: Arc<Call>,
    id: SessionId,
    told: Arc<Mutex<Told>>,
    changed: watch::Receiver<u64>,
    readers: JoinSet<()>,
}

impl Caller {
    /// Calls, and records from the first moment on.
    pub(crate) async fn dial(server: &Server, via: Via, plan: Plan) -> Result<Self, ClientError> {
        let url = format!("{}/{}", server.url(), plan.service).parse().expect("invariant: a server has a URL");
        let id = plan.id.clone();
        let metadata = plan.metadata.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
        let call = match via {
            Via::WebRtc => {
                let mut options = ClientOptions::new(url);
                options.timeouts.admission = Duration::ZERO;
                if plan.hears == Hears::Exactly {
                    options.delay = DelayBounds { min: STEADY, max: STEADY };
                }
                let options = ClientOptions {
                    webrtc_id: plan.id,
                    metadata,
                    resume: plan.resume,
                    reconnect: Reconnect::Never,
                    ..options
                };
                Client::connect(options).await?
            }
            Via::WebSocket => {
                let mut options = SocketOptions::new(url);
                options.timeouts.admission = Duration::ZERO;
                let options = SocketOptions {
                    websocket_id: plan.id,
                    metadata,
                    resume: plan.resume,
                    reconnect: Reconnect::Never,
                    ..options
                };
                Client::connect_socket(options).await?
            }
            Via::Telephone => {
                let mut options = PhoneOptions::new(url);
                options.parameters = plan.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                if let Some(call) = plan.call {
                    (options.call_sid, options.incoming) = (call.sid, Incoming::Skip);
                    options.parameters.extend(call.parameters);
                }
                match plan.resume {
                    None => options.stream_sid = plan.id,
                    // A stream's id is never an earlier one's.
                    Some(token) => options.parameters.extend(taking_up(&plan.id, &token)),
                }
                Client::connect_phone(options).await?
            }
        };
        let caller = Self::record(call, id);
        if via == Via::Telephone {
            caller.until_known(server, &plan.service).await;
        }
        Ok(caller)
    }

    /// Nothing tells a telephone company that its stream was taken: waits until control knows the session, or the call is over.
    async fn until_known(&self, server: &Server, service: &str) {
        let path = format!("/{service}/sessions/{}", self.id);
        let known = || blocking(|| server.control("GET", &path)).is_ok_and(|answer| answer.status == 200);
        let patience = tokio::time::timeout(PATIENCE, async {
            while self.look(|told| told.end().is_none()) && !known() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        // Whoever looks at the call next says what is wrong with it.
        let _ = patience.await;
    }

    fn record(call: Call, id: SessionId) -> Self {
        let call = Arc::new(call);
        let told = Arc::new(Mutex::new(Told { sound: Sound::new(call.playout().rate), events: Vec::new() }));
        let (changes, changed) = watch::channel(0);
        let changes = Arc::new(changes);
        let mut readers = JoinSet::new();
        readers.spawn({
            let (call, told, changes) = (call.clone(), told.clone(), changes.clone());
            async move {
                while let Some(chunk) = call.next_audio().await {
                    lock(&told).sound.push(&chunk.samples, chunk.format, chunk.at);
                    changes.send_modify(|count| *count += 1);
                }
            }
        });
        readers.spawn({
            let (call, told) = (call.clone(), told.clone());
            async move {
                while let Some(event) = call.next_event().await {
                    lock(&told).events.push((Instant::now(), event));
                    changes.send_modify(|count| *count += 1);
                }
            }
        });
        Self { call, id, told, changed, readers }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    /// A look at what was told so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&lock(&self.told))
    }

    /// Waits until `look` finds something.
    pub(crate) async fn until<T>(&self, what: &str, limit: Duration, look: impl Fn(&Told) -> Option<T>) -> Result<T> {
        let mut changed = self.changed.clone();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = self.look(&look) {
                    return Ok(found);
                }
                if changed.changed().await.is_err() {
                    // Nothing more will come.
                    return self.look(&look).context("the call is over");
                }
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(found) => found.with_context(|| format!("{what}: {}", self.report())),
            Err(_) => bail!("{what}: not within {limit:?}: {}", self.report()),
        }
    }

    fn report(&self) -> String {
        self.look(|told| format!("{:.2} s heard; {:?}", told.sound.loud_seconds(), told.events))
    }

    /// The end of the call, whoever makes it.
    pub(crate) async fn ended(&self, limit: Duration) -> Result<(Instant, EndReason)> {
        self.until("the end", limit, Told::end).await
    }

    /// Says a tone in real time, 0 Hz for silence. After the end it says nothing.
    pub(crate) async fn say(&self, hz: f64, seconds: f64) -> Result<()> {
        match self.call.send_audio(&tone(hz, seconds), MONO).await {
            Ok(()) | Err(ClientError::Over) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says nothing until the call is over.
    pub(crate) async fn listen_to_the_end(&self, limit: Duration) -> Result<(Instant, EndReason)> {
        tokio::select! {
            said = async { loop { if let Err(error) = self.say(0.0, 0.2).await { return error } tokio::task::yield_now().await; } } => Err(said),
            end = self.ended(limit) => end,
        }
    }

    /// Hangs up and waits until everything is closed.
    pub(crate) async fn hang_up(self) -> Option<Summary> {
        let Self { call, mut readers, .. } = self;
        readers.shutdown().await;
        Some(Arc::into_inner(call)?.end().await)
    }
}

/// The refusal that a call was met with.
pub(crate) fn refusal(dialled: Result<Caller, ClientError>) -> Result<Refusal> {
    match dialled {
        Ok(_) => bail!("the call was taken"),
        Err(ClientError::Refused(refusal)) => Ok(refusal),
        Err(error) => Err(error.into()),
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
