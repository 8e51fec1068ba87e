//! A call that talks all the time, and notes when it hears what.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Map, Value};
use streamfleet_audio::analysis::{level_dbfs, tone_level};
use streamfleet_client::{
    Call, Client, ClientError, ClientOptions, EndReason, Event, Message, PcmFormat, Reconnect, Resume, SessionId,
    Summary, random_id,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::PATIENCE;

/// What is said, and echoed.
pub(crate) const SAID_HZ: f32 = 440.0;
/// What the handler `plain-tone` plays.
pub(crate) const PLAYED_HZ: f32 = 660.0;
/// Enough to tell tones apart; a telephone has half of it.
const RATE: u32 = 16_000;
const FORMAT: PcmFormat = PcmFormat { rate: RATE, channels: 1 };
/// Packets of 20 ms.
const PACKETS_A_SECOND: f64 = 50.0;
/// A window is loud above this, in dBFS: tones are at -15.
const LOUD_DBFS: f32 = -40.0;
/// Of a window's power, half must be the tone's.
const SHARE_DB: f32 = 3.0;
/// How often it is looked whether packets come.
const LOOK: Duration = Duration::from_millis(20);
/// Longer than a busy machine keeps a client from its packets; every outage of these tests is a multiple of it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) service: String,
    pub(crate) id: SessionId,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) resume: Option<Resume>,
    pub(crate) reconnect: Reconnect,
    /// Silence after which the worker counts as gone.
    pub(crate) liveness: Duration,
    /// The client's own addresses; every one that it has if empty.
    pub(crate) from: Vec<IpAddr>,
}

impl Plan {
    /// A call with an id of its own, which ends with its connection.
    pub(crate) fn of(service: &str) -> Self {
        let id = random_id();
        Self {
            service: service.to_owned(),
            metadata: Map::from_iter([("room".to_owned(), Value::from(id.as_str()))]),
            id,
            resume: None,
            reconnect: Reconnect::Never,
            liveness: Duration::from_secs(30),
            from: Vec::new(),
        }
    }
}

/// What a call has heard and was told.
#[derive(Debug, Default)]
struct Told {
    /// What is left of the last window.
    rest: Vec<i16>,
    /// Each window of 20 ms that was a tone: its end, and which.
    tones: Vec<(Instant, f32)>,
    events: Vec<(Instant, Event)>,
    /// When packets were seen to have come, with their count and that of those lost.
    packets: Vec<(Instant, u64, u64)>,
}

impl Told {
    fn hear(&mut self, samples: &[i16], rate: u32, now: Instant) {
        self.rest.extend_from_slice(samples);
        let size = rate as usize / 50;
        while self.rest.len() >= size {
            let window: Vec<i16> = self.rest.drain(..size).collect();
            let level = level_dbfs(&window);
            let is = |hz: &f32| level > LOUD_DBFS && tone_level(&window, rate, *hz) > level - SHARE_DB;
            self.tones.extend([SAID_HZ, PLAYED_HZ, 550.0].into_iter().find(is).map(|hz| (now, hz)));
        }
    }

    fn count(&mut self, received: u64, lost: u64, now: Instant) {
        if self.packets.last().is_none_or(|(_, before, _)| *before != received) {
            self.packets.push((now, received, lost));
        }
    }

    /// When half a second of a tone had been heard since `since`.
    fn heard(&self, hz: f32, since: Instant) -> Option<Instant> {
        const WINDOWS: usize = 25;
        let first = self.tones.partition_point(|(at, _)| *at < since);
        self.tones[first..].iter().filter(|(_, tone)| *tone == hz).nth(WINDOWS - 1).map(|(at, _)| *at)
    }
}

/// What came of media in a stretch of time.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    /// The longest time without a packet.
    pub(crate) pause: Duration,
    pub(crate) took: Duration,
}

/// A call under way. Dropping it hangs up.
pub(crate) struct Caller {
    call: Arc<Call>,
    id: SessionId,
    told: Arc<Mutex<Told>>,
    changed: watch::Receiver<()>,
    tasks: JoinSet<()>,
}

impl Caller {
    /// Calls, and talks from the first moment on.
    pub(crate) async fn dial(url: &str, plan: Plan) -> Result<Self, ClientError> {
        let mut options = ClientOptions::new(url.parse().map_err(|_| ClientError::NoAddress)?);
        options.timeouts.admission = Duration::ZERO;
        options.timeouts.liveness = plan.liveness;
        // A debug build on a busy machine.
        options.timeouts.connect = PATIENCE;
        let options = ClientOptions {
            webrtc_id: plan.id.clone(),
            metadata: plan.metadata,
            resume: plan.resume,
            reconnect: plan.reconnect,
            playout: FORMAT,
            local_addresses: plan.from,
            ..options
        };
        Ok(Self::of(Client::connect(options).await?, plan.id))
    }

    /// A call that has just been made, whatever carries it.
    pub(crate) fn of(call: Call, id: SessionId) -> Self {
        let call = Arc::new(call);
        let told = Arc::<Mutex<Told>>::default();
        let (changes, changed) = watch::channel(());
        let changes = Arc::new(changes);
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (call, told, changes) = (call.clone(), told.clone(), changes.clone());
            async move {
                while let Some(chunk) = call.next_audio().await {
                    lock(&told).hear(&chunk.samples, chunk.format.rate, Instant::now());
                    changes.send_replace(());
                }
            }
        });
        tasks.spawn({
            let (call, told) = (call.clone(), told.clone());
            async move {
                while let Some(event) = call.next_event().await {
                    lock(&told).events.push((Instant::now(), event));
                    changes.send_replace(());
                }
            }
        });
        tasks.spawn({
            let call = call.clone();
            async move {
                let tone = tone(SAID_HZ);
                while call.send_audio(&tone, FORMAT).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            }
        });
        tasks.spawn({
            let (call, told) = (call.clone(), told.clone());
            async move {
                while let Ok(stats) = call.stats().await {
                    let (received, lost) = (stats.audio.received, stats.audio.lost);
                    lock(&told).count(received, lost, Instant::now());
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
        Self { call, id, told, changed, tasks }
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    /// What its client shows to go on elsewhere.
    pub(crate) async fn token(&self) -> Result<Resume> {
        self.call.resume_token().await?.context("the server gave no token")
    }

    async fn until<T>(&self, what: &str, limit: Duration, look: impl Fn(&Told) -> Option<T>) -> Result<T> {
        let mut changed = self.changed.clone();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = look(&lock(&self.told)) {
                    return Some(found);
                }
                if changed.changed().await.is_err() {
                    // Nothing more will come.
                    return look(&lock(&self.told));
                }
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!("{what}: the call is over: {:?}", lock(&self.told).events),
            Err(_) => bail!("{what}: not within {limit:?}: {:?}", lock(&self.told).events),
        }
    }

    /// Waits until half a second of a tone was heard since `since`; when it was.
    pub(crate) async fn hears(&self, hz: f32, since: Instant) -> Result<Instant> {
        self.hears_within(hz, since, PATIENCE).await
    }

    pub(crate) async fn hears_within(&self, hz: f32, since: Instant, limit: Duration) -> Result<Instant> {
        let what = format!("a tone of {hz} Hz");
        self.until(&what, limit, |told| told.heard(hz, since)).await
    }

    /// Waits for what the server says, at most `limit`; when it was said.
    pub(crate) async fn is_told<T>(
        &self,
        what: &str,
        limit: Duration,
        look: impl Fn(&Message) -> Option<T>,
    ) -> Result<(Instant, T)> {
        let found = |(at, event): &(Instant, Event)| match event {
            Event::Message(message) => look(message).map(|found| (*at, found)),
            _ => None,
        };
        self.until(what, limit, |told| told.events.iter().find_map(found)).await
    }

    /// Whether the server has said so.
    pub(crate) fn was_told(&self, is: impl Fn(&Message) -> bool) -> bool {
        self.times_told(is) > 0
    }

    /// How often the server has said so.
    pub(crate) fn times_told(&self, is: impl Fn(&Message) -> bool) -> usize {
        let is_so = |(_, event): &&(Instant, Event)| matches!(event, Event::Message(message) if is(message));
        lock(&self.told).events.iter().filter(is_so).count()
    }

    /// Waits until the call goes on over another connection; when it does.
    pub(crate) async fn reconnects(&self, limit: Duration) -> Result<Instant> {
        let is = |(at, event): &(Instant, Event)| (*event == Event::Reconnected).then_some(*at);
        self.until("another connection", limit, |told| told.events.iter().find_map(is)).await
    }

    /// The end of the call, whoever makes it.
    pub(crate) async fn ended(&self, limit: Duration) -> Result<(Instant, EndReason)> {
        let end = |(at, event): &(Instant, Event)| match event {
            Event::Ended(reason) => Some((*at, reason.clone())),
            _ => None,
        };
        self.until("the end", limit, |told| told.events.iter().find_map(end)).await
    }

    /// Whether the call goes on.
    pub(crate) fn is_live(&self) -> bool {
        !lock(&self.told).events.iter().any(|(_, event)| matches!(event, Event::Ended(_)))
    }

    /// What came of media since `since`.
    pub(crate) fn media_since(&self, since: Instant) -> Media {
        let (now, told) = (Instant::now(), lock(&self.told));
        // The last look before is where the stretch begins.
        let first = told.packets.partition_point(|(at, ..)| *at < since).saturating_sub(1);
        let seen = &told.packets[first.min(told.packets.len())..];
        let count = |get: fn(&(Instant, u64, u64)) -> u64| match (seen.first(), seen.last()) {
            (Some(first), Some(last)) => get(last).saturating_sub(get(first)),
            _ => 0,
        };
        let times: Vec<Instant> = std::iter::once(since)
            .chain(seen.iter().map(|(at, ..)| *at).filter(|at| *at > since))
            .chain([now])
            .collect();
        let pause = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Media { packets: count(|seen| seen.1), lost: count(|seen| seen.2), pause, took: now - since }
    }

    /// Sees that media has not noticed anything since `since`: no packet was lost, and none was late by a second.
    pub(crate) fn check_unbroken(&self, since: Instant) -> Result<()> {
        let media = self.media_since(since);
        // What the machine is late with, and where the two looks fall.
        let least = (media.took.as_secs_f64() - LONGEST_PAUSE.as_secs_f64()) * PACKETS_A_SECOND * 0.9;
        ensure!(self.is_live(), "the call is over: {:?}", lock(&self.told).events);
        ensure!(media.lost == 0 && media.packets as f64 >= least, "{media:?}");
        ensure!(media.pause < LONGEST_PAUSE, "{media:?}");
        Ok(())
    }

    /// Hangs up and waits until everything is closed.
    pub(crate) async fn hang_up(self) -> Option<Summary> {
        let Self { call, mut tasks, .. } = self;
        tasks.shutdown().await;
        Some(Arc::into_inner(call)?.end().await)
    }
}

/// A fifth of a second, whole periods of it.
fn tone(hz: f32) -> Vec<i16> {
    let at = |n: u32| 0.25 * 32_767.0 * (std::f32::consts::TAU * hz * n as f32 / RATE as f32).sin();
    (0..RATE / 5).map(|n| at(n) as i16).collect()
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
