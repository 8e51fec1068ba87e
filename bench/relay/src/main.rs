//! What a relay's thread costs. `bench/relay.py` starts the parts and reads what they tell: one JSON value a line.

mod bare;
mod burst;
mod scene;
mod turns;

use std::net::Ipv4Addr;

use clap::{Parser, Subcommand};
use streamfleet_carrier::{Offloads, Way};
use streamfleet_net::Offload;

use crate::scene::{Clients, Plan, Scene, Worker};
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
}

#[derive(clap::Args)]
struct TurnsArgs {
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000, 100_000])]
    flows: Vec<usize>,
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_200])]
    sizes: Vec<usize>,
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
}

const ON: Offloads = Offloads { segmentation: Offload::On, coalescing: Offload::On };
const OFF: Offloads = Offloads { segmentation: Offload::Off, coalescing: Offload::Off };

fn turns(args: &TurnsArgs) -> anyhow::Result<()> {
    let here = Ipv4Addr::LOCALHOST;
    let mut clients = Clients::bind()?;
    let mut variants = vec![Named { name: "bare".into(), flows: 1, variant: Variant::bare(here, here)? }];
    let kinds = [
        ("segmentation, worker coalesces", ON, Offload::On),
        ("segmentation, worker does not coalesce", ON, Offload::Off),
        ("no offload", OFF, Offload::Off),
    ];
    for (name, offloads, worker_coalescing) in kinds.into_iter().filter(|(name, ..)| name.contains(&args.only)) {
        for &flows in &args.flows {
            let plan = Plan { flows, workers: args.workers, offloads, worker_coalescing };
            let workers: Result<_, _> = (0..plan.workers).map(|_| Worker::bind(here, worker_coalescing)).collect();
            let scene = Box::new(Scene::make(plan, workers?, here, &mut clients)?);
            variants.push(Named { name: name.into(), flows, variant: Variant::Relay { scene, own: here } });
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

#[allow(clippy::print_stdout, reason = "it is what the program is for")]
fn say(value: &serde_json::Value) {
    println!("{value}");
}

fn main() -> anyhow::Result<()> {
    match Flags::parse().part {
        Part::Turns(args) => turns(&args),
    }
}
