//! `streamfleet fleet`: routers and workers on one machine.
//!
//! | module | noun |
//! |---|---|
//! | [`layout`] | which part listens where |
//! | [`parts`] | what each part is told: its environment |
//! | [`check`] | what is wrong with that, before any part is started |
//! | [`redis`] | where the store is |
//! | [`together`] | all parts in this process, on a store in its memory |
//! | [`apart`] | a process for each part, on a Redis |

mod apart;
mod check;
mod layout;
mod parts;
mod redis;
mod together;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use streamfleet_process::config::Mistakes;
use streamfleet_service::spec::{Exposure, MAX_SESSIONS_PER_WORKER};
use streamfleet_service::{API_VERSION, KIND, Service, files};
use streamfleet_worker::program::{EXIT_CONFIG, EXIT_FAILED};
use streamfleet_worker::worker::reachable;

use self::layout::{Layout, Wanted};
use self::parts::{Common, Relays};
use self::redis::RedisAt;
use crate::demo::{self, Offered, Scratch, page};

/// Sessions that a worker takes of a service of the demo: as many as there may be, so that only load limits it.
const DEMO_SESSIONS: u32 = MAX_SESSIONS_PER_WORKER;

/// Serve with routers and workers, as a fleet does, on this machine
///
/// Clients call any router; it places each session on a worker. Without --redis all of it is one process and needs nothing else.
/// With --redis every part is a process of its own, which may be killed: it is started again, a worker under a new name.
/// Without --services every built-in handler is served, each at /NAME, and the default one also at /. Environment variables are
/// read as by routers and workers.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Exit status:
  0   told to stop, and every session is over
  1   a port is taken, the Redis does not answer, or a part failed
  64  the command line or the configuration cannot be used

Examples:
  streamfleet fleet
  streamfleet fleet --tls --listen 0.0.0.0:8443    a phone on the same network gets a microphone
  streamfleet fleet --redis 127.0.0.1:6379 --routers 3 --workers 4
  streamfleet fleet --services services.yaml")]
pub(crate) struct Args {
    /// Routers; more than one need --redis
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=layout::MOST))]
    routers: u16,
    /// Workers
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=layout::MOST))]
    workers: u16,
    /// Address of the first router; each further one takes the next port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A Redis 7 that all parts share: HOST:PORT or redis[s]://[USER:PASSWORD@]HOST:PORT
    #[arg(long, value_name = "URL", env = "STREAMFLEET_REDIS", hide_env_values = true)]
    redis: Option<RedisAt>,
    /// Files with StreamServices, or folders of them, comma-separated
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    services: Vec<PathBuf>,
    #[command(flatten)]
    demo: demo::Choices,
    /// Address of the first router's probes and metrics; each further router, then each worker takes the next port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin_listen: SocketAddr,
    /// UDP address that all media comes to: the routers' relays have it together, and pass it on to workers
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:5000")]
    udp: SocketAddr,
    /// Addresses that clients are told to send media to; default: those of this machine
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    advertise: Vec<IpAddr>,
    /// Media loops of each worker; default: an equal part of the cores
    #[arg(long, value_name = "N")]
    loops: Option<NonZeroUsize>,
    /// HTTPS with a certificate made on the spot
    #[arg(long)]
    tls: bool,
    /// What to log, as `info` or `streamfleet_worker=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let folder = match args.demo.folder() {
        Ok(folder) => folder,
        Err(error) => {
            tell(&format!("{error:#}"));
            return ExitCode::from(EXIT_FAILED);
        }
    };
    let code = match prepare(args, &folder) {
        Ok(fleet) => match &args.redis {
            Some(_) => apart::run(&fleet, folder.path()),
            None => together::run(fleet),
        },
        Err(mistakes) => refuse(&mistakes),
    };
    // What is played and recorded goes after whoever plays and records.
    drop(folder);
    code
}

/// A fleet that can be started.
struct Fleet {
    layout: Layout,
    common: Common,
    /// What the page offers.
    page: Value,
}

fn prepare(args: &Args, folder: &Scratch) -> Result<Fleet, Mistakes> {
    let mut mistakes = Mistakes::new();
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let wanted = Wanted {
        routers: args.routers,
        workers: args.workers,
        listen: args.listen,
        admin: args.admin_listen,
        udp: args.udp,
        loops: args.loops,
    };
    let layout = wanted.layout(cores);
    if args.redis.is_none() && args.routers > 1 {
        mistakes.push("--routers", format!("{} routers need a Redis that they share: --redis", args.routers));
    }
    let registry = streamfleet_pause::builtin::registry();
    let offer = offer(args, &registry, folder, &mut mistakes);
    let layout = layout.map_err(|found| mistakes.extend(found)).ok();
    let (Some(mut layout), Some(offer)) = (layout, offer) else { return Err(mistakes) };
    if args.redis.is_some() {
        // A part that is started again has to be where the one before it was.
        let settled = layout.settle().map_err(|error| error.to_string());
        mistakes.check("--udp", settled);
    }
    let relay = relays(args, &layout, &offer.services, &mut mistakes);
    let common = Common {
        inherited: parts::inherited(std::env::vars_os()),
        random: rand::random(),
        manifests: offer.manifests,
        redis: args.redis.clone(),
        relay,
        loops: layout.loops,
        names: if args.tls { demo::names(&args.advertise) } else { Vec::new() },
        log: args.log.clone(),
    };
    // Said once and here: each part would say it again, in its own words.
    common.check(&layout, &registry, &offer.services, &mut mistakes);
    mistakes.or(Fleet { layout, common, page: page::config(&registry, &offer.shown) })
}

/// How media comes to these parts.
fn relays(args: &Args, layout: &Layout, services: &[(String, Service)], mistakes: &mut Mistakes) -> Relays {
    let listen = layout.relay;
    let advertise = match args.advertise.as_slice() {
        [] => mistakes.check("--advertise", reachable(listen.ip())).unwrap_or_default(),
        told => told.to_vec(),
    };
    let is_direct = services.iter().any(|(_, service)| service.exposure == Exposure::HostPort);
    let loops = if is_direct { listen.ip() } else { layout::loopback(listen.ip()) };
    Relays { listen, advertise, loops, peers: layout.routers.iter().map(|router| router.peers).collect() }
}

/// What is served.
struct Offer {
    /// The files that say so.
    manifests: Vec<PathBuf>,
    /// Those in them that can be used, each with its file.
    services: Vec<(String, Service)>,
    /// What of it the page offers.
    shown: Vec<Offered>,
}

/// What is served, as far as there are no mistakes in it; `None` if the demo's services cannot be.
fn offer(
    args: &Args,
    registry: &streamfleet_handler::Registry,
    folder: &Scratch,
    mistakes: &mut Mistakes,
) -> Option<Offer> {
    if !args.services.is_empty() {
        if !args.demo.is_empty() {
            mistakes.push("--services", "--default, --play and --record are for the services of the demo");
        }
        let services = read(&args.services, mistakes);
        let shown = services.iter().filter_map(|(_, service)| Offered::of(service)).collect();
        return Some(Offer { manifests: args.services.clone(), services, shown });
    }
    let shown = args.demo.services(registry, folder.path());
    let file = folder.path().join("services.yaml");
    let shown = shown.and_then(|shown| {
        let text: String = shown.iter().map(|service| format!("---\n{}\n", manifest(service))).collect();
        std::fs::write(&file, text).map(|()| shown).map_err(|error| format!("{}: {error}", file.display()))
    });
    let shown = mistakes.check("", shown)?;
    let manifests = vec![file];
    let services = read(&manifests, mistakes);
    Some(Offer { manifests, services, shown })
}

fn read(paths: &[PathBuf], mistakes: &mut Mistakes) -> Vec<(String, Service)> {
    let texts = files::texts("--services", paths, mistakes);
    files::services(&texts, mistakes)
}

/// JSON is YAML.
fn manifest(service: &Offered) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": { "name": service.name },
        "spec": {
            "path": service.path,
            "aliases": service.aliases,
            "handler": { "name": service.handler, "config": service.config },
            "workers": { "sessionsPerWorker": DEMO_SESSIONS },
            // Whoever tries a fleet wants to see more than one of its workers.
            "routing": { "packing": "Spread" },
        },
    })
}

fn refuse(mistakes: &Mistakes) -> ExitCode {
    mistakes.iter().for_each(|mistake| tell(&mistake.to_string()));
    ExitCode::from(EXIT_CONFIG)
}

/// What somebody who starts a fleet needs to know besides its parts.
fn say_where(page: Option<&str>, token: Option<&str>) {
    if let Some(token) = token {
        say(&format!("admin token: {token}"));
    }
    if let Some(page) = page {
        say(&format!("open {page}"));
    }
}

/// Without a reader there is nobody to tell.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

fn tell(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        let words = std::iter::once("fleet").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
    }

    fn prepared(line: &str) -> Result<Fleet, Vec<String>> {
        let args = parse(line).unwrap();
        let folder = args.demo.folder().unwrap();
        prepare(&args, &folder).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_demo_is_served_if_nothing_is_said() {
        let fleet = prepared("").unwrap();
        assert_eq!((fleet.layout.routers.len(), fleet.layout.workers.len()), (1, 2));
        assert_eq!(fleet.page["default"], "echo");
        let names: Vec<_> = fleet.page["handlers"].as_array().unwrap().iter().map(|h| h["name"].clone()).collect();
        assert!(names.contains(&json!("parrot")) && names.contains(&json!("recorder")), "{names:?}");
    }

    #[test]
    fn mistakes_are_told_together() {
        let mistakes = prepared("--routers 3 --default nothing --listen 127.0.0.1:65535").err().unwrap();
        for key in ["--routers: 3 routers need a Redis", "--default: there is no handler \"nothing\"", "--listen: "] {
            assert!(mistakes.iter().any(|mistake| mistake.contains(key)), "{key} of {mistakes:#?}");
        }
    }

    #[test]
    fn mistakes_of_services_are_told_at_once_and_once() {
        let folder = Scratch::new(&std::env::temp_dir()).unwrap();
        let file = |name: &str, spec: &str| {
            let text = format!(
                "apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: {name}}}\nspec: {{handler: {{name: echo}}{spec}}}\n"
            );
            std::fs::write(folder.path().join(format!("{name}.yaml")), text).unwrap();
        };
        file("a", ", limits: {concurrency: many}");
        file("b", ", hosts: h");
        file("c", ", path: /x, handler: {name: nothing}");
        file("d", ", path: /x, identity: {jwt: {secret: {env: STREAMFLEET_NO_SUCH}}}");
        let c = std::fs::read_to_string(folder.path().join("c.yaml")).unwrap().replace("handler: {name: echo}, ", "");
        std::fs::write(folder.path().join("c.yaml"), c).unwrap();
        for more in ["", " --redis 127.0.0.1:1"] {
            let line = format!("--services {},/nonexistent.yaml{more}", folder.path().display());
            let told = prepared(&line).err().unwrap();
            for part in [
                "--services: /nonexistent.yaml: ",
                "spec.limits.concurrency: ",
                "spec.hosts: ",
                "spec.handler: there is no handler `nothing` (service c in ",
                "spec.path: /x of d is taken already by /x of c",
                "spec.identity.jwt: d: the variable STREAMFLEET_NO_SUCH",
            ] {
                assert_eq!(told.iter().filter(|told| told.starts_with(part)).count(), 1, "{part} of {told:#?}");
            }
            assert_eq!(told.len(), 6, "{told:#?}");
        }
    }

    #[test]
    fn what_is_no_number_of_parts_is_refused() {
        for line in ["--routers 0", "--workers 0", "--workers 1000", "--redis ftp://a:1", "--listen 8080"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
