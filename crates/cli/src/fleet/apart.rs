//! A process for each part: started, watched, started again when it dies, and ended with the fleet.
//!
//! A thread keeps each part. The kernel kills a part whose thread is gone: however the fleet ends, nobody is left behind.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use streamfleet_process::signals::Signals;
use streamfleet_worker::program::{EXIT_CONFIG, EXIT_FAILED};
use tokio::sync::mpsc;

use super::layout::{Layout, RouterAt, WorkerAt};
use super::parts::{Common, Environment};
use super::{Fleet, say, say_where, tell};
use crate::demo::page_url;

mod facts;
mod restarts;

use facts::Facts;
use restarts::Restarts;

/// Signals after which nothing is waited for: to drain, to leave at once, and one more.
const PATIENCE: u32 = 3;
/// A line of a part's log is cut there: it is one that has no end.
const MAX_LINE: u64 = 64 << 10;

/// One place in the fleet, whoever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Router(usize),
    Worker(usize),
}

/// What a part's thread tells.
enum Event {
    /// Its first process serves; the page is at this address, if it is the first router.
    Ready(Option<String>),
    /// Its first process has ended before it served.
    Failed(u8),
    /// It was told to stop, and has.
    Stopped(Place),
}

pub(super) fn run(fleet: &Fleet, folder: &Path) -> ExitCode {
    let page = folder.join("page.json");
    let program = std::env::current_exe();
    let written = std::fs::write(&page, fleet.page.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match (program, written, runtime) {
        (Ok(program), Ok(()), Ok(runtime)) => {
            let Fleet { layout, common, .. } = fleet;
            let means = Means { program, page, common: common.clone(), layout: layout.clone() };
            runtime.block_on(async {
                // Parts wait for a Redis that goes away; one that was never there is a mistake of the command line.
                if let Some(redis) = &common.redis
                    && let Err(problem) = redis.answers().await
                {
                    tell(&problem);
                    return ExitCode::from(EXIT_FAILED);
                }
                keep_all(Arc::new(means)).await
            })
        }
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
            tell(&format!("cannot start processes: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// What processes are made with.
struct Means {
    program: PathBuf,
    page: PathBuf,
    common: Common,
    layout: Layout,
}

async fn keep_all(means: Arc<Means>) -> ExitCode {
    let mut signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            tell(&error.to_string());
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let routers = (0..means.layout.routers.len()).map(Place::Router);
    let places: Vec<Place> = routers.chain((0..means.layout.workers.len()).map(Place::Worker)).collect();
    // Each thread says two things at most.
    let (events, mut told) = mpsc::unbounded_channel();
    let mut halts = Vec::new();
    for place in &places {
        let (halt, means, events, place) = (Arc::new(Halt::default()), means.clone(), events.clone(), *place);
        halts.push((place, halt.clone()));
        let keep = move || Keeper { place, means, halt, events }.keep();
        if let Err(error) = std::thread::Builder::new().name("part".to_owned()).spawn(keep) {
            tell(&format!("cannot start a thread: {error}"));
            return ExitCode::from(EXIT_FAILED);
        }
    }
    drop(events);
    let stop = |of: fn(&Place) -> bool| halts.iter().filter(|(place, _)| of(place)).for_each(|(_, halt)| halt.stop());
    let is_worker: fn(&Place) -> bool = |place| matches!(place, Place::Worker(_));
    let is_router: fn(&Place) -> bool = |place| matches!(place, Place::Router(_));
    let mut left: HashSet<Place> = places.iter().copied().collect();
    let (mut silent, mut url, mut raised, mut code) = (places.len(), None, 0, ExitCode::SUCCESS);
    loop {
        tokio::select! {
            _ = signals.next() => {
                raised += 1;
                if raised >= PATIENCE {
                    // The kernel ends what is left.
                    return ExitCode::from(EXIT_FAILED);
                }
                // Workers first: their clients find routers until the last of their sessions is over.
                stop(if left.iter().any(is_worker) { is_worker } else { is_router });
            }
            event = told.recv() => match event {
                None => return code,
                Some(Event::Ready(page)) => {
                    url = url.or(page);
                    silent -= 1;
                    if silent == 0 {
                        say_where(url.as_deref(), means.common.made_token().as_deref());
                    }
                }
                Some(Event::Failed(status)) => {
                    code = ExitCode::from(status);
                    stop(|_| true);
                }
                Some(Event::Stopped(place)) => {
                    left.remove(&place);
                    // Once: a router that is told twice does not wait for its requests.
                    if is_worker(&place) && !left.iter().any(is_worker) {
                        stop(is_router);
                    }
                }
            },
        }
    }
}

/// How a part is told to stop, whatever its thread does at the moment.
#[derive(Debug, Default)]
struct Halt {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Its process, until it is waited for: after that the number may be another's.
    process: Option<u32>,
    stopping: bool,
}

impl Halt {
    fn state(&self) -> MutexGuard<'_, State> {
        // Two plain values: a thread that panicked has left them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first time a SIGTERM, which drains; after that a SIGINT, which ends at once.
    fn stop(&self) {
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.stopping, true);
        state.process.map(if is_first { streamfleet_net::terminate } else { streamfleet_net::interrupt });
        self.changed.notify_all();
    }

    fn started(&self, process: u32) {
        let mut state = self.state();
        state.process = Some(process);
        if state.stopping {
            let _ = streamfleet_net::terminate(process);
        }
    }

    fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Waits for this long, or until it is told to stop.
    fn pause(&self, pause: Duration) {
        let wait = self.changed.wait_timeout_while(self.state(), pause, |state| !state.stopping);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Keeps a process in one place of the fleet.
struct Keeper {
    place: Place,
    means: Arc<Means>,
    halt: Arc<Halt>,
    events: mpsc::UnboundedSender<Event>,
}

impl Keeper {
    fn keep(self) {
        let mut restarts = Restarts::default();
        let mut has_served = false;
        for life in 0.. {
            if self.halt.is_stopping() {
                break;
            }
            let began = Instant::now();
            let name = self.name(life);
            let ended = self.live(&name, life, &mut has_served);
            if self.halt.is_stopping() {
                break;
            }
            let (how, status) = match ended {
                Ok(status) => (status.to_string(), status.code()),
                Err(error) => (error.to_string(), None),
            };
            if !has_served {
                tell(&format!("{name} did not start ({how})"));
                let is_mistake = status == Some(i32::from(EXIT_CONFIG));
                let _ = self.events.send(Event::Failed(if is_mistake { EXIT_CONFIG } else { EXIT_FAILED }));
                break;
            }
            let pause = restarts.pause(began.elapsed());
            say(&format!("{name} has ended ({how}); the next one starts in {:.1} s", pause.as_secs_f64()));
            self.halt.pause(pause);
        }
        // Nobody listens when the fleet has run out of patience.
        let _ = self.events.send(Event::Stopped(self.place));
    }

    fn name(&self, life: u32) -> String {
        match self.place {
            Place::Router(n) => format!("router {}", n + 1),
            Place::Worker(n) => format!("worker {}", self.means.common.worker_name(n, life)),
        }
    }

    /// One process, from its start to its end.
    fn live(&self, name: &str, life: u32, has_served: &mut bool) -> std::io::Result<ExitStatus> {
        let mut child = self.command(life).spawn()?;
        self.halt.started(child.id());
        let log = child.stderr.take().map(|log| {
            let name = name.to_owned();
            std::thread::Builder::new().name("log".to_owned()).spawn(move || copy(log, &name))
        });
        if let Some(out) = child.stdout.take() {
            self.listen(out, name, &child, has_served);
        }
        // It has closed its output, which it does by ending. From here on its number may be another's.
        self.halt.state().process = None;
        let status = child.wait();
        if let Some(Ok(log)) = log {
            let _ = log.join();
        }
        status
    }

    fn listen(&self, out: impl Read, name: &str, child: &Child, has_served: &mut bool) {
        let mut facts = Facts::of(self.place);
        for line in BufReader::new(out).lines() {
            let Ok(line) = line else { break };
            let Some(known) = facts.hear(&line) else { continue };
            say(&format!("{name}, pid {}, {known}", child.id()));
            if !std::mem::replace(has_served, true) {
                // Every router has the page; people are told of one.
                let first = facts.public().filter(|_| self.place == Place::Router(0));
                let page = first.map(|(scheme, address)| page_url(scheme, address));
                let _ = self.events.send(Event::Ready(page));
            }
        }
    }

    fn command(&self, life: u32) -> Command {
        let Means { program, page, common, layout } = &*self.means;
        let mut command = Command::new(program);
        let environment: Environment = match self.place {
            Place::Router(n) => {
                command.arg("router").arg("--page").arg(page);
                let at: &RouterAt = &layout.routers[n];
                common.router(*at)
            }
            Place::Worker(n) => {
                command.arg("worker");
                let at: &WorkerAt = &layout.workers[n];
                common.worker(*at, &common.worker_name(n, life))
            }
        };
        command.args(["--parent", &std::process::id().to_string()]);
        command.env_clear().envs(environment);
        // Ctrl-C goes to the whole group of a terminal: parts are told by us, and in order.
        command.process_group(0);
        let log = if common.logs_json() { Stdio::inherit() } else { Stdio::piped() };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command
    }
}

/// Passes a part's log on, with its name before each line.
fn copy(log: impl Read, name: &str) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    loop {
        line.clear();
        match log.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut out = std::io::stderr().lock();
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                // Without a reader there is nobody to tell.
                drop(write!(out, "{name} | ").and_then(|()| out.write_all(line)).and_then(|()| out.write_all(b"\n")));
            }
        }
    }
}
