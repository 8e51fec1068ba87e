//! A worker as a program: flags, environment and a file in, an exit code out.
//!
//! A worker with handlers of its own is this and a registry:
//!
//! ```no_run
//! use streamfleet_handler::Registry;
//!
//! fn main() -> std::process::ExitCode {
//!     let registry = Registry::builtin();
//!     // registry.register("mine", …);
//!     streamfleet_worker::program::run(&registry)
//! }
//! ```

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use axum::Router;
use clap::Parser;
use streamfleet_handler::Registry;
use streamfleet_process::config::Mistakes;
pub use streamfleet_process::exit::{EXIT_CONFIG, EXIT_FAILED};
use streamfleet_process::exit::{fail, refuse};
use streamfleet_process::signals::Signals;
use streamfleet_process::telemetry::{Program, Telemetry};
use streamfleet_service::files;
use streamfleet_store::Backend;
use tokio::runtime::{Builder, Runtime};

use crate::config::{ManifestReader, Surroundings, TokenOrigin, WorkerConfig, WorkerPlan};
use crate::worker::{Addresses, Worker};

/// The media worker: serves real-time audio and video handlers to FastRTC's clients.
///
/// Every key of the configuration file can also be given as an environment variable: `media.udp` is
/// `STREAMFLEET_MEDIA_UDP`. Flags win over variables, variables over the file.
#[derive(Parser, Debug)]
#[command(name = "streamfleet-worker", version)]
pub struct Flags {
    /// YAML file with the configuration.
    #[arg(long, env = "STREAMFLEET_CONFIG")]
    config: Option<PathBuf>,
    /// Address of HTTP.
    #[arg(long)]
    listen: Option<String>,
    /// Address of the first media loop; each further loop takes the next port.
    #[arg(long)]
    udp: Option<String>,
    /// Addresses to put into answers, comma-separated.
    #[arg(long, value_delimiter = ',')]
    advertise: Vec<String>,
    /// Media loops; default: the cores that the process may use.
    #[arg(long)]
    loops: Option<String>,
    /// Address of probes and metrics.
    #[arg(long)]
    admin_listen: Option<String>,
    /// What to log, as `info` or `streamfleet_worker=debug`.
    #[arg(long)]
    log: Option<String>,
}

/// Runs a worker with these handlers until it is told to stop.
#[must_use]
pub fn run(registry: &Registry) -> ExitCode {
    match Flags::try_parse() {
        Ok(flags) => run_as(flags, registry),
        Err(error) => {
            let code = if error.use_stderr() { EXIT_CONFIG } else { 0 };
            // A closed terminal is no reason to fail differently.
            drop(error.print());
            ExitCode::from(code)
        }
    }
}

/// Runs a worker as these flags say, until it is told to stop.
#[must_use]
pub fn run_as(flags: Flags, registry: &Registry) -> ExitCode {
    let mut layers = WorkerConfig::layers()
        .environment(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))));
    if let Some(path) = &flags.config {
        layers = layers.file(path);
    }
    let layers = layers
        .flag("--listen", "listen", flags.listen)
        .flag("--udp", "media.udp", flags.udp)
        .flag("--loops", "media.loops", flags.loops)
        .flag("--admin-listen", "admin.listen", flags.admin_listen)
        .flag("--log", "log.filter", flags.log);
    let layers = if flags.advertise.is_empty() {
        layers
    } else {
        layers.flags("--advertise", "media.advertise", flags.advertise)
    };
    let plan = match layers.load::<WorkerConfig>().build(|config| plan(config, registry, None)) {
        Ok(plan) => plan,
        Err(mistakes) => return refuse(&mistakes),
    };
    let program = Program { name: "streamfleet-worker", version: env!("CARGO_PKG_VERSION") };
    serve(plan, registry, program, |_| Router::new(), announce)
}

/// Checks a configuration against this machine and these handlers. `store` is the one of a fleet that lives in this process.
///
/// # Errors
/// Every mistake, by key.
pub fn plan(config: WorkerConfig, registry: &Registry, store: Option<&Backend>) -> Result<WorkerPlan, Mistakes> {
    let read = |paths: &[PathBuf], mistakes: &mut Mistakes| {
        let texts = files::texts("manifests", paths, mistakes);
        files::services(&texts, mistakes)
    };
    plan_with(config, registry, store, &read)
}

/// Likewise, with manifests that somebody else reads.
///
/// # Errors
/// As of [`plan`].
pub fn plan_with(
    config: WorkerConfig,
    registry: &Registry,
    store: Option<&Backend>,
    manifests: ManifestReader<'_>,
) -> Result<WorkerPlan, Mistakes> {
    let handler = |name: &str, config: &serde_json::Value| {
        registry.get(name, config.clone()).map(|_| ()).map_err(|error| error.to_string())
    };
    config.build(Surroundings {
        cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        random: rand::random(),
        handler: &handler,
        manifests,
        store,
    })
}

/// Runs a worker from its plan: telemetry, sockets, serving, draining.
#[must_use]
pub fn serve(
    plan: WorkerPlan,
    registry: &Registry,
    program: Program,
    pages: impl FnOnce(&Addresses) -> Router,
    announce: impl FnOnce(&Addresses, Option<&str>),
) -> ExitCode {
    let telemetry = match Telemetry::start(&plan.telemetry, program) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(error),
    };
    let runtimes = (runtime("http", None), runtime("handlers", Some(plan.handler_threads)));
    let (runtime, handlers) = match runtimes {
        (Ok(runtime), Ok(handlers)) => (runtime, handlers),
        (Err(error), _) | (_, Err(error)) => return fail(error),
    };
    // Before anything that takes time: the first process of a container gets no signal that it does not listen to, and whoever
    // has sent one waits for the whole grace.
    let signals = match runtime.block_on(async { Signals::install() }) {
        Ok(signals) => signals,
        Err(error) => return fail(error),
    };
    telemetry.metrics().observe_process(streamfleet_net::heap_in_use);
    // In a fleet only routers are let in, and they show something else.
    let alone = plan.fleet.is_none();
    let made = (alone && plan.admin_token_origin == TokenOrigin::Made).then(|| plan.admin_token.clone());
    let worker = match Worker::bind(plan, registry, telemetry.metrics().clone()) {
        Ok(worker) => worker,
        Err(error) => return fail(error),
    };
    let addresses = worker.addresses();
    // Whoever reads that it listens may ask at once whether it is ready.
    let ready = || announce(&addresses, made.as_ref().map(|token| token.reveal()));
    let pages = pages(&addresses);
    let run = worker.run(pages, handlers.handle().clone(), signals, ready);
    let code = match runtime.block_on(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    };
    // Handlers that would not end are left behind with the process.
    handlers.shutdown_background();
    runtime.shutdown_background();
    telemetry.shutdown();
    code
}

/// Threads of this name for tasks: so many, or one for each core.
///
/// # Errors
/// If the operating system gives no thread.
pub fn runtime(name: &'static str, threads: Option<NonZeroUsize>) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.get());
    }
    // Sockets and handlers hand each other every frame. A thread that is woken would take the core from the one that has woken
    // it, after every frame; these take turns instead. Where that is forbidden a session over a socket costs a tenth to a third more.
    builder.on_thread_start(|| drop(streamfleet_net::work_in_batches()));
    builder.thread_name(name).enable_all().build()
}

/// What a program says on standard output once it listens: one fact a line.
pub fn announce(addresses: &Addresses, token: Option<&str>) {
    let mut out = io::stdout().lock();
    let media: Vec<String> = addresses.media.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "listening on {}://{}\nadmin on http://{}\nmedia on {}\n",
        addresses.scheme,
        addresses.http,
        addresses.admin,
        media.join(" "),
    );
    if let Some(token) = token {
        text.push_str(&format!("admin token: {token}\n"));
    }
    // Without a reader of standard output there is nobody to tell.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
