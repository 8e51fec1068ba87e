//! What a router is measured with. `bench/router.py` starts the parts, each on the core that it belongs on, and reads what
//! they cost.

mod double;
mod drive;
mod http;
mod liveness;
mod proxy;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

#[derive(Parser)]
#[command(name = "bench-router", version)]
struct Flags {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Workers that answer every offer with the same text, and end the session at once.
    Double(double::Args),
    /// A reverse proxy that does nothing else.
    Proxy(proxy::Args),
    /// Clients that offer at a steady rate, whether they are answered or not.
    Drive(drive::Args),
    /// Workers with sessions that only live.
    Liveness(liveness::Args),
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    // Each part has a core, and none needs two.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match flags.part {
            Part::Double(args) => double::run(args).await,
            Part::Proxy(args) => proxy::run(args).await,
            Part::Drive(args) => drive::run(args).await,
            Part::Liveness(args) => liveness::run(args).await,
        }
    })
}
