//! `streamfleet top`, on a terminal.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use streamfleet_kubernetes_tests::{built, eventually};

use super::LIMIT;
use super::site::{HOME, Site};

/// Of the terminal: wide enough that nothing is cut off.
const SIZE: &str = "stty rows 40 cols 200";
/// Where each frame begins, and how the terminal is given back.
const FRAME: &str = "\u{1b}[1;1H";
const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// With a call, until `q` is pressed.
pub(crate) async fn shows_it(site: &Site<'_>) -> Result<()> {
    let talk = site.talk("/voice/echo", &["--wait", "20"])?;
    let workers = site.pods(HOME, "streamfleet.dev/service=echo").await?;
    let worker = workers.first().and_then(|pod| pod.metadata.name.clone()).context("no worker")?;
    let mut top = Top::start(site)?;
    let shown = |frame: &str| {
        let mut lines = frame.lines();
        let mut row = |begins: &str, has: &[&str]| {
            lines.any(|line| line.starts_with(begins) && has.iter().all(|word| line.contains(word)))
        };
        // In this order: services, workers, decisions.
        row("voice/echo ", &["yes", "1/1", "1/50"])
            && row(&worker, &["voice/echo", "serving", "1/50", "node"])
            && row("", &["voice/echo", "WorkersCreated", "1 worker created, 1 wanted"])
    };
    eventually("it shows the service, its worker, the session, and what was decided", LIMIT, async || {
        let frames = frames(&fs::read_to_string(&top.screen)?);
        let last = frames.last().cloned().unwrap_or_default();
        frames.iter().any(|frame| shown(frame)).then_some(Some(())).context(last)
    })
    .await?;
    top.press("q")?;
    let status = eventually("q ends it", LIMIT, async || Ok(top.child.try_wait()?)).await?;
    let screen = fs::read_to_string(&top.screen)?;
    ensure!(status.success() && screen.contains(GIVEN_BACK), "{status}: {screen:?}");
    let said = talk.hang_up().await?;
    ensure!(said["verdict"] == "heard", "{said}");
    Ok(())
}

/// The command on a terminal of its own.
struct Top {
    child: Child,
    screen: std::path::PathBuf,
}

impl Top {
    fn start(site: &Site<'_>) -> Result<Self> {
        let screen = site.cluster.folder().join("top.screen");
        let shell = format!("{SIZE}; exec {} top --namespace {HOME}", built("streamfleet")?.display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &shell]).arg(Path::new("/dev/null"));
        command.env("KUBECONFIG", site.cluster.folder().join("admin.kubeconfig")).env("TERM", "xterm-256color");
        command.stdin(Stdio::piped()).stdout(fs::File::create(&screen)?).stderr(Stdio::null());
        Ok(Self { child: site.cluster.control().spawn(&mut command)?, screen })
    }

    fn press(&mut self, key: &str) -> Result<()> {
        Ok(self.child.stdin.as_mut().context("no keys")?.write_all(key.as_bytes())?)
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What stood on a terminal, frame by frame, without its attributes.
fn frames(screen: &str) -> Vec<String> {
    screen.split(FRAME).skip(1).map(plain).collect()
}

/// Text without control sequences (ECMA-48, 5.4); one that goes elsewhere (CUP) is the end of a line.
fn plain(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|letter: char| ('@'..='~').contains(&letter)).unwrap_or(part.len());
        if part[end..].starts_with('H') {
            plain.push('\n');
        }
        plain.push_str(part.get(end + 1..).unwrap_or_default());
    }
    plain
}

#[test]
fn what_stood_on_a_terminal() {
    let screen = "\u{1b}[?1049h\u{1b}[1;1H\u{1b}[1mhead\u{1b}[0m\u{1b}[K\u{1b}[2;1Hrow\u{1b}[J\u{1b}[1;1Hnext";
    assert_eq!(frames(screen), ["head\nrow", "next"]);
}
