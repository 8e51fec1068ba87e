//! `streamfleet sessions`: what an operator asks of sessions, at any router, or at a worker that stands alone.

pub(crate) mod control;
pub(crate) mod session;
mod show;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use streamfleet_client::{ServiceUrl, SessionId, UserId};

use self::control::{Control, Ended, Filter, Problem};
use self::watch::{Pace, Watched};
use crate::plain::plain;

/// Nobody was reached, or nobody let us.
const EXIT_REFUSED: u8 = 1;
/// There is no such session.
const EXIT_UNKNOWN: u8 = 2;
/// What was asked stands, and is not done yet.
const EXIT_PENDING: u8 = 3;

/// List, show, end and watch the sessions of a service
///
/// Asks any router, or a worker that stands alone, at the service's URL. The operator's token may do all of it; with the resume
/// token of one session that session can be shown and ended.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Exit status:
  0   done
  1   the server was not reached or not trusted, refused, or cannot reach its store
  2   there is no such session
  3   the session was told to end, and has not ended yet
  64  the command line cannot be understood

Examples:
  export STREAMFLEET_ADMIN_TOKEN=…
  streamfleet sessions list http://127.0.0.1:8080/echo --state active
  streamfleet sessions show http://127.0.0.1:8080/echo ann
  streamfleet sessions end http://127.0.0.1:8080/echo ann
  streamfleet sessions watch http://127.0.0.1:8080/echo --user mia --json")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List sessions
    List {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        which: Which,
    },
    /// Show one session: its state, tracks, changes and quality
    Show {
        #[command(flatten)]
        server: Server,
        /// The session
        id: SessionId,
    },
    /// End a session, and say what has become of it
    End {
        #[command(flatten)]
        server: Server,
        /// The session
        id: SessionId,
    },
    /// Follow what sessions begin, change and end: a line each, until interrupted
    Watch {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        which: Which,
        /// How often to look, in seconds
        #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
        every: Duration,
    },
}

#[derive(clap::Args, Debug)]
struct Server {
    /// The service, such as http://127.0.0.1:8080/echo
    url: ServiceUrl,
    /// The operator's token, or the resume token of the session
    #[arg(long, value_name = "TOKEN", env = "STREAMFLEET_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Accept any certificate, such as the self-signed one of `streamfleet fleet --tls`
    #[arg(long)]
    insecure: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct Which {
    /// Only those of this user
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// Only those in this state
    #[arg(long, value_name = "STATE")]
    state: Option<StateName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StateName {
    Reserved,
    Connecting,
    Active,
    Ending,
}

impl StateName {
    fn word(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::Ending => "ending",
        }
    }
}

impl From<Which> for Filter {
    fn from(which: Which) -> Self {
        Self { user: which.user.map(|user| user.to_string()), state: which.state.map(StateName::word) }
    }
}

/// From a tenth of a second, which no server minds, to an hour.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = text.parse::<f64>().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    wanted.map(Duration::from_secs_f64).ok_or_else(|| "must be 0.1 to 3600 seconds".to_owned())
}

pub(crate) fn run(args: Args) -> ExitCode {
    streamfleet_process::crypto::install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| Problem::Local(error.to_string())).and_then(|runtime| {
        runtime.block_on(async {
            match args.action {
                Action::List { server, which } => list(&server, &which.into()).await,
                Action::Show { server, id } => show(&server, &id).await,
                Action::End { server, id } => end(&server, &id).await,
                Action::Watch { server, which, every } => watch(&server, &which.into(), every).await,
            }
        })
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            tell(&problem);
            ExitCode::from(if matches!(problem, Problem::NoSession) { EXIT_UNKNOWN } else { EXIT_REFUSED })
        }
    }
}

impl Server {
    fn control(&self) -> Result<Control, Problem> {
        let token = self.token.as_deref().ok_or(Problem::NoToken)?;
        Control::new(&self.url, token, self.insecure)
    }
}

async fn list(server: &Server, filter: &Filter) -> Result<u8, Problem> {
    let sessions = server.control()?.list(filter).await?;
    if server.json {
        let raw: Vec<_> = sessions.into_iter().map(|session| session.raw).collect();
        say(&format!("{:#}", json!({ "sessions": raw })));
    } else {
        say(&show::table(&sessions, SystemTime::now()));
    }
    Ok(0)
}

async fn show(server: &Server, id: &SessionId) -> Result<u8, Problem> {
    let session = server.control()?.show(id).await?;
    say(&if server.json { format!("{session:#}") } else { show::whole(&session) });
    Ok(0)
}

async fn end(server: &Server, id: &SessionId) -> Result<u8, Problem> {
    let (code, text, raw) = match server.control()?.end(id).await? {
        Ended::Over { reason, raw } => (0, format!("{id} has ended ({reason})"), raw),
        Ended::OnItsWay { raw } => (EXIT_PENDING, format!("{id} was told to end, and has not ended yet"), raw),
    };
    say(&if server.json { raw.to_string() } else { plain(&text) });
    Ok(code)
}

async fn watch(server: &Server, filter: &Filter, every: Duration) -> Result<u8, Problem> {
    let control = server.control()?;
    let mut watched = Watched::default();
    let mut pace = Pace::new(every);
    loop {
        let pause = match control.list(filter).await {
            Ok(sessions) => {
                if pace.recovered() {
                    tell("the server answers again");
                }
                for change in watched.look(sessions) {
                    say(&if server.json { change.json().to_string() } else { plain(&change.to_string()) });
                }
                pace.after_success()
            }
            // Who was never let in will not be.
            Err(problem) if watched.is_new() || !problem.may_pass() => return Err(problem),
            Err(problem) => {
                if pace.is_first_failure() {
                    tell(format_args!("{problem}; trying again"));
                }
                pace.after_failure()
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Without a reader there is nobody to tell; a command whose reader has gone goes on until it is done or interrupted.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

fn tell(problem: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr().lock(), "streamfleet sessions: {}", plain(&problem.to_string())));
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

    fn parse(line: &str) -> Result<Action, String> {
        let words = std::iter::once("sessions").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.args.action).map_err(|error| error.to_string())
    }

    #[test]
    fn command_lines() {
        let Action::List { server, which } = parse("list http://h:1/echo --token t --user mia --state active").unwrap()
        else {
            panic!("not a list")
        };
        assert_eq!(
            (server.url.to_string().as_str(), server.token.as_deref(), server.json),
            ("http://h:1/echo", Some("t"), false)
        );
        assert_eq!(Filter::from(which), Filter { user: Some("mia".to_owned()), state: Some("active") });
        let Action::Watch { every, .. } = parse("watch http://h:1 --token t --every 0.5").unwrap() else {
            panic!("not a watch")
        };
        assert_eq!(every.as_millis(), 500);
        assert!(matches!(parse("end http://h:1 ann --token t --json"), Ok(Action::End { .. })));
        for wrong in [
            "list",
            "list h:1 --token t",
            "list http://h:1 --token t --state lost",
            "show http://h:1 --token t",
            "show http://h:1 a{b --token t",
            "watch http://h:1 --token t --every 0",
            "watch http://h:1 --token t --every NaN",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
