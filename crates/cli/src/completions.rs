//! `streamfleet completions`: the shell's knowledge of the command line.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

/// Print a completion script for a shell
///
/// For example: `streamfleet completions bash > /etc/bash_completion.d/streamfleet`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run<C: CommandFactory>(args: &Args) -> ExitCode {
    clap_complete::generate(args.shell, &mut C::command(), "streamfleet", &mut std::io::stdout());
    ExitCode::SUCCESS
}
