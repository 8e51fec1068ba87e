//! Handlers that do what a test needs of them.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use streamfleet_handler::testing::sine;
use streamfleet_handler::{
    Description, Emit, Handler, HandlerError, Input, Media, PcmFormat, Registered, Registry, Session,
};

/// What [`Bye`] says.
pub(super) const BYE: Duration = Duration::from_secs(1);
/// Samples of a second of what the handlers hear.
pub(super) const HEARD: u32 = 16_000;
const OUT: PcmFormat = PcmFormat { rate: 24_000, channels: 1 };

/// Those that ship, and those below.
pub(super) fn registry() -> Registry {
    let mut registry = streamfleet_pause::builtin::registry();
    let mut add = |name: &str, make: fn() -> Box<dyn Handler>| {
        registry.register(name, Description::audio(name, ""), move |_| Ok(Registered::Handler(make())));
    };
    add("blocked", || Box::new(Blocked));
    add("busy", || Box::<Busy>::default());
    add("bye", || Box::new(Bye::new()));
    add("keys", || Box::<Keys>::default());
    add("talker", || Box::new(Talker::new()));
    add("leaver", || Box::new(Leaver(Talker::new())));
    registry
}

fn speech(length: Duration) -> Vec<Emit> {
    let frames = length.div_duration_f64(Duration::from_millis(20)).round() as usize;
    sine(OUT, 660.0, -15.0).take(frames).map(Emit::Audio).collect()
}

fn frames() -> Media {
    Media::Frames { input: PcmFormat::mono(HEARD), output: OUT }
}

/// Says a second of 660 Hz at once, and ends.
struct Bye(Mutex<VecDeque<Emit>>);

impl Bye {
    fn new() -> Self {
        let end = Emit::EndStream(Some("bye".to_owned()));
        Self(Mutex::new(speech(BYE).into_iter().chain([end]).collect()))
    }
}

#[async_trait]
impl Handler for Bye {
    fn media(&self) -> Media {
        frames()
    }
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new())
    }
    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        Ok(())
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        let next = self.0.lock().pop_front();
        match next {
            Some(emit) => Ok(emit),
            None => std::future::pending().await,
        }
    }
}

/// Puts out who calls, and every key.
#[derive(Default)]
struct Keys(OnceLock<Session>);

#[async_trait]
impl Handler for Keys {
    fn media(&self) -> Media {
        frames()
    }
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::default())
    }
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        let context = session.context();
        let about = json!({
            "transport": context.transport.as_str(),
            "user": context.user_id.as_ref().map(|user| user.as_str()),
            "metadata": context.metadata,
        });
        session.output(about).map_err(HandlerError::new)?;
        let _ = self.0.set(session.clone());
        Ok(())
    }
    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        match (input, self.0.get()) {
            (Input::Dtmf(key), Some(session)) => {
                session.output(json!(key.to_string())).map_err(HandlerError::new)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        std::future::pending().await
    }
}

/// Talks without end in one breath of ten seconds after the other, puts out a number with each frame's worth, and is
/// quiet from the first key on.
struct Talker {
    session: OnceLock<Session>,
    said: Mutex<VecDeque<Emit>>,
}

impl Talker {
    fn new() -> Self {
        Self { session: OnceLock::new(), said: Mutex::new(speech(Duration::from_secs(10)).into()) }
    }
}

#[async_trait]
impl Handler for Talker {
    fn media(&self) -> Media {
        frames()
    }
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::new())
    }
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        let _ = self.session.set(session.clone());
        Ok(())
    }
    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let (Input::Dtmf(_), Some(session)) = (input, self.session.get()) {
            self.said.lock().clear();
            session.clear().map_err(HandlerError::new)?;
        }
        Ok(())
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        let next = self.said.lock().pop_front();
        match next {
            Some(emit) => Ok(emit),
            None => std::future::pending().await,
        }
    }
}

/// Puts out that it hears, and then holds its thread for ever, as a lock that is never given back does.
struct Blocked;

#[async_trait]
impl Handler for Blocked {
    fn media(&self) -> Media {
        frames()
    }
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self)
    }
    async fn receive(&self, _: Input) -> Result<(), HandlerError> {
        if let Some(session) = Session::current() {
            let heard = |thread: &std::thread::Thread| session.output(json!(thread.name()));
            heard(&std::thread::current()).map_err(HandlerError::new)?;
        }
        loop {
            std::thread::park();
        }
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        std::future::pending().await
    }
}

/// Talks as [`Talker`] does; when it is given arguments it puts them out and hangs up, as a tool call does.
struct Leaver(Talker);

#[async_trait]
impl Handler for Leaver {
    fn media(&self) -> Media {
        frames()
    }
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self(Talker::new()))
    }
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        self.0.start_up(session).await
    }
    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        if let (Input::Args(arguments), Some(session)) = (input, self.0.session.get()) {
            session.output(json!(arguments)).map_err(HandlerError::new)?;
            session.end("bye").map_err(HandlerError::new)?;
        }
        Ok(())
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        self.0.emit().await
    }
}

/// Is busy with its first frame for a while; puts out how many samples it has heard when it has heard five seconds.
#[derive(Default)]
struct Busy {
    session: OnceLock<Session>,
    heard: Mutex<usize>,
}

#[async_trait]
impl Handler for Busy {
    fn media(&self) -> Media {
        frames()
    }
    fn copy(&self) -> Box<dyn Handler> {
        Box::new(Self::default())
    }
    async fn start_up(&self, session: &Session) -> Result<(), HandlerError> {
        let _ = self.session.set(session.clone());
        Ok(())
    }
    async fn receive(&self, input: Input) -> Result<(), HandlerError> {
        let Input::Audio(frame) = input else { return Ok(()) };
        let heard = {
            let mut heard = self.heard.lock();
            *heard += frame.samples.len();
            *heard
        };
        if heard == frame.samples.len() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        match self.session.get() {
            Some(session) if heard >= 5 * HEARD as usize => session.output(json!(heard)).map_err(HandlerError::new),
            _ => Ok(()),
        }
    }
    async fn emit(&self) -> Result<Emit, HandlerError> {
        std::future::pending().await
    }
}
