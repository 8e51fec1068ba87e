//! A router as a program: flags, environment and a file in, an exit code out.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use clap::Parser;
use streamfleet_process::admin::Admin;
use streamfleet_process::config::Mistakes;
use streamfleet_process::exit::{EXIT_CONFIG, fail, refuse};
use streamfleet_process::readiness::Readiness;
use streamfleet_process::serve::Listener;
use streamfleet_process::signals::Signals;
use streamfleet_process::tasks::Subsystems;
use streamfleet_process::telemetry::{Metrics, Program, Telemetry};
use streamfleet_process::tls::Certificate;
use streamfleet_process::{crypto, tls};
use streamfleet_session::ufrag::Seal;
use streamfleet_store::Store;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{RouterConfig, RouterPlan};
use crate::forward::Upstream;
use crate::hold as calls;
use crate::http::{self, Parts};
use crate::kubernetes;
use crate::kubernetes::contact::Contact;
use crate::kubernetes::public::Board;
use crate::kubernetes::services::{Counts, Followed};
use crate::kubernetes::vault::Vault;
use crate::leave::{self, Ended};
use crate::relay::{Candidates, Minting, Opening, Relay};
use crate::roster::{self, Means, Roster};
use crate::secret::Secrets;
use crate::sockets::Sockets;
use crate::{sight, tell, web};

/// Who wait for workers to tell the store what they have, of each kind: half as many as may have a socket that has said nothing yet, and together with
/// bodies of 128 MB.
const MAX_SETTLING: usize = 512;

/// Tasks end at once when told to; a release that is under way is given this.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The router: takes what clients ask and passes it on to the workers of a fleet.
///
/// Every key of the configuration file can also be given as an environment variable: `admin.listen` is
/// `STREAMFLEET_ADMIN_LISTEN`. Flags win over variables, variables over the file.
#[derive(Parser, Debug)]
#[command(name = "streamfleet-router", version)]
pub struct Flags {
    /// YAML file with the configuration.
    #[arg(long, env = "STREAMFLEET_CONFIG")]
    config: Option<PathBuf>,
    /// Address of HTTP.
    #[arg(long)]
    listen: Option<String>,
    /// Address of probes and metrics.
    #[arg(long)]
    admin_listen: Option<String>,
    /// Files with services, or folders of them, comma-separated.
    #[arg(long, value_delimiter = ',')]
    services: Vec<String>,
    /// What to log, as `info` or `streamfleet_router=debug`.
    #[arg(long)]
    log: Option<String>,
}

/// Where a router listens, once it does.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// HTTP.
    pub http: SocketAddr,
    /// Probes and metrics.
    pub admin: SocketAddr,
    /// Media of clients, if it comes by this router.
    pub relay: Option<SocketAddr>,
}

/// Why a router does not serve, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Its services cannot be used.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// A socket could not be bound, or a part of it failed.
    #[error("{0}")]
    Failed(String),
}

impl From<Mistakes> for Stopped {
    fn from(mistakes: Mistakes) -> Self {
        Self::Mistakes(mistakes)
    }
}

fn failed(error: impl std::fmt::Display) -> Stopped {
    Stopped::Failed(error.to_string())
}

/// Runs a router until it is told to stop.
#[must_use]
pub fn run() -> ExitCode {
    match Flags::try_parse() {
        Ok(flags) => {
            let program = Program { name: "streamfleet-router", version: env!("CARGO_PKG_VERSION") };
            run_as(flags, program, Router::new())
        }
        Err(error) => {
            let code = if error.use_stderr() { EXIT_CONFIG } else { 0 };
            // A closed terminal is no reason to fail differently.
            drop(error.print());
            ExitCode::from(code)
        }
    }
}

/// Runs a router as these flags say, with `pages` beside its services, until it is told to stop.
#[must_use]
pub fn run_as(flags: Flags, program: Program, pages: Router) -> ExitCode {
    let mut layers = RouterConfig::layers()
        .environment(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))));
    if let Some(path) = &flags.config {
        layers = layers.file(path);
    }
    let layers = layers
        .flag("--listen", "listen", flags.listen)
        .flag("--admin-listen", "admin.listen", flags.admin_listen)
        .flag("--log", "log.filter", flags.log)
        .flags("--services", "services", flags.services);
    let plan = match layers.load::<RouterConfig>().build(plan) {
        Ok(plan) => plan,
        Err(mistakes) => return refuse(&mistakes),
    };
    let telemetry = match Telemetry::start(&plan.telemetry, program) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(error),
    };
    let runtime = match Builder::new_multi_thread().thread_name("router").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let metrics = telemetry.metrics().clone();
    metrics.observe_process(streamfleet_net::heap_in_use);
    let run = async { serve(plan, metrics, Signals::install().map_err(failed)?, pages, announce).await };
    let code = match runtime.block_on(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stopped::Mistakes(mistakes)) => refuse(&mistakes),
        Err(Stopped::Failed(error)) => fail(error),
    };
    runtime.shutdown_background();
    telemetry.shutdown();
    code
}

/// Checks a configuration, and the services that it names.
///
/// # Errors
/// Every mistake, by key.
pub fn plan(config: RouterConfig) -> Result<RouterPlan, Mistakes> {
    let services = roster::read(&config.services).map(drop);
    match (config.build(), services) {
        (Ok(plan), Ok(())) => Ok(plan),
        (Err(mut mistakes), Err(found)) => {
            mistakes.extend(found);
            Err(mistakes)
        }
        (Err(mistakes), Ok(())) | (Ok(_), Err(mistakes)) => Err(mistakes),
    }
}

/// Serves from a plan until `signals` say drain, then until what is under way is done or the grace is over.
///
/// `pages` are further routes beside the services'; `ready` is called when it listens.
///
/// # Errors
/// It could not start, or a part of it ended before it was told to.
pub async fn serve(
    plan: RouterPlan,
    metrics: Metrics,
    mut signals: Signals,
    pages: Router,
    ready: impl FnOnce(&Addresses),
) -> Result<(), Stopped> {
    crypto::install();
    let mut listener = Listener::bind(plan.listen).map_err(|error| failed(format!("{}: {error}", plan.listen)))?;
    let mut renewal = None;
    match &plan.certificate {
        None => {}
        Some(Certificate::Files { chain, key }) => {
            let (config, follow) = tls::renewable(chain, key).map_err(failed)?;
            listener = listener.with_tls(config);
            renewal = Some(follow);
        }
        Some(made) => listener = listener.with_tls(tls::server_config(made).map_err(failed)?),
    }
    let admin = Listener::bind(plan.admin_listen).map_err(|error| failed(format!("{}: {error}", plan.admin_listen)))?;
    let cluster = plan.kubernetes;
    let client = if cluster.asks() { Some(kubernetes::connect().await.map_err(failed)?) } else { None };
    let (contact, vault) = (Contact::default(), Vault::new());
    let mut relay = None;
    if let Some(relay_plan) = plan.relay {
        if let (Some(at), Some(client)) = (&cluster.peers, &client) {
            kubernetes::peers::first(client, at, &relay_plan.peers.endpoints).await;
        }
        let endpoints = relay_plan.peers.endpoints.clone();
        let seal = Arc::new(Seal::new(&relay_plan.keys, relay_plan.networks.clone()));
        let told = relay_plan.advertise.clone();
        let opening = Opening::new(seal.clone(), &metrics.meter("relay"));
        let bound = Relay::bind(relay_plan, &opening, &metrics).await.map_err(failed)?;
        let door = bound.door();
        let candidates = match (&cluster.public, told.as_slice()) {
            (Some(_), _) => Vec::new(),
            (None, []) => vec![door],
            (None, told) => told.iter().map(|told| told.at(door.port())).collect(),
        };
        let candidates = Arc::new(Candidates::new(candidates));
        let minting = Arc::new(Minting::new(seal, candidates.clone()));
        relay = Some((bound, (minting, candidates, endpoints)));
    }
    let addresses = Addresses {
        scheme: listener.scheme(),
        http: listener.address(),
        admin: admin.address(),
        relay: relay.as_ref().map(|(relay, _)| relay.door()),
    };
    let readiness = Readiness::new();
    let starting = readiness.hold("starting");
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let store: Arc<dyn Store> = plan.store.open();
    let web = web::client().map_err(failed)?;
    let secrets = match cluster.services {
        Some(_) => Secrets::of(vault.clone()),
        None => Secrets::local(),
    };
    let means = Means { store: store.clone(), http: web.clone(), secrets, tasks: tasks.clone(), stop: stop.clone() };
    let mut subsystems = Subsystems::new();
    let roster = match (cluster.services, &client) {
        (Some(scope), Some(client)) => {
            let (sender, roster) = watch::channel(Arc::new(Roster::unread()));
            let counts = Counts::default();
            counts.observe(&metrics.meter("kubernetes"), &contact);
            let hold = readiness.hold("kubernetes");
            let (client, contact) = (client.clone(), contact.clone());
            until(&mut subsystems, "secrets", &stop, vault.clone().keep(client.clone()));
            let followed = Followed { client, scope, vault, means, roster: sender, counts, hold };
            until(&mut subsystems, "services", &stop, async move { followed.follow(&contact).await });
            roster
        }
        _ => {
            // Read again: what was looked at with the configuration may have changed.
            let (texts, services) = roster::read(&plan.services)?;
            let first = Roster::default().next(services, &means)?;
            let (sender, roster) = watch::channel(Arc::new(first));
            until(&mut subsystems, "services", &stop, roster::follow(plan.services, texts, means, sender));
            roster
        }
    };
    let (relay, told) = relay.unzip();
    if let (Some(public), Some((_, candidates, _))) = (cluster.public, &told) {
        let port = relay.as_ref().map_or(0, |relay| relay.door().port());
        kubernetes::public::observe(&metrics.meter("kubernetes"), candidates, roster.clone());
        let board = Board::new(port, candidates.clone(), readiness.clone());
        let follow = kubernetes::public::follow(public, client.clone(), contact.clone(), board);
        until(&mut subsystems, "addresses", &stop, follow);
    }
    let (told_to_serve, serve) = watch::channel(None);
    if let (Some(at), Some((_, _, endpoints)), Some(client)) = (cluster.peers, &told, &client) {
        let follow = kubernetes::peers::follow(client.clone(), at, contact.clone(), endpoints.clone(), told_to_serve);
        until(&mut subsystems, "relays", &stop, follow);
    }
    if client.is_some() {
        until(&mut subsystems, "kubernetes", &stop, contact.tell(readiness.clone()));
    }
    let minting = told.map(|(minting, ..)| minting);
    let more = relay.as_ref().map(|relay| relay.view().route(plan.access.admin_token.clone())).unwrap_or_default();
    let traffic = relay.as_ref().map(Relay::traffic);
    let serve = relay.as_ref().map(|_| serve);
    if let Some(relay) = relay {
        let stop = stop.clone();
        subsystems.spawn(leave::RELAY, async move { stop.run_until_cancelled(relay.run()).await.unwrap_or(Ok(())) });
    }
    if let Some(renewal) = renewal {
        until(&mut subsystems, "certificate", &stop, renewal.follow());
    }
    let seen = roster.clone();
    let see = move |now| seen.borrow().desks().map(|desk| desk.directory.now().freshness(now)).collect();
    until(&mut subsystems, "readiness", &stop, sight::tell(see, readiness.clone(), serve));
    let hold = calls::Hold::default();
    until(&mut subsystems, "held calls", &stop, tell::tell(hold.clone(), store.clone(), metrics.meter("router")));
    let sockets = Sockets::new(plan.sockets);
    let leaving = CancellationToken::new();
    let parts = Parts {
        hold,
        store,
        roster,
        upstream: Upstream::new(),
        secret: plan.secret,
        sockets: sockets.clone(),
        http: web,
        access: plan.access,
        relay: minting,
        streams: plan.serve.connections.get() / 2,
        settling: MAX_SETTLING,
        tasks: tasks.clone(),
        stop: stop.clone(),
        leaving: leaving.clone(),
    };
    let routes = pages.fallback_service(http::router(parts, &metrics.meter("router")));
    ready(&addresses);
    let http_grace = plan.termination_grace.saturating_sub(plan.notice);
    let stop_http = leaving;
    subsystems.spawn(leave::HTTP, listener.serve(routes, plan.serve, stop_http.clone(), http_grace));
    let stopping = subsystems.stopping();
    let probes = Admin { readiness: readiness.clone(), metrics };
    probes.start_with(more, admin, &mut subsystems, stopping).map_err(failed)?;
    drop(starting);
    tracing::info!("ready");
    tokio::select! {
        _ = signals.next() => {}
        Some(exit) = subsystems.next_exit() => return Err(failed(exit)),
    }
    let deadline = Instant::now() + plan.termination_grace;
    // Load balancers look at this: what comes when they have noticed goes to another router.
    readiness.hold("draining").forever();
    tracing::info!(grace = ?plan.termination_grace, "draining");
    let ended = Ended::default();
    let drained = async {
        sleep(plan.notice).await;
        stop_http.cancel();
        ended.http().await;
        // No more come: those that are there are conversations, and have what is left of the grace.
        sockets.drain(deadline).await;
        // Nor does media, where somebody before this router looks whether it is ready: what still comes would be lost.
        if let Some(traffic) = traffic.filter(|_| !plan.notice.is_zero()) {
            ended.media(traffic.has_gone(), deadline).await;
        }
    };
    tokio::select! {
        () = drained => {}
        () = ended.follow(&mut subsystems) => {}
        _ = signals.next() => {
            tracing::warn!("leaving at once");
            stop_http.cancel();
            sockets.drain(Instant::now()).await;
        }
    }
    stop.cancel();
    tasks.close();
    let _ = tokio::time::timeout(STOP_GRACE, tasks.wait()).await;
    for exit in subsystems.stop(STOP_GRACE).await.iter().filter(|exit| !exit.is_clean()) {
        tracing::warn!(%exit, "a part did not stop cleanly");
    }
    Ok(())
}

/// A part of the process that goes on until it is told to stop.
fn until(
    subsystems: &mut Subsystems,
    name: &'static str,
    stop: &CancellationToken,
    part: impl Future<Output = ()> + Send + 'static,
) {
    let stop = stop.clone();
    subsystems.spawn(name, async move {
        stop.run_until_cancelled(part).await;
        io::Result::Ok(())
    });
}

/// What the program says on standard output once it listens: one fact a line.
fn announce(addresses: &Addresses) {
    let Addresses { scheme, http, admin, relay } = addresses;
    let relay = relay.map(|relay| format!("media on {relay}\n")).unwrap_or_default();
    let text = format!("listening on {scheme}://{http}\nadmin on http://{admin}\n{relay}");
    let mut out = io::stdout().lock();
    // Without a reader of standard output there is nobody to tell.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
