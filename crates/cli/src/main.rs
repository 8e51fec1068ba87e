//! The `streamfleet` command.

mod call;
mod completions;
mod demo;
mod dev;
mod fleet;
mod load;
mod part;
mod plain;
mod sessions;
mod simulate;
mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Status of a command line that cannot be understood (`EX_USAGE` of sysexits): the commands' own begin at 1.
const USAGE: u8 = 64;

/// Real-time audio and video handlers, from one laptop to a fleet.
#[derive(Parser)]
#[command(name = "streamfleet", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Dev(Box<dev::Args>),
    Fleet(Box<fleet::Args>),
    Call(Box<call::Args>),
    Load(Box<load::Args>),
    Sessions(Box<sessions::Args>),
    Simulate(Box<simulate::Args>),
    Top(Box<top::Args>),
    Worker(Box<part::WorkerArgs>),
    Router(Box<part::RouterArgs>),
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = if error.use_stderr() { USAGE } else { 0 };
            // A closed terminal is no reason to fail differently.
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    match cli.command {
        Command::Dev(args) => dev::run(*args),
        Command::Fleet(args) => fleet::run(&args),
        Command::Call(args) => call::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Sessions(args) => sessions::run(*args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Worker(args) => part::worker(*args),
        Command::Router(args) => part::router(*args),
        Command::Completions(args) => completions::run::<Cli>(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
