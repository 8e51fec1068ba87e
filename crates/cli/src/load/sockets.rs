//! Sessions on WebSockets: one thread, one task a session, the same account as for WebRTC.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use streamfleet_client::{BareEvent, BareSocket, ClientError, Message, Reattach, SampleRate, SocketOptions};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::arguments::{Plan, Rates};
use super::line::{Frames, Line, Role};
use super::media::{Phase, Share, Tally};
use super::report::{Report, Run};
use super::run::{DRAIN, RAMP_GRACE, REDRAW, SETTLE, Screen, Window};
use super::session::{Failure, Setup, plain};

/// How often it is looked whether all sessions are there.
const TICK: Duration = Duration::from_millis(20);

/// What all sessions share.
struct Shared {
    options: SocketOptions,
    output: SampleRate,
    user_id: Option<String>,
    speech: Rc<Frames>,
    bursts: Rc<Frames>,
    tally: RefCell<Tally>,
    active: Cell<usize>,
    failed: Cell<usize>,
    /// When measuring was over.
    ended: Cell<Option<Instant>>,
    stop: CancellationToken,
}

/// What became of a session.
type Outcome = (Setup, Result<Share, Failure>);

/// Does what is planned, on the calling thread.
pub(super) fn measure(plan: &Plan, rates: Rates) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let mut options = SocketOptions::new(plan.service.url.clone());
    options.headers = plan.service.headers.clone();
    options.tls = plan.service.trust.into();
    options.reattach = Reattach::Plain;
    let shared = Rc::new(Shared {
        options,
        output: rates.output,
        user_id: plan.service.user_id.clone(),
        speech: Rc::new(Frames::speech(rates.input.hz(), rates.frame)),
        bursts: Rc::new(Frames::bursts(rates.input.hz(), rates.frame)),
        tally: RefCell::default(),
        active: Cell::new(0),
        failed: Cell::new(0),
        ended: Cell::new(None),
        stop: CancellationToken::new(),
    });
    LocalSet::new().block_on(&runtime, run(plan, &shared))
}

async fn run(plan: &Plan, shared: &Rc<Shared>) -> anyhow::Result<Report> {
    let start = Instant::now();
    let opened = Window::open(&shared.tally.borrow(), start);
    let screen = RefCell::new(Screen::new(&plan.output, start, opened));
    let mut sessions = JoinSet::new();
    let mut result = Run { url: plan.service.url.to_string(), ..Run::default() };
    let phases = async {
        for id in 0..plan.sessions {
            let role = if plan.is_probe(id) { Role::Probe } else { Role::Speech };
            sessions.spawn_local(session(Rc::clone(shared), id, role));
            tokio::time::sleep_until((start + plan.spacing * (id as u32 + 1)).into()).await;
        }
        let latest = Instant::now() + RAMP_GRACE;
        while shared.active.get() + shared.failed.get() < plan.sessions && Instant::now() < latest {
            tokio::time::sleep(TICK).await;
        }
        if shared.active.get() > 0 {
            tokio::time::sleep(SETTLE).await;
            shared.tally.borrow_mut().phase = Phase::Measure;
            let began = Window::open(&shared.tally.borrow(), Instant::now());
            tokio::time::sleep(plan.measure).await;
            let ended = Window::open(&shared.tally.borrow(), Instant::now());
            shared.tally.borrow_mut().phase = Phase::Drain;
            shared.ended.set(Some(ended.at));
            (result.measured, result.cpu) = (ended.at - began.at, ended.cpu.saturating_sub(began.cpu));
            result.received = ended.received - began.received;
            tokio::time::sleep(DRAIN).await;
        }
    };
    let draw = async {
        let mut tick = tokio::time::interval(REDRAW);
        loop {
            tick.tick().await;
            screen.borrow_mut().draw(
                Instant::now(),
                &shared.tally.borrow(),
                (shared.active.get(), shared.failed.get()),
            );
        }
    };
    tokio::select! {
        () = phases => {}
        () = draw => {}
        // An early end is of the user's own making: the report is of what there was.
        _ = tokio::signal::ctrl_c() => {}
    }
    shared.stop.cancel();
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(plan.sessions);
    while let Some(outcome) = sessions.join_next().await {
        outcomes.push(outcome.context("a session's task failed")?);
    }
    Ok(Report::new(result, &outcomes, &shared.tally.borrow()).planned(plan, &outcomes))
}

/// One session, from its socket to its goodbye.
async fn session(shared: Rc<Shared>, id: usize, role: Role) -> Outcome {
    let mut setup = Setup { offered: Some(Instant::now()), ..Setup::default() };
    let mut options = shared.options.clone();
    options.websocket_id = streamfleet_client::random_id();
    if let Some(user) = &shared.user_id {
        options.metadata.insert("user_id".to_owned(), format!("{user}{id}").into());
    }
    let connected = tokio::select! {
        connected = BareSocket::connect(&options) => connected.map_err(failure),
        () = shared.stop.cancelled() => Err(Failure::Unreachable("no answer in time".to_owned())),
    };
    let mut socket = match connected {
        Ok(socket) => socket,
        Err(failure) => {
            shared.failed.set(shared.failed.get() + 1);
            return (setup, Err(failure));
        }
    };
    let now = Instant::now();
    setup.answered = Some(now);
    shared.active.set(shared.active.get() + 1);
    let frames = Rc::clone(if role == Role::Probe { &shared.bursts } else { &shared.speech });
    let mut line = Line::new(frames, role, shared.output.hz(), now);
    let ended = talk(&shared, &mut socket, &mut line).await;
    setup.first_media = line.first();
    if let Err(failure) = ended {
        shared.active.set(shared.active.get() - 1);
        shared.failed.set(shared.failed.get() + 1);
        return (setup, Err(failure));
    }
    let end = shared.ended.get().unwrap_or_else(Instant::now);
    socket.hang_up().await;
    let share = if line.first().is_some() { Ok(line.share(end)) } else { Err(Failure::Silent) };
    (setup, share)
}

/// Speaks and listens until the whole is over.
async fn talk(shared: &Shared, socket: &mut BareSocket, line: &mut Line) -> Result<(), Failure> {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            (event, at) = socket.next() => match event {
                BareEvent::Audio(payload) => line.receive(&payload, at, &mut shared.tally.borrow_mut()),
                BareEvent::Message(Message::EndStream(why)) => {
                    return Err(Failure::Ended(format!("end_stream: {}", plain(&why))));
                }
                BareEvent::Message(Message::Error(why)) => {
                    return Err(Failure::Ended(format!("error: {}", plain(&why))));
                }
                BareEvent::Ended(Some(why)) => return Err(Failure::Ended(plain(&why))),
                BareEvent::Ended(None) => return Err(Failure::Ended("closed".to_owned())),
                _ => {}
            },
            () = tokio::time::sleep_until(line.poll_timeout().into()) => {
                let now = Instant::now();
                loop {
                    let text = line.send(now, &mut shared.tally.borrow_mut());
                    let Some(text) = text else { break };
                    socket.send(text).await.map_err(|_| Failure::Lost)?;
                }
            }
        }
    }
}

fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Unreachable { reason, .. } => Failure::Unreachable(plain(&reason)),
        ClientError::Refused(refusal) => Failure::Refused(plain(&refusal.error)),
        ClientError::NotAccepted { .. } => Failure::NotConnected,
        other => Failure::Broken(plain(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::arguments::{Carrier, FrameLength, Output};
    use crate::load::report::{Method, Path};
    use crate::load::signal::{Service, Trust};
    use futures_util::{SinkExt as _, StreamExt as _};
    use serde_json::{Value, json};
    use streamfleet_client::{HeaderMap, SampleRate};
    use tokio_tungstenite::tungstenite::Message as Frame;

    /// An echo server on a thread of its own that refuses all but so many sessions.
    fn server(most: usize) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let mut sockets = JoinSet::new();
                for number in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    sockets.spawn(async move {
                        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                        while let Some(Ok(Frame::Text(text))) = socket.next().await {
                            let value: Value = serde_json::from_str(&text).unwrap();
                            let failed = json!({"status": "failed", "meta": {"error": "full", "limit": most}});
                            let reply = match value["event"].as_str().unwrap() {
                                "start" if number >= most => failed.to_string().into(),
                                "ping" => json!({"event": "pong"}).to_string().into(),
                                "media" => text,
                                _ => continue,
                            };
                            // A client that has hung up does not want it.
                            drop(socket.send(Frame::Text(reply)).await);
                        }
                    });
                }
            });
        });
        format!("http://{address}/echo")
    }

    fn plan(url: &str) -> (Plan, Rates) {
        let rate = SampleRate::new(24_000).unwrap();
        let rates = Rates { input: rate, output: rate, frame: FrameLength::Ms20 };
        let service =
            Service { url: url.parse().unwrap(), headers: HeaderMap::new(), user_id: None, trust: Trust::System };
        let plan = Plan {
            service,
            carrier: Carrier::Socket(rates),
            sessions: 4,
            spacing: Duration::from_millis(10),
            measure: Duration::from_secs(3),
            probes: 2,
            profiles: vec![],
            output: Output::Json,
            each: true,
        };
        (plan, rates)
    }

    #[test]
    fn sessions_are_measured_and_refusals_counted() {
        let (plan, rates) = plan(&server(3));
        let report = measure(&plan, rates).unwrap();
        println!("{report}");
        assert_eq!((report.sessions.ok, report.sessions.failed, report.status()), (3, 1, 2));
        assert_eq!(report.sessions.failures["refused: full"], 1);
        assert_eq!(report.each.iter().filter(|each| each.failure.as_deref() == Some("refused: full")).count(), 1);
        assert_eq!(report.each.len(), 4);
        // Three sessions, fifty frames a second; the machine may be slow, but not that slow.
        assert!((380..=460).contains(&report.packets.sent), "{}", report.packets.sent);
        assert!(report.packets.share > 0.9 && report.path == Path::Frames);
        let echo = report.echo.unwrap();
        assert_eq!(echo.method, Method::Bursts);
        assert!(echo.ms.p50 < 200.0, "{echo:?}");
    }

    #[test]
    fn a_server_that_is_not_there_is_said_to_be_unreachable() {
        // Nobody listens on the discard port.
        let (plan, rates) = plan("http://127.0.0.1:9/echo");
        let report = measure(&plan, rates).unwrap();
        assert_eq!((report.sessions.failed, report.status()), (4, 1));
        assert!(report.sessions.failures.keys().all(|why| why.starts_with("unreachable")), "{report}");
    }
}
