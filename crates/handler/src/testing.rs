//! Drives a handler as a session would, for tests of handlers.
//!
//! ```
//! use streamfleet_handler::{Ended, Emit, Input, builtin::EchoFrames, PcmFormat, testing::{Drive, sine}};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
//! # runtime.block_on(async {
//! let mut drive = Drive::start(Box::new(EchoFrames::new(24_000)));
//! let frame = sine(PcmFormat::mono(24_000), 440.0, -20.0).next().unwrap();
//! drive.push(Input::Audio(frame.clone()));
//! assert_eq!(drive.next().await, Some(Emit::Audio(frame)));
//! drive.cancel();
//! assert_eq!(drive.ended().await, Ended::Cancelled);
//! # });
//! ```
//!
//! With tokio's clock paused (`#[tokio::test(start_paused = true)]`) the handler's timers run in virtual time.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use streamfleet_session::{Metadata, Verification};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::builtin::Oscillator;
use crate::{
    AudioFrame, Context, Emit, EncodedPacket, Ended, Handler, Input, LinkConfig, LoopEnd, Packet, PacketSink,
    PcmFormat, Pushed, Session, Transport, link, run,
};

/// How long [`Drive::next`] waits before it calls the handler stuck; longer than any deadline of the runner.
const STUCK: Duration = Duration::from_secs(120);

/// A handler running on a task of its own, and the media loop's end of its link in the test's hands.
pub struct Drive {
    link: LoopEnd,
    session: Session,
    woken: Arc<Notify>,
    cancel: CancellationToken,
    task: JoinSet<Ended>,
    over: Option<Ended>,
}

impl Drive {
    /// Starts `handler` with the [`context`] of a test and the default bounds. Needs a tokio runtime with time.
    #[must_use]
    pub fn start(handler: Box<dyn Handler>) -> Self {
        Self::start_with(handler, context("test"), LinkConfig::default())
    }

    /// Starts `handler`.
    #[must_use]
    pub fn start_with(handler: Box<dyn Handler>, context: Context, config: LinkConfig) -> Self {
        let woken = Arc::new(Notify::new());
        let wake = woken.clone();
        let (link, end) = link(config, Arc::new(move || wake.notify_one()));
        let session = Session::new(context, &end);
        let cancel = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(handler, session.clone(), end, cancel.clone()));
        Self { link, session, woken, cancel, task, over: None }
    }

    /// Offers an input.
    pub fn push(&self, input: Input) -> Pushed {
        self.link.push(input)
    }

    /// The next item, waited for; `None` once the handler is over and everything has been taken.
    ///
    /// # Panics
    /// When nothing comes for two minutes.
    pub async fn next(&mut self) -> Option<Emit> {
        let next = async {
            loop {
                if let Some(emit) = self.link.pop() {
                    return Some(emit);
                }
                if self.link.is_closed() {
                    return None;
                }
                self.woken.notified().await;
            }
        };
        tokio::time::timeout(STUCK, next).await.expect("the handler emits something or ends within two minutes")
    }

    /// Takes audio until `time` of it has come, and returns its samples; other items are dropped.
    ///
    /// # Panics
    /// When the handler ends before, or nothing comes for two minutes.
    pub async fn audio(&mut self, time: Duration) -> Vec<i16> {
        let mut samples = Vec::new();
        let mut heard = Duration::ZERO;
        while heard < time {
            if let Emit::Audio(frame) = self.next().await.expect("the handler emits as much audio as the test asks for")
            {
                heard += frame.duration();
                samples.extend_from_slice(&frame.samples);
                self.link.recycle(frame.samples);
            }
        }
        samples
    }

    /// Takes everything until the handler is over.
    ///
    /// # Panics
    /// When nothing comes for two minutes.
    pub async fn rest(&mut self) -> Vec<Emit> {
        let mut all = Vec::new();
        while let Some(emit) = self.next().await {
            all.push(emit);
        }
        all
    }

    /// Lets the handler run until it waits for input, for room or for time. On a current-thread runtime only.
    pub async fn settle(&self) {
        // Each turn lets every ready task run once. A handler that is ready again and again uses up its cooperative
        // budget (128 steps) and is scheduled anew, so a few turns see it through any bounded queue.
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    /// The loop's end of the link.
    #[must_use]
    pub fn link(&self) -> &LoopEnd {
        &self.link
    }

    /// The handle that the handler was given.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Cancels the run.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits until the run is over, and says how; what was emitted can still be taken.
    ///
    /// # Panics
    /// When the runner itself panics, which it never should.
    pub async fn ended(&mut self) -> Ended {
        if let Some(over) = &self.over {
            return over.clone();
        }
        let joined = self.task.join_next().await.expect("one task was spawned, and joined at most once");
        let over = joined.expect("a handler's panic is caught by its runner");
        self.over = Some(over.clone());
        over
    }
}

/// Keeps what a [`PacketHandler`](crate::PacketHandler) sends.
#[derive(Debug, Default)]
pub struct Sent {
    /// The packets, in order.
    pub packets: Vec<EncodedPacket>,
    /// The texts, in order.
    pub messages: Vec<String>,
}

impl PacketSink for Sent {
    fn send(&mut self, packet: &Packet<'_>) {
        self.packets.push(packet.to_encoded());
    }

    fn message(&mut self, text: &str) {
        self.messages.push(text.to_owned());
    }
}

/// The context of an anonymous WebRTC session called `id`.
///
/// # Panics
/// When `id` is no session id.
#[must_use]
pub fn context(id: &str) -> Context {
    Context {
        session_id: id.parse().expect("the test's id is a session id"),
        transport: Transport::WebRtc,
        service: "test".parse().expect("a plain word is a service name"),
        user_id: None,
        verified: Verification::Unverified,
        metadata: Metadata::default(),
        claims: serde_json::Map::new(),
        variant: None,
        resumed: false,
        trace_id: None,
    }
}

/// An endless mono sine in frames of 20 ms. 0 dBFS is a sine that just reaches full scale (AES17).
///
/// # Panics
/// Never for a mono format.
pub fn sine(format: PcmFormat, hz: f64, level_dbfs: f64) -> impl Iterator<Item = AudioFrame> {
    let frame = Duration::from_millis(20);
    let mut oscillator = Oscillator::new(format.rate, hz, level_dbfs);
    (0_u32..).map(move |number| {
        let mut samples = Vec::new();
        oscillator.fill(&mut samples, format.samples_in(frame));
        AudioFrame { samples, format: PcmFormat::mono(format.rate), timestamp: frame * number }
    })
}

/// The level of mono samples in dBFS (AES17: a full-scale sine is 0); silence is −∞.
#[must_use]
pub fn level_dbfs(samples: &[i16]) -> f64 {
    let power = samples.iter().map(|&sample| full_scale(sample).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    10.0 * (2.0 * power).log10()
}

/// The level in dBFS (AES17) of the sine of `hz` Hz in mono samples.
#[must_use]
pub fn tone_level(samples: &[i16], rate: u32, hz: f64) -> f64 {
    let angle = TAU * hz / f64::from(rate);
    let (mut real, mut imaginary) = (0.0, 0.0);
    for (number, &sample) in samples.iter().enumerate() {
        let (sin, cos) = (angle * number as f64).sin_cos();
        real += full_scale(sample) * cos;
        imaginary += full_scale(sample) * sin;
    }
    20.0 * (2.0 * real.hypot(imaginary) / samples.len().max(1) as f64).log10()
}

fn full_scale(sample: i16) -> f64 {
    f64::from(sample) / f64::from(i16::MAX)
}
