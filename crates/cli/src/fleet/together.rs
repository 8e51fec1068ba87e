//! All parts in one process, on a store in its memory.
//!
//! Each part has its own admin port, and so its own metrics: two workers' counts do not mix. The process's log, traces and
//! memory are told by the router's.

use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use streamfleet_handler::Registry;
use streamfleet_process::config::Mistakes;
use streamfleet_process::signals::{Signals, Teller};
use streamfleet_process::telemetry::{Metrics, Program, Telemetry};
use streamfleet_router::config::{RouterConfig, RouterPlan};
use streamfleet_store::{Backend, Bounds, Memory};
use streamfleet_worker::config::{WorkerConfig, WorkerPlan};
use streamfleet_worker::program::{EXIT_FAILED, plan, runtime};
use streamfleet_worker::worker::Worker;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Fleet, refuse, say, say_where, tell};
use crate::demo::{page, page_url};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the parts are made from.
struct Plans {
    router: RouterPlan,
    workers: Vec<(String, WorkerPlan)>,
}

/// A part of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Router,
    Worker,
}

pub(super) fn run(fleet: Fleet) -> ExitCode {
    let registry = streamfleet_pause::builtin::registry();
    let plans = match plans(&fleet, &registry) {
        Ok(plans) => plans,
        Err(mistakes) => return refuse(&mistakes),
    };
    let telemetry = match Telemetry::start(&plans.router.telemetry, Program { name: "streamfleet", version: VERSION }) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error.to_string()),
    };
    let threads = plans.workers.first().map(|(_, worker)| worker.handler_threads);
    let (runtime, handlers) = match (runtime("http", None), runtime("handlers", threads)) {
        (Ok(runtime), Ok(handlers)) => (runtime, handlers),
        (Err(error), _) | (_, Err(error)) => return fail(&error.to_string()),
    };
    let metrics = telemetry.metrics().clone();
    metrics.observe_process(streamfleet_net::heap_in_use);
    let served = runtime.block_on(serve(plans, &fleet, &registry, metrics, handlers.handle()));
    let code = served.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS);
    // Handlers that would not end are left behind with the process.
    handlers.shutdown_background();
    runtime.shutdown_background();
    telemetry.shutdown();
    code
}

fn plans(fleet: &Fleet, registry: &Registry) -> Result<Plans, Mistakes> {
    let Fleet { layout, common, .. } = fleet;
    let store = Backend::Memory(Arc::new(Memory::new(Bounds::default())));
    let mut mistakes = Mistakes::new();
    let mut workers = Vec::new();
    for (place, at) in layout.workers.iter().enumerate() {
        let name = common.worker_name(place, 0);
        let loaded = WorkerConfig::layers().environment(common.worker(*at, &name)).load::<WorkerConfig>();
        match loaded.build(|config| plan(config, registry, Some(&store))) {
            Ok(plan) => workers.push((name, plan)),
            // The others are told the same.
            Err(found) if place == 0 => mistakes.extend(found),
            Err(_) => {}
        }
    }
    let [at] = layout.routers.as_slice() else {
        mistakes.push("--routers", "a store in memory has one router");
        return Err(mistakes);
    };
    let loaded = RouterConfig::layers().environment(common.router(*at)).load::<RouterConfig>();
    match loaded.build(|config| config.build_on(store)) {
        Ok(router) => mistakes.or(Plans { router, workers }),
        Err(found) => {
            mistakes.extend_new(found);
            Err(mistakes)
        }
    }
}

async fn serve(
    plans: Plans,
    fleet: &Fleet,
    registry: &Registry,
    metrics: Metrics,
    handlers: &Handle,
) -> Result<(), String> {
    let mut signals = Signals::install().map_err(|error| error.to_string())?;
    let mut bound = Vec::new();
    for (name, plan) in plans.workers {
        let metrics = Metrics::new("streamfleet-worker", VERSION);
        let worker =
            Worker::bind(plan, registry, metrics.clone()).map_err(|error| format!("worker {name}: {error}"))?;
        bound.push((name, worker, metrics));
    }
    let mut parts = JoinSet::new();
    // Each part says once that it is ready.
    let (ready, mut said) = mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for (name, worker, metrics) in bound {
        let (teller, told) = Signals::told();
        workers.push(teller);
        let addresses = worker.addresses();
        let media: Vec<String> = addresses.media.iter().map(ToString::to_string).collect();
        let line = format!("worker {name}, media on {}, admin on http://{}", media.join(" "), addresses.admin);
        let ready = ready.clone();
        let run = worker.run(Router::new(), handlers.clone(), told, move || drop(ready.send((line, None))));
        parts.spawn(async move {
            let ended = run.await.map_err(|error| format!("worker {name}: {error}"));
            // Done twice it is done as well.
            let _ = metrics.shutdown();
            (Part::Worker, ended)
        });
    }
    let (router, told) = Signals::told();
    let pages = page::routes(fleet.page.clone());
    let listens = move |at: &streamfleet_router::program::Addresses| {
        let media = at.relay.map(|relay| format!("media on {relay}, ")).unwrap_or_default();
        let line = format!("router 1, listening on {}://{}, {media}admin on http://{}", at.scheme, at.http, at.admin);
        drop(ready.send((line, Some(page_url(at.scheme, at.http)))));
    };
    parts.spawn(async move {
        let served = streamfleet_router::program::serve(plans.router, metrics, told, pages, listens).await;
        (Part::Router, served.map_err(|error| format!("router 1: {error}")))
    });

    let mut helm = Helm { router, workers, sailing: true, failure: None };
    let (mut silent, mut url) = (parts.len(), None);
    let mut left = parts.len() - 1;
    loop {
        tokio::select! {
            Some((line, page)) = said.recv() => {
                say(&line);
                url = url.or(page);
                silent -= 1;
                if silent == 0 {
                    say_where(url.as_deref(), fleet.common.made_token().as_deref());
                }
            }
            _ = signals.next() => helm.stop(left),
            joined = parts.join_next() => match joined {
                None => return helm.failure.map_or(Ok(()), Err),
                Some(Ok((part, ended))) => {
                    left -= usize::from(part == Part::Worker);
                    helm.ended(part, ended, left);
                }
                Some(Err(panicked)) => helm.abandon(panicked.to_string()),
            },
        }
    }
}

/// Tells parts when to stop: workers first, so that their clients find a router until the last of their sessions is over.
struct Helm {
    router: Teller,
    workers: Vec<Teller>,
    sailing: bool,
    failure: Option<String>,
}

impl Helm {
    /// A signal has come, and so many workers are left.
    fn stop(&mut self, left: usize) {
        self.sailing = false;
        if left == 0 {
            self.router.raise();
        } else {
            self.workers.iter().for_each(Teller::raise);
        }
    }

    /// A part is no more, and so many workers are left.
    fn ended(&mut self, part: Part, ended: Result<(), String>, left: usize) {
        match ended {
            Err(error) => self.abandon(error),
            Ok(()) if self.sailing => self.abandon("a part ended before it was told to".to_owned()),
            Ok(()) if part == Part::Worker && left == 0 => self.router.raise(),
            Ok(()) => {}
        }
    }

    /// Without one part the others are no fleet.
    fn abandon(&mut self, failure: String) {
        self.sailing = false;
        self.failure.get_or_insert(failure);
        for teller in self.workers.iter().chain([&self.router]) {
            // Drain, and leave at once.
            teller.raise();
            teller.raise();
        }
    }
}

fn fail(error: &str) -> ExitCode {
    tell(error);
    ExitCode::from(EXIT_FAILED)
}
