//! `streamfleet-cluster`: a real Kubernetes cluster on this machine, to try things on by hand.

#![expect(clippy::print_stdout, reason = "it is a command: what it prints is what it is for")]

mod kept;

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use kept::Kept;
use streamfleet_kubernetes_tests::{Cluster, Image, Place, Plan, Product, sweep};

/// A cluster is up within this on an idle machine, many times over.
const UP: Duration = Duration::from_secs(180);
/// And down within this.
const DOWN: Duration = Duration::from_secs(60);

/// A real Kubernetes cluster on this machine: control plane and nodes, a load balancer, and a client outside. As root.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The cluster; several may be up at once.
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Brings it up, waits until it is ready, and prints where things are.
    Up {
        /// How many nodes it has.
        #[arg(long, default_value_t = 2)]
        nodes: usize,
    },
    /// Ends it, and removes what clusters have left whose process was killed.
    Down,
    /// Prints where things are.
    Env,
    /// Runs kubectl on it, with all rights.
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs helm on it.
    #[command(disable_help_flag = true)]
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs a command where clients are: outside, before the load balancer.
    #[command(disable_help_flag = true)]
    Client {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Runs a command on a machine: control, edge, node1 and so on.
    #[command(disable_help_flag = true)]
    On {
        /// The machine.
        machine: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Gives all nodes images of programs, which are called as the program, with the tag `test`. The whole product where none is
    /// said, and the store as redis:test.
    Load {
        /// Where the programs are; beside this one if not said.
        #[arg(long)]
        from: Option<PathBuf>,
        /// Names of programs, or files that container runtimes import and that end in .tar.
        images: Vec<String>,
    },
    /// Prints where the logs are, or the last lines of one.
    Logs {
        /// A file below the cluster's folder (kube-apiserver.log, node1/kubelet.log).
        log: Option<PathBuf>,
    },
    /// Keeps it until SIGTERM: what `up` starts.
    #[command(hide = true)]
    Keep {
        #[arg(long)]
        nodes: usize,
    },
}

fn main() -> ExitCode {
    let Arguments { name, action } = Arguments::parse();
    match run(&name, action) {
        Ok(code) => code,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, action: Action) -> Result<ExitCode> {
    match action {
        Action::Up { nodes } => up(name, nodes),
        Action::Down => down(name),
        Action::Keep { nodes } => keep(name, nodes),
        Action::Env => Kept::read(name).map(|kept| told(&kept)),
        Action::Kubectl { arguments } => tool(name, "kubectl", &arguments),
        Action::Helm { arguments } => tool(name, "helm", &arguments),
        Action::Client { command } => on(name, "client", &command),
        Action::On { machine, command } => on(name, &machine, &command),
        Action::Load { from, images } => load(name, from, &images),
        Action::Logs { log } => logs(name, log),
    }
}

fn up(name: &str, nodes: usize) -> Result<ExitCode> {
    if let Ok(kept) = Kept::read(name) {
        println!("# it is up already");
        return Ok(told(&kept));
    }
    let log = Kept::log(name);
    let output = std::fs::File::create(&log)?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["--name", name, "keep", "--nodes", &nodes.to_string()]).stdin(Stdio::null());
    // In a group of its own: what is typed here to end something is not meant for it.
    let mut keeper = command.stdout(output.try_clone()?).stderr(output).process_group(0).spawn()?;
    let deadline = Instant::now() + UP;
    loop {
        if let Ok(kept) = Kept::read(name) {
            return Ok(told(&kept));
        }
        if let Some(status) = keeper.try_wait()? {
            bail!("{status}: {}", std::fs::read_to_string(&log)?.trim());
        }
        if Instant::now() > deadline {
            keeper.kill()?;
            bail!("it was not up after {UP:?}; see {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn keep(name: &str, nodes: usize) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};

        let mut terminated = signal(SignalKind::terminate())?;
        let cluster = tokio::select! {
            cluster = Cluster::up(Plan::of(nodes)) => cluster?,
            _ = terminated.recv() => return Ok(()),
        };
        let kept = Kept::of(&cluster)?;
        kept.write(name)?;
        terminated.recv().await;
        drop(cluster);
        Kept::remove(name)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn down(name: &str) -> Result<ExitCode> {
    if let Ok(kept) = Kept::read(name) {
        kept.terminate()?;
        let deadline = Instant::now() + DOWN;
        while kept.is_up() {
            ensure!(Instant::now() < deadline, "it was not down after {DOWN:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Kept::remove(name)?;
    sweep();
    Ok(ExitCode::SUCCESS)
}

fn told(kept: &Kept) -> ExitCode {
    for (name, value) in kept.told() {
        println!("{name}={value}");
    }
    ExitCode::SUCCESS
}

fn tool(name: &str, program: &str, arguments: &[String]) -> Result<ExitCode> {
    let kept = Kept::read(name)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    exits(&kept.place("control")?, &mut kept.tool(program, &arguments))
}

fn on(name: &str, machine: &str, command: &[String]) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let place = Kept::read(name)?.place(machine)?;
    exits(&place, Command::new(program).args(arguments))
}

/// Runs a command with this one's input and output, and ends as it does.
fn exits(place: &Place, command: &mut Command) -> Result<ExitCode> {
    let status = place.spawn(command)?.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn load(name: &str, from: Option<PathBuf>, images: &[String]) -> Result<ExitCode> {
    let kept = Kept::read(name)?;
    let from = match from {
        Some(from) => from.canonicalize()?,
        None => env::current_exe()?.parent().context("no folder of programs")?.to_owned(),
    };
    let named = |name: &str| Image::of(&format!("{name}:test"), &from.join(name));
    let given = |image: &String| -> Result<Image> {
        if image.ends_with(".tar") {
            return Ok(Image { name: image.clone(), path: PathBuf::from(image).canonicalize()? });
        }
        named(image)
    };
    let all: Vec<Result<Image>> = if images.is_empty() {
        Product::ALL.iter().map(|product| named(product.name())).chain([Image::redis()]).collect()
    } else {
        images.iter().map(given).collect()
    };
    for image in all {
        let image = image?;
        let took = Instant::now();
        kept.load(&image)?;
        println!("{} ({} MB, {} ms)", image.name, image.bytes()? / 1_000_000, took.elapsed().as_millis());
    }
    Ok(ExitCode::SUCCESS)
}

fn logs(name: &str, log: Option<PathBuf>) -> Result<ExitCode> {
    let folder = Kept::read(name)?.folder;
    match log {
        None => println!("{}", folder.display()),
        Some(log) => print!("{}", std::fs::read_to_string(folder.join(log))?),
    }
    Ok(ExitCode::SUCCESS)
}
