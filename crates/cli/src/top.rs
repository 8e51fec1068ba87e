//! `streamfleet top`: services, workers, drains and what an autoscaler decides, live in a terminal.

mod cluster;
mod facts;
mod figures;
mod keys;
mod render;
mod router;
mod screen;
mod view;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::ArgGroup;
use streamfleet_client::ServiceUrl;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::cluster::{Cluster, Followed, Which};
use self::facts::Facts;
use self::keys::Next;
use self::render::{Hands, lines, render};
use self::router::Router;
use self::screen::{Screen, Told};
use self::view::{Choice, Teller, View};
use crate::plain::plain;

/// Nobody was reached, or nobody let us.
const EXIT_REFUSED: u8 = 1;
/// Between two frames at least: more than four a second nobody sees.
const FRAME: Duration = Duration::from_millis(250);

/// Show services, workers, drains and scaling decisions, live
///
/// Asks the cluster's API server, as kubectl finds it, or the one that this process runs in; with --url a router, for the sessions of one
/// service by worker. On a terminal it goes on until q is pressed; arrows choose a service and scroll workers, n goes through the
/// namespaces. Into a file or a pipe it writes a frame at a time.
#[derive(clap::Args, Debug)]
#[command(group(ArgGroup::new("whom").args(["namespace", "context"]).multiple(true).conflicts_with("url")))]
#[command(
    after_long_help = "Sessions of single workers come from their metrics, which the API server passes on to whoever may `get` `pods/proxy`.

Exit status:
  0   done
  1   nobody answers, or nobody lets this user see anything
  64  the command line cannot be understood

Examples:
  streamfleet top
  streamfleet top --namespace voice --once
  streamfleet top --url http://127.0.0.1:8080/echo --token …"
)]
pub(crate) struct Args {
    /// Only this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Which context of the kubeconfig, if not the present one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Ask the router of this service instead of a cluster, such as http://127.0.0.1:8080/echo
    #[arg(long, value_name = "URL", requires = "token")]
    url: Option<ServiceUrl>,
    /// The operator's token, for a router
    #[arg(long, value_name = "TOKEN", env = "STREAMFLEET_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Accept any certificate of the router
    #[arg(long, requires = "url")]
    insecure: bool,
    /// How often to look, in seconds; a cluster tells of changes by itself
    #[arg(long, value_name = "S", default_value = "2", value_parser = crate::sessions::seconds)]
    every: Duration,
    /// Write one frame and end
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    streamfleet_process::crypto::install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(show(args)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr().lock(), "streamfleet top: {}", plain(&error.to_string())));
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

/// Who tells.
enum Source {
    Cluster(Cluster),
    Router(Router),
}

impl Source {
    async fn of(args: &Args) -> anyhow::Result<Self> {
        Ok(match (&args.url, &args.token) {
            (Some(url), Some(token)) => Self::Router(Router::new(url, token, args.insecure)?),
            _ => {
                let which = Which { context: args.context.clone(), namespace: args.namespace.clone() };
                Self::Cluster(Cluster::connect(&which).await?)
            }
        })
    }

    fn teller(&self) -> Teller {
        match self {
            Self::Cluster(cluster) => cluster.teller(),
            Self::Router(router) => router.teller(),
        }
    }

    async fn look(&self) -> anyhow::Result<Facts> {
        Ok(match self {
            Self::Cluster(cluster) => cluster.look().await?,
            Self::Router(router) => router.look().await?,
        })
    }

    /// A router is asked once before it is followed: who is not let in is told so at once.
    async fn follow(self, every: Duration, tasks: &mut JoinSet<()>) -> anyhow::Result<watch::Receiver<Followed>> {
        match self {
            Self::Cluster(cluster) => Ok(cluster.follow(tasks)),
            Self::Router(router) => {
                let facts = router.look().await?;
                let (sender, receiver) = watch::channel(Followed::from(facts));
                tasks.spawn(async move {
                    loop {
                        sleep(every).await;
                        let looked = router.look().await;
                        sender.send_modify(|followed| match looked {
                            Ok(facts) => *followed = facts.into(),
                            Err(problem) => followed.trouble("router", problem.to_string(), Instant::now() + every),
                        });
                    }
                });
                Ok(receiver)
            }
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

async fn show(args: &Args) -> anyhow::Result<()> {
    let source = Source::of(args).await?;
    let teller = source.teller();
    if args.once {
        let facts = source.look().await?;
        let view = View::of(&facts, &Choice::default(), &teller, None, now());
        return Ok(say(&render(&view, screen::size()))?);
    }
    let mut tasks = JoinSet::new();
    let followed = source.follow(args.every, &mut tasks).await?;
    let told = if screen::is_interactive() {
        on_a_terminal(followed, args.every, &teller).await
    } else {
        without_one(followed, args.every, &teller).await
    };
    tasks.shutdown().await;
    match told {
        // Whoever read has gone: a pipe into `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        told => Ok(told?),
    }
}

/// A frame at a time, for whoever reads them one after the other.
async fn without_one(followed: watch::Receiver<Followed>, every: Duration, teller: &Teller) -> io::Result<()> {
    let mut ends = Ends::install()?;
    // What was there is told within the first moments.
    let mut pause = every.min(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = ends.next() => return Ok(()),
        }
        pause = every;
        let view = {
            let followed = followed.borrow();
            View::of(&followed.facts, &Choice::default(), teller, followed.problem(Instant::now()), now())
        };
        say(&format!("{}\n", render(&view, screen::size())))?;
    }
}

async fn on_a_terminal(mut followed: watch::Receiver<Followed>, every: Duration, teller: &Teller) -> io::Result<()> {
    let mut ends = Ends::install()?;
    let (screen, mut keys) = Screen::take()?;
    let mut choice = Choice::default();
    loop {
        let view = {
            let followed = followed.borrow_and_update();
            View::of(&followed.facts, &choice, teller, followed.problem(Instant::now()), now())
        };
        screen.draw(&lines(&view, screen::size(), Hands::On))?;
        tokio::select! {
            // Ages go on although nothing changes.
            () = sleep(every) => {}
            _ = followed.changed() => sleep(FRAME).await,
            told = keys.recv() => match told {
                Some(Told::Key(key)) => match choice.press(key, &followed.borrow().facts) {
                    Next::Quit => return Ok(()),
                    Next::Show(next) => choice = next,
                },
                Some(Told::Resized) => {}
                // The terminal is gone.
                None => return Ok(()),
            },
            () = ends.next() => return Ok(()),
        }
    }
}

/// Signals that end it: the terminal is given back first.
struct Ends {
    signals: Vec<tokio::signal::unix::Signal>,
}

impl Ends {
    fn install() -> io::Result<Self> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        Ok(Self { signals: kinds.into_iter().map(signal).collect::<io::Result<_>>()? })
    }

    async fn next(&mut self) {
        let each = self.signals.iter_mut().map(|signal| Box::pin(signal.recv()));
        drop(futures_util::future::select_all(each).await);
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn command_lines() {
        let parse = |line: &str| {
            let words = std::iter::once("top").chain(line.split_whitespace());
            Cli::try_parse_from(words).map(|cli| cli.args).map_err(|error| error.to_string())
        };
        let args = parse("").unwrap();
        assert_eq!((args.namespace, args.once, args.every.as_secs()), (None, false, 2));
        let args = parse("-n voice --context test --once --every 0.5").unwrap();
        assert_eq!(
            (args.namespace.as_deref(), args.context.as_deref(), args.once),
            (Some("voice"), Some("test"), true)
        );
        let args = parse("--url http://h:1/echo --token t --insecure").unwrap();
        assert_eq!((args.url.unwrap().to_string(), args.insecure), ("http://h:1/echo".to_owned(), true));
        for wrong in
            ["--url http://h:1/echo --token t -n voice", "--insecure", "--url nowhere --token t", "--every 0", "x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
