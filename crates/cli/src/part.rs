//! `streamfleet worker` and `streamfleet router`: the parts of a fleet, as programs of their own or as `fleet` starts them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use axum::Router;
use serde_json::Value;
use streamfleet_process::telemetry::Program;

use crate::demo::page;

/// Serve handlers: the media worker
///
/// The same as `streamfleet-worker`.
#[derive(clap::Args, Debug)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    flags: streamfleet_worker::program::Flags,
    #[command(flatten)]
    family: Family,
}

/// Take what clients ask, and pass it on to the workers of a fleet
///
/// The same as `streamfleet-router`.
#[derive(clap::Args, Debug)]
pub(crate) struct RouterArgs {
    #[command(flatten)]
    flags: streamfleet_router::program::Flags,
    /// What the demo page offers; without it there is none.
    #[arg(long, hide = true)]
    page: Option<PathBuf>,
    #[command(flatten)]
    family: Family,
}

#[derive(clap::Args, Debug)]
struct Family {
    /// The process to end with.
    #[arg(long, hide = true)]
    parent: Option<u32>,
}

pub(crate) fn worker(args: WorkerArgs) -> ExitCode {
    match args.family.join() {
        Ok(()) => streamfleet_worker::program::run_as(args.flags, &streamfleet_pause::builtin::registry()),
        Err(error) => fail(&error),
    }
}

pub(crate) fn router(args: RouterArgs) -> ExitCode {
    let pages = args.family.join().and_then(|()| args.page.as_deref().map_or(Ok(Router::new()), read));
    let program = Program { name: "streamfleet-router", version: env!("CARGO_PKG_VERSION") };
    match pages {
        Ok(pages) => streamfleet_router::program::run_as(args.flags, program, pages),
        Err(error) => fail(&error),
    }
}

impl Family {
    fn join(&self) -> anyhow::Result<()> {
        self.parent.map_or(Ok(()), |parent| streamfleet_net::end_with_parent(parent).context("cannot join the fleet"))
    }
}

fn read(page: &Path) -> anyhow::Result<Router> {
    let named = || page.display().to_string();
    let text = std::fs::read_to_string(page).with_context(named)?;
    let offered: Value = serde_json::from_str(&text).with_context(named)?;
    Ok(page::routes(offered))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    use std::io::Write as _;
    // Without a reader there is nobody to tell.
    drop(writeln!(std::io::stderr().lock(), "{error:#}"));
    ExitCode::from(streamfleet_worker::program::EXIT_FAILED)
}
