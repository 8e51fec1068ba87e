//! `streamfleet dev`: a worker with every built-in handler, and the page that shows them.

mod melody;
mod page;
mod scratch;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use streamfleet_handler::Registry;
use streamfleet_process::telemetry::Program;
use streamfleet_session::PathPrefix;
use streamfleet_worker::config::{HandlerConfig, ServiceConfig, WorkerConfig};
use streamfleet_worker::program;
use streamfleet_worker::worker::Addresses;

use self::scratch::Scratch;

/// Serve every built-in handler, and a page to try them
///
/// Needs nothing else: no Redis, no Kubernetes. Each handler is at /NAME, the default one also at /. Environment
/// variables are read as by the worker: `media.udp` is STREAMFLEET_MEDIA_UDP.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Exit status:
  0   told to stop, and every session is over
  1   a port is taken, or a part of the process failed
  64  the command line or the configuration cannot be used

Examples:
  streamfleet dev
  streamfleet dev --tls --listen 0.0.0.0:8443      a phone on the same network gets a microphone
  streamfleet dev --default echo-frames --play greeting.wav")]
pub(crate) struct Args {
    /// Address of the page and of HTTP
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen: String,
    /// UDP address of the first media loop; each further loop takes the next port
    #[arg(long, value_name = "ADDR")]
    udp: Option<String>,
    /// Addresses that clients are told to send media to; default: those of this machine
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    advertise: Vec<String>,
    /// Media loops; default: the cores that the process may use
    #[arg(long, value_name = "N")]
    loops: Option<String>,
    /// Address of probes and metrics
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDR")]
    admin_listen: String,
    /// The handler that is also at /
    #[arg(long, default_value = "echo", value_name = "NAME")]
    default: String,
    /// HTTPS with a certificate made on the spot
    #[arg(long)]
    tls: bool,
    /// What `playback` plays (WAV or Ogg Opus); default: a melody
    #[arg(long, value_name = "FILE")]
    play: Option<PathBuf>,
    /// Where `recorder` records; default: a folder that goes with the process
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
    /// What to log, as `info` or `streamfleet_worker=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

pub(crate) fn run(args: Args) -> ExitCode {
    match prepare(&args) {
        Ok(folder) => {
            let code = serve(&args, folder.path());
            drop(folder);
            code
        }
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::from(program::EXIT_FAILED)
        }
    }
}

fn serve(args: &Args, folder: &Path) -> ExitCode {
    let registry = streamfleet_pause::builtin::registry();
    if registry.iter().all(|(name, _)| name != args.default) {
        let names: Vec<&str> = registry.iter().map(|(name, _)| name).collect();
        tell(&format!("--default: there is no handler {:?}; there are {}", args.default, names.join(", ")));
        return ExitCode::from(program::EXIT_CONFIG);
    }
    let mut layers = WorkerConfig::layers()
        .environment(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))
        .flag("--listen", "listen", Some(args.listen.clone()))
        .flag("--udp", "media.udp", args.udp.clone())
        .flag("--loops", "media.loops", args.loops.clone())
        .flag("--admin-listen", "admin.listen", Some(args.admin_listen.clone()))
        .flag("--log", "log.filter", args.log.clone());
    if !args.advertise.is_empty() {
        layers = layers.flags("--advertise", "media.advertise", args.advertise.clone());
    }
    let mut loaded = layers.load::<WorkerConfig>();
    loaded.config.services = services(&registry, args, folder);
    if args.tls {
        loaded.config.tls.self_signed = names(&loaded.config.media.advertise);
    }
    let offered = page::config(&registry, &loaded.config.services, &args.default);
    let plan = match loaded.build(|config| program::plan(config, &registry, None)) {
        Ok(plan) => plan,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| tell(&mistake.to_string()));
            return ExitCode::from(program::EXIT_CONFIG);
        }
    };
    let process = Program { name: "streamfleet", version: env!("CARGO_PKG_VERSION") };
    program::serve(plan, &registry, process, |_| page::routes(offered), announce)
}

/// Every handler at its name; the default one at the root as well.
fn services(registry: &Registry, args: &Args, folder: &Path) -> Vec<ServiceConfig> {
    let play = args.play.clone().unwrap_or_else(|| folder.join(MELODY));
    let record = args.record.clone().unwrap_or_else(|| folder.to_owned());
    let mut services = Vec::new();
    for (name, _) in registry.iter() {
        let config = match name {
            "playback" => json!({ "path": play, "loop": true }),
            "recorder" => json!({ "folder": record, "folder_mib": 256 }),
            _ => Value::Null,
        };
        let mut service = ServiceConfig {
            name: name.parse().ok(),
            path: format!("/{name}").parse().ok(),
            handler: HandlerConfig { name: name.to_owned(), config },
            ..ServiceConfig::default()
        };
        if name == args.default {
            service.aliases.push(PathPrefix::root());
        }
        services.push(service);
    }
    services
}

/// Names for the certificate: what a browser on this machine or on its network will type.
fn names(advertised: &[IpAddr]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    let addresses =
        if advertised.is_empty() { streamfleet_net::interfaces().unwrap_or_default() } else { advertised.to_vec() };
    names.extend(addresses.iter().map(ToString::to_string));
    names
}

const MELODY: &str = "melody.wav";

fn prepare(args: &Args) -> anyhow::Result<Scratch> {
    use anyhow::Context;
    let parent = std::env::temp_dir();
    let folder = Scratch::new(&parent).with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    if args.play.is_none() {
        let file = folder.path().join(MELODY);
        melody::write(&file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(folder)
}

fn announce(addresses: &Addresses, token: Option<&str>) {
    program::announce(addresses, token);
    let http: SocketAddr = addresses.http;
    let host = if http.ip().is_unspecified() { "localhost".to_owned() } else { host(http.ip()) };
    let mut out = std::io::stdout().lock();
    // Without a reader of standard output there is nobody to tell.
    drop(writeln!(out, "open {}://{host}:{}/", addresses.scheme, http.port()).and_then(|()| out.flush()));
}

fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn tell(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
