//! The operator as a program: flags, environment and a file in, an exit code out.

use std::future::Future;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use kube::api::{Api, ListParams};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use parking_lot::Mutex;
use streamfleet_process::admin::Admin;
use streamfleet_process::config::Layers;
use streamfleet_process::crypto;
use streamfleet_process::exit::{EXIT_CONFIG, fail, refuse};
use streamfleet_process::readiness::Readiness;
use streamfleet_process::serve::Listener;
use streamfleet_process::signals::Signals;
use streamfleet_process::tasks::Subsystems;
use streamfleet_process::telemetry::{Program, Telemetry};
use streamfleet_service::resource::{StreamService, definition_yaml};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, DEADLINE, LEASE_DEADLINE};
use crate::config::{OperatorConfig, OperatorPlan};
use crate::due::Due;
use crate::events::Reporter;
use crate::kind::Kind;
use crate::leader::{Which, lead};
use crate::lease::Terms;
use crate::metrics::Instruments;
use crate::operator::Operator;
use crate::prepare::Installation;
use crate::requests::Counting;
use crate::watch::{Told, Watches};

/// The last writes are given this, and then the lease is read and given back. Pods have more (`terminationGracePeriodSeconds`).
const STOP_GRACE: Duration = DEADLINE.saturating_add(LEASE_DEADLINE).saturating_add(LEASE_DEADLINE);
/// How often it is asked whether a kind is there, and the first pause between; each is twice as long.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// For a connection to the API server to be made.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing is said for so long leads nowhere: watches are ended by the API server before that.
pub(crate) const SILENCE: Duration = Duration::from_secs(40);
/// Who tells, in Events.
const CONTROLLER: &str = "streamfleet.dev/operator";
/// Names that `check-empty` tells of at most.
const NAMED: usize = 20;

/// The operator: makes StreamServices into workers, as many as are needed, and ends none that has a call.
///
/// Every key of the configuration file can also be given as an environment variable: `admin.listen` is
/// `STREAMFLEET_ADMIN_LISTEN`. Variables win over the file.
#[derive(Parser, Debug)]
#[command(name = "streamfleet-operator", version)]
struct Flags {
    /// YAML file with the configuration.
    #[arg(long, env = "STREAMFLEET_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// What to log, as `info` or `streamfleet_operator=debug`.
    #[arg(long)]
    log: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug, Clone)]
enum Command {
    /// Print the CustomResourceDefinition of StreamServices.
    Definition,
    /// Say whether there are StreamServices in the operator's namespaces: exit 0 if there are none, else name them and exit 1.
    CheckEmpty,
}

/// Runs what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_CONFIG } else { 0 };
            // A closed terminal is no reason to fail differently.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match &flags.command {
        None => operate(&flags),
        Some(Command::Definition) => {
            let printed = io::stdout().lock().write_all(definition_yaml().as_bytes());
            printed.map_or_else(fail, |()| ExitCode::SUCCESS)
        }
        Some(Command::CheckEmpty) => check_empty(&flags),
    }
}

fn layers(flags: &Flags) -> Layers {
    let mut layers = OperatorConfig::layers()
        .environment(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))));
    if let Some(path) = &flags.config {
        layers = layers.file(path);
    }
    layers.flag("--log", "log.filter", flags.log.clone())
}

fn operate(flags: &Flags) -> ExitCode {
    let plan = match layers(flags).load::<OperatorConfig>().build(OperatorConfig::build) {
        Ok(plan) => plan,
        Err(mistakes) => return refuse(&mistakes),
    };
    let program = Program { name: "streamfleet-operator", version: env!("CARGO_PKG_VERSION") };
    let telemetry = match Telemetry::start(&plan.telemetry, program) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(error),
    };
    let runtime = match Builder::new_multi_thread().worker_threads(2).thread_name("operator").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let code = match runtime.block_on(serve(plan, &telemetry)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    };
    runtime.shutdown_background();
    telemetry.shutdown();
    code
}

async fn serve(plan: OperatorPlan, telemetry: &Telemetry) -> Result<(), String> {
    crypto::install();
    let mut signals = Signals::install().map_err(|error| error.to_string())?;
    let admin = Listener::bind(plan.admin_listen).map_err(|error| format!("{}: {error}", plan.admin_listen))?;
    let metrics = telemetry.metrics().clone();
    metrics.observe_process(streamfleet_net::heap_in_use);
    let due: Arc<Mutex<Due>> = Arc::default();
    let instruments = Instruments::new(&metrics, due.clone());
    let readiness = Readiness::new();
    let starting = readiness.hold("starting");
    let mut subsystems = Subsystems::new();
    let stop = subsystems.stopping();
    Admin { readiness, metrics }.start(admin, &mut subsystems, stop.clone()).map_err(|error| error.to_string())?;
    let (client, namespace) = client(Some(&instruments)).await?;
    let cluster = Cluster::new(client.clone());
    let identity = plan.lease.identity.clone().unwrap_or_else(|| format!("operator-{:x}", rand::random::<u64>()));
    let which = Which {
        namespace: plan.lease.namespace.clone().unwrap_or_else(|| namespace.clone()),
        name: plan.lease.name.clone(),
        identity: identity.clone(),
        terms: Terms { duration: plan.lease.duration, deadline: plan.lease.deadline, retry: plan.lease.retry },
    };
    let (sender, leads) = watch::channel(None);
    let release = CancellationToken::new();
    subsystems.spawn("lease", lead(cluster.clone(), which, sender, instruments.clone(), release.clone()));
    drop(starting);
    let given = Given { client, cluster, namespace, identity, instruments, due, leads };
    subsystems.spawn("operator", before(operate_when_leading(plan, given, stop), release));
    tokio::select! {
        _ = signals.next() => {}
        Some(exit) = subsystems.next_exit() => return Err(exit.to_string()),
    }
    tracing::info!("stopping");
    for exit in subsystems.stop(STOP_GRACE).await.iter().filter(|exit| !exit.is_clean()) {
        tracing::warn!(%exit, "a part did not stop cleanly");
    }
    Ok(())
}

/// What others wait for is told when something has ended as it should. What failed may have left something under way.
async fn before<E>(first: impl Future<Output = Result<(), E>>, then: CancellationToken) -> Result<(), E> {
    first.await?;
    then.cancel();
    Ok(())
}

struct Given {
    client: Client,
    cluster: Cluster,
    namespace: String,
    identity: String,
    instruments: Instruments,
    due: Arc<Mutex<Due>>,
    leads: watch::Receiver<Option<Instant>>,
}

struct Operating {
    operator: Arc<Operator>,
    watches: Watches,
    address: BoxFuture<'static, ()>,
    concurrency: NonZeroUsize,
}

/// Until `stop`, and then until nothing is under way any more.
async fn operate_when_leading(plan: OperatorPlan, given: Given, stop: CancellationToken) -> Result<(), String> {
    // Nothing is written before all is known.
    let Some(operating) = stop.run_until_cancelled(begin_when_leading(plan, given)).await else { return Ok(()) };
    let Operating { operator, mut watches, address, concurrency } = operating;
    tokio::select! {
        () = operator.run(concurrency, stop) => Ok(()),
        () = watches.ended() => Err("a watch has ended".to_owned()),
        () = address => Err("the routers' address is not followed any more".to_owned()),
    }
}

/// One that waits for the lease watches nothing: all that it would keep would be there twice.
async fn begin_when_leading(plan: OperatorPlan, given: Given) -> Operating {
    let Given { client, cluster, namespace, identity, instruments, due, mut leads } = given;
    // The sender is the lease's task, whose end ends the process.
    if leads.wait_for(Option::is_some).await.is_err() {
        return std::future::pending().await;
    }
    let mut site = plan.site;
    if site.router_namespace.is_empty() {
        site.router_namespace = namespace;
    }
    site.ipv6 = std::env::var("KUBERNETES_SERVICE_HOST").is_ok_and(|host| host.contains(':'));
    let mut kinds = Kind::BUILT_IN.to_vec();
    site.pod_monitors = is_served(&cluster, Kind::PodMonitor).await;
    kinds.extend(site.pod_monitors.then_some(Kind::PodMonitor));
    let routers = site.router_namespace.clone();
    let installation = Installation {
        site,
        secret: plan.secret,
        service_users: plan.service_users,
        image: plan.worker_image,
        public_url: plan.public_url,
    };
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: identity };
    let (store, users) = plan.store.open_with_users();
    let store = (store, users.filter(|_| plan.service_users));
    let operator = Operator::new(cluster, store, installation, instruments, due, leads, reporter);
    let operator = Arc::new(operator);
    let told: Arc<dyn Told> = operator.clone();
    let address = match plan.router_service.filter(|_| operator.public_url().is_none()) {
        Some(name) => crate::address::follow(client.clone(), routers, name, operator.clone()).boxed(),
        None => std::future::pending().boxed(),
    };
    let watches = Watches::start(&client, &plan.namespaces, &kinds, &told);
    watches.told_all().await;
    tracing::info!("what there is is known");
    Operating { operator, watches, address, concurrency: plan.concurrency }
}

/// Whether the API server knows a kind. One that is installed later is seen by the next operator that leads. Whoever does not say is asked
/// again, but not for ever: services need their workers more than anybody needs that kind.
async fn is_served(cluster: &Cluster, kind: Kind) -> bool {
    let mut pause = FIRST_PAUSE;
    for again in (0..TRIES).rev() {
        match cluster.serves(kind).await {
            Ok(is_served) => return is_served,
            Err(error) if again > 0 => tracing::debug!(%error, kind = kind.name(), "not told whether it is there"),
            Err(error) => {
                tracing::warn!(%error, kind = kind.name(), "not told whether it is there: none is made until another operator leads");
                return false;
            }
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    false
}

/// A client of the API server, as the surroundings say, and the namespace that this runs in.
async fn client(instruments: Option<&Instruments>) -> Result<(Client, String), String> {
    crypto::install();
    let mut config = Config::infer().await.map_err(|error| format!("no API server: {error}"))?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    let namespace = config.default_namespace.clone();
    let client = match instruments {
        Some(instruments) => counted(config, instruments)?,
        None => Client::try_from(config).map_err(|error| error.to_string())?,
    };
    Ok((client, namespace))
}

/// A client whose requests are counted, each for itself.
fn counted(mut config: Config, instruments: &Instruments) -> Result<Client, String> {
    // kube would send again what is answered with 429, 503 or 504, fifteen times and within one of our deadlines: an API server that says
    // that it cannot would look like one that says nothing. Whoever asks here asks again by himself, and later.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).map_err(|error| error.to_string())?;
    Ok(builder.with_layer(&Counting(instruments.clone())).build())
}

/// Of the configuration only `namespaces` matters here: one that the operator could not start with must not keep it from being
/// taken away.
fn check_empty(flags: &Flags) -> ExitCode {
    let namespaces = layers(flags).load::<OperatorConfig>().config.namespaces;
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(remaining(&namespaces)) {
        Ok(remaining) => remaining.verdict().map_or_else(fail, |()| ExitCode::SUCCESS),
        Err(error) => fail(error),
    }
}

/// What keeps an operator from being taken away.
#[derive(Debug, Default)]
struct Remaining {
    /// The StreamServices that there are.
    names: Vec<String>,
    /// Namespaces in which nobody may look. A namespace that is deleted takes the Role with it: RBAC refuses before anybody says that it
    /// is not there, and without a right to read namespaces the two look alike.
    closed: Vec<String>,
}

async fn remaining(namespaces: &[String]) -> Result<Remaining, String> {
    let (client, _) = client(None).await?;
    let scopes: Vec<(Option<&String>, Api<StreamService>)> = match namespaces {
        [] => vec![(None, Api::all(client))],
        some => some.iter().map(|name| (Some(name), Api::namespaced(client.clone(), name))).collect(),
    };
    let mut found = Remaining::default();
    for (namespace, api) in scopes {
        match api.list(&ListParams::default()).await {
            Ok(list) => found.names.extend(list.items.iter().map(|service| {
                let metadata = &service.metadata;
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
            })),
            // Without the definition there are none.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => match (&error, namespace) {
                (kube::Error::Api(status), Some(namespace)) if status.code == 403 => {
                    found.closed.push(namespace.clone());
                }
                _ => return Err(error.to_string()),
            },
        }
    }
    found.names.sort();
    Ok(found)
}

impl Remaining {
    /// Whether nothing remains, or what there is to be done.
    fn verdict(&self) -> Result<(), String> {
        let Self { names, closed } = self;
        let mut told = Vec::new();
        if !names.is_empty() {
            told.push(still_there(names));
        }
        if !closed.is_empty() {
            told.push(format!(
                "StreamServices may not be listed in the namespaces {}. Where such a namespace is there, give its Role back (helm rollback, or \
                 helm upgrade). Where it has been deleted and is gone, nothing in it needs the operator{}.",
                closed.join(", "),
                if names.is_empty() { ": helm uninstall --no-hooks" } else { "" },
            ));
        }
        if told.is_empty() { Ok(()) } else { Err(told.join("\n")) }
    }
}

fn still_there(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut text = format!(
        "There are StreamServices, whose workers would be left without an operator: delete them first.\n  {}",
        names[..names.len() - more].join("\n  ")
    );
    if more > 0 {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Flags::command().debug_assert();
    }

    /// The lease was given back while a last write waited for a webhook, and the next operator had begun when it was obeyed.
    #[tokio::test]
    async fn the_lease_is_given_back_when_nothing_is_under_way_any_more() {
        let (release, failed) = (CancellationToken::new(), CancellationToken::new());
        let (sender, under_way) = tokio::sync::oneshot::channel::<()>();
        let operating = before(async { under_way.await.map_err(|error| error.to_string()) }, release.clone());
        let (ended, ()) = tokio::join!(operating, async {
            assert!(!release.is_cancelled());
            sender.send(()).unwrap();
        });
        assert!(ended.is_ok() && release.is_cancelled());
        assert!(before(async { Err("a watch has ended") }, failed.clone()).await.is_err() && !failed.is_cancelled());
    }

    /// An API server that was slow for a moment was taken for one that has no such kind, for as long as the operator led.
    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_what_there_is_is_asked_again() {
        let check = async |codes: &[u16], expected: (bool, usize)| {
            let (said, asked) = (codes.to_vec(), Arc::new(AtomicUsize::new(0)));
            let count = asked.clone();
            let server = tower::service_fn(move |_: http::Request<kube::client::Body>| {
                let nth = count.fetch_add(1, Ordering::Relaxed);
                let code = said[nth.min(said.len() - 1)];
                let body = match code {
                    200 => {
                        json!({ "kind": "APIResourceList", "groupVersion": "monitoring.coreos.com/v1", "resources": [{
                        "name": "podmonitors", "singularName": "", "namespaced": true, "kind": "PodMonitor", "verbs": [] }] })
                    }
                    _ => json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": "", "code": code }),
                };
                let body = kube::client::Body::from(body.to_string().into_bytes());
                async move { Ok::<_, Infallible>(http::Response::builder().status(code).body(body).unwrap()) }
            });
            let cluster = Cluster::new(Client::new(server, "voice"));
            assert_eq!(
                (is_served(&cluster, Kind::PodMonitor).await, asked.load(Ordering::Relaxed)),
                expected,
                "{codes:?}"
            );
        };
        check(&[200], (true, 1)).await;
        check(&[404], (false, 1)).await;
        check(&[503, 500, 200], (true, 3)).await;
        check(&[503], (false, 4)).await;
    }

    /// An API server that was busy was taken for a webhook that hangs, twelve seconds later.
    #[tokio::test]
    async fn who_says_that_it_cannot_now_is_believed() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        crypto::install();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 4096]).await;
                let body =
                    json!({ "kind": "Status", "status": "Failure", "message": "busy", "reason": "", "code": 503 });
                let body = body.to_string();
                let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-type: application/json";
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        };
        let metrics = streamfleet_process::telemetry::Metrics::new("t", "0");
        let client = counted(Config::new(address), &Instruments::new(&metrics, Arc::default())).unwrap();
        let begun = Instant::now();
        let answer = tokio::select! {
            () = server => None,
            answer = async { Cluster::new(client).serves(Kind::PodMonitor).await } => Some(answer),
        };
        assert_eq!(answer, Some(Err(crate::cluster::Refusal::Away("busy".to_owned()))));
        // kube's own first pause would be half a second, and each is longer.
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    #[test]
    fn what_is_still_there_is_named() {
        let names: Vec<String> = (0..22).map(|n| format!("voice/s{n}")).collect();
        let text = still_there(&names);
        assert!(text.contains("voice/s19\n  and 2 more") && !text.contains("voice/s20"), "{text}");
        assert!(still_there(&names[..1]).ends_with("voice/s0"));
    }

    /// A namespace that was deleted with its Role must not keep a release for ever, and one that is there must not be taken for it.
    #[test]
    fn where_nobody_may_look_is_told() {
        let verdict = |names: &[&str], closed: &[&str]| {
            let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
            Remaining { names: list(names), closed: list(closed) }.verdict()
        };
        assert_eq!(verdict(&[], &[]), Ok(()));
        let gone = verdict(&[], &["sales"]).unwrap_err();
        assert!(gone.contains("namespaces sales.") && gone.contains("helm uninstall --no-hooks"), "{gone}");
        let both = verdict(&["voice/echo"], &["sales"]).unwrap_err();
        assert!(both.contains("voice/echo") && both.contains("sales") && !both.contains("--no-hooks"), "{both}");
    }
}
