//! What a relay's thread costs. `bench/relay.py` starts the parts and reads what they tell: one JSON value a line.

mod bare;
mod burst;
mod coturn;
mod flows;
mod rate;
mod scene;
mod turn;
mod turns;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use streamfleet_carrier::{Offloads, Way};
use streamfleet_net::Offload;

use crate::rate::Subject;
use crate::scene::{Clients, Lengths, Plan, Scene, Worker};
use crate::turns::{Named, Variant};

#[derive(Parser)]
#[command(name = "bench-relay", version)]
struct Flags {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// CPU time of a packet, saturated: variants take turns.
    Turns(TurnsArgs),
    /// Delay and CPU time of a packet at a fixed rate: variants take turns.
    Rate(RateArgs),
    /// CPU time of a packet beside coturn, each in a process of its own: they take turns.
    Coturn(CoturnArgs),
    /// What a flow needs, in memory and to be told of.
    Flows(FlowsArgs),
    /// A carrier for `coturn`, until it is killed.
    Serve(ServeArgs),
}

#[derive(clap::Args)]
struct TurnsArgs {
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000, 100_000])]
    flows: Vec<usize>,
    /// Octets of a packet, or `voice`.
    #[arg(long, value_delimiter = ',', default_value = "100,1200")]
    sizes: Vec<Lengths>,
    /// Workers that flows are spread over.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    #[arg(long, default_value_t = 40)]
    turns: usize,
    /// Only variants whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only this way.
    #[arg(long)]
    way: Option<String>,
    /// The relay's address towards workers.
    #[arg(long, default_value_t = HERE)]
    own: Ipv4Addr,
    /// The workers' address.
    #[arg(long, default_value_t = HERE)]
    worker_ip: Ipv4Addr,
    /// The network namespace that they are in: `/run/netns/NAME`.
    #[arg(long)]
    worker_space: Option<PathBuf>,
}

#[derive(clap::Args)]
struct RateArgs {
    /// Packets a second.
    #[arg(long, default_value_t = 150_000)]
    rate: u64,
    #[arg(long, default_value_t = 10_000)]
    flows: usize,
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_200])]
    sizes: Vec<usize>,
    #[arg(long, default_value_t = 15)]
    turns: usize,
}

#[derive(clap::Args)]
struct CoturnArgs {
    /// Clients, of which each has an allocation.
    #[arg(long, default_value_t = 200)]
    flows: usize,
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_200])]
    sizes: Vec<usize>,
    #[arg(long, default_value_t = 15)]
    turns: usize,
}

#[derive(clap::Args)]
struct FlowsArgs {
    #[arg(long, default_value_t = 100_000)]
    flows: usize,
}

#[derive(clap::Args)]
struct ServeArgs {
    #[arg(long)]
    worker: SocketAddr,
    /// Without segmentation and coalescing.
    #[arg(long)]
    plain: bool,
}

const ON: Offloads = Offloads { segmentation: Offload::On, coalescing: Offload::On };
const OFF: Offloads = Offloads { segmentation: Offload::Off, coalescing: Offload::Off };

/// What a relay and its workers have of the kernel's help.
const KINDS: [(&str, Offloads, Offload); 3] = [
    ("segmentation, worker coalesces", ON, Offload::On),
    ("segmentation, worker does not coalesce", ON, Offload::Off),
    ("no offload", OFF, Offload::Off),
];
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn turns(args: &TurnsArgs) -> anyhow::Result<()> {
    let mut clients = Clients::bind()?;
    let worker = |coalescing| Worker::bind_in(args.worker_space.as_deref(), args.worker_ip, coalescing);
    let mut variants =
        vec![Named { name: "bare".into(), flows: 1, variant: Variant::bare(args.own, worker(Offload::Off)?)? }];
    for &flows in &args.flows {
        variants.push(Named { name: "bare, to many".into(), flows, variant: Variant::bare_to_many(flows)? });
    }
    for (name, offloads, worker_coalescing) in KINDS.into_iter().filter(|(name, ..)| name.contains(&args.only)) {
        for &flows in &args.flows {
            let plan = Plan { flows, offloads };
            let workers: Result<_, _> = (0..args.workers).map(|_| worker(worker_coalescing)).collect();
            let scene = Box::new(Scene::make(plan, workers?, args.own, &mut clients)?);
            variants.push(Named { name: name.into(), flows, variant: Variant::Relay(scene) });
        }
    }
    for way in Way::ALL {
        if args.way.as_ref().is_some_and(|only| only != way.as_str()) {
            continue;
        }
        for &size in &args.sizes {
            let mut found = turns::compare(&mut variants, way, size, args.turns, &mut clients)?;
            found["workers"] = args.workers.into();
            say(&found);
        }
    }
    Ok(())
}

fn rate(args: &RateArgs) -> anyhow::Result<()> {
    let mut clients = Clients::bind()?;
    let mut subjects = vec![("directly".to_owned(), Subject::directly()?), ("bare".to_owned(), Subject::bare()?)];
    for (name, offloads, worker_coalescing) in KINDS {
        let workers = vec![Worker::bind(HERE, worker_coalescing)?];
        let plan = Plan { flows: args.flows, offloads };
        subjects.push((name.to_owned(), Subject::Relay(Box::new(Scene::make(plan, workers, HERE, &mut clients)?))));
    }
    for &size in &args.sizes {
        say(&rate::compare(&mut subjects, args.rate, size, args.flows, args.turns, &mut clients)?);
    }
    Ok(())
}

fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let mut carrier = scene::carrier(if args.plain { OFF } else { ON }, vec![args.worker], HERE)?;
    say(&serde_json::json!({ "door": carrier.door(), "return_port": carrier.return_port() }));
    loop {
        carrier.step(&scene::Nowhere, |_| {})?;
    }
}

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn say(value: &serde_json::Value) {
    println!("{value}");
}

fn main() -> anyhow::Result<()> {
    match Flags::parse().part {
        Part::Turns(args) => turns(&args),
        Part::Rate(args) => rate(&args),
        Part::Coturn(args) => coturn::compare(args.flows, &args.sizes, args.turns, say),
        Part::Flows(args) => flows::measure(args.flows).map(|found| say(&found)),
        Part::Serve(args) => serve(&args),
    }
}
