//! `streamfleet dev`: a worker with every built-in handler, and the page that shows them.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use streamfleet_process::telemetry::Program;
use streamfleet_worker::config::{HandlerConfig, ServiceConfig, WorkerConfig};
use streamfleet_worker::program;
use streamfleet_worker::worker::Addresses;

use crate::demo::{self, Offered, page};

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
    #[command(flatten)]
    demo: demo::Choices,
    /// HTTPS with a certificate made on the spot
    #[arg(long)]
    tls: bool,
    /// What to log, as `info` or `streamfleet_worker=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

pub(crate) fn run(args: Args) -> ExitCode {
    match args.demo.folder() {
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
    let offered = match args.demo.services(&registry, folder) {
        Ok(offered) => offered,
        Err(problem) => {
            tell(&problem);
            return ExitCode::from(program::EXIT_CONFIG);
        }
    };
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
    let page = page::config(&registry, &offered);
    loaded.config.services = offered.into_iter().map(service).collect();
    if args.tls {
        loaded.config.tls.self_signed = demo::names(&loaded.config.media.advertise);
    }
    let plan = match loaded.build(|config| program::plan(config, &registry, None)) {
        Ok(plan) => plan,
        Err(mistakes) => {
            mistakes.iter().for_each(|mistake| tell(&mistake.to_string()));
            return ExitCode::from(program::EXIT_CONFIG);
        }
    };
    let process = Program { name: "streamfleet", version: env!("CARGO_PKG_VERSION") };
    program::serve(plan, &registry, process, |_| page::routes(page), announce)
}

fn service(offered: Offered) -> ServiceConfig {
    ServiceConfig {
        name: offered.name.parse().ok(),
        path: offered.path.parse().ok(),
        aliases: offered.aliases.iter().filter_map(|alias| alias.parse().ok()).collect(),
        handler: HandlerConfig { name: offered.handler, config: offered.config },
        ..ServiceConfig::default()
    }
}

fn announce(addresses: &Addresses, token: Option<&str>) {
    program::announce(addresses, token);
    let mut out = std::io::stdout().lock();
    let url = demo::page_url(addresses.scheme, addresses.http);
    // Without a reader of standard output there is nobody to tell.
    drop(writeln!(out, "open {url}").and_then(|()| out.flush()));
}

fn tell(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
