//! `streamfleet top`: of a cluster on a terminal and once, of a router once and into a file.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
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
/// Where each frame begins without one.
const TITLE: &str = "streamfleet top ";

/// With a call: on a terminal until `q` is pressed, then without one.
pub(crate) async fn shows_it(site: &Site<'_>) -> Result<()> {
    let talk = site.talk("/voice/echo", &["--wait", "20"])?;
    let workers = site.pods(HOME, "streamfleet.dev/service=echo").await?;
    let worker = workers.first().and_then(|pod| pod.metadata.name.clone()).context("no worker")?;
    on_a_terminal(site, &worker).await?;
    once(site, &worker).await?;
    at_a_router(site, &worker).await?;
    let said = talk.hang_up().await?;
    ensure!(said["verdict"] == "heard", "{said}");
    Ok(())
}

async fn on_a_terminal(site: &Site<'_>, worker: &str) -> Result<()> {
    let shell = format!("{SIZE}; exec {} top --namespace {HOME}", built("streamfleet")?.display());
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--flush", "--return", "--command", &shell]).arg(Path::new("/dev/null"));
    terminal.env("TERM", "xterm-256color");
    let mut top = Top::start(site, terminal, "top.screen")?;
    eventually("it shows the service, its worker, the session, and what was decided", LIMIT, async || {
        let frames = frames(&fs::read_to_string(&top.screen)?);
        let last = frames.last().cloned().unwrap_or_default();
        frames.iter().any(|frame| has_all(frame, worker)).then_some(Some(())).context(last)
    })
    .await?;
    top.press("q")?;
    let status = eventually("q ends it", LIMIT, async || Ok(top.child.try_wait()?)).await?;
    let screen = fs::read_to_string(&top.screen)?;
    ensure!(status.success() && screen.contains(GIVEN_BACK), "{status}: {screen:?}");
    Ok(())
}

/// One frame of the cluster, for a script. A worker that does not answer in time has no figure in it.
async fn once(site: &Site<'_>, worker: &str) -> Result<()> {
    eventually("one frame has it all", LIMIT, async || {
        let mut command = Command::new(built("streamfleet")?);
        command.args(["top", "--namespace", HOME, "--once"]);
        let said = site.cluster.control().output(command.env("KUBECONFIG", kubeconfig(site)))?;
        let is_plain = !said.contains('\u{1b}') && said.matches(TITLE).count() == 1;
        (is_plain && has_all(&said, worker)).then_some(Some(())).context(said)
    })
    .await
}

/// A router: once, a frame after the other until it is interrupted, and not with a token that is none.
async fn at_a_router(site: &Site<'_>, worker: &str) -> Result<()> {
    let router = *site.routers().await?.first().context("no router")?;
    let ask = |token: &str, how: &[&str]| -> Result<Command> {
        let mut command = Command::new(built("streamfleet")?);
        let url = format!("https://{router}:8080/voice/echo");
        command.args(["top", "--url", &url, "--token", token, "--insecure"]).args(how);
        Ok(command)
    };
    let has_it = |frame: &str| has_rows(frame, &[("voice/echo ", &["1 active"]), (worker, &["voice/echo", "1"])]);
    let token = site.token().await?;
    let said = site.cluster.control().output(&mut ask(&token, &["--once"])?)?;
    ensure!(has_it(&said), "{said}");

    let mut top = Top::start(site, ask(&token, &["--every", "0.2"])?, "top.frames")?;
    eventually("a frame after the other", LIMIT, async || {
        let said = fs::read_to_string(&top.screen)?;
        let frames = said.split(TITLE).skip(1).filter(|frame| has_it(frame)).count();
        (frames >= 3).then_some(Some(())).context(said)
    })
    .await?;
    let interrupt = Command::new("kill").args(["-s", "INT", &top.child.id().to_string()]).status()?;
    ensure!(interrupt.success(), "kill: {interrupt}");
    let status = eventually("an interrupt ends it", LIMIT, async || Ok(top.child.try_wait()?)).await?;
    ensure!(status.success(), "{status}");

    let wrong = site.cluster.control().output(&mut ask("of-nobody-here", &["--once"])?);
    let wrong = wrong.map_err(|error| format!("{error:#}"));
    ensure!(
        wrong.as_ref().is_err_and(|said| said.contains("exit status: 1:") && said.contains("does not take this token")),
        "{wrong:?}"
    );
    Ok(())
}

/// Whether a frame of the cluster has, in this order, the service, its worker, and what was decided.
fn has_all(frame: &str, worker: &str) -> bool {
    let rows: [(&str, &[&str]); 3] = [
        ("voice/echo ", &["yes", "1/1", "1/50"]),
        (worker, &["voice/echo", "serving", "1/50", "node"]),
        ("", &["voice/echo", "WorkersCreated", "1 worker created, 1 wanted"]),
    ];
    has_rows(frame, &rows)
}

/// Whether a frame has rows that begin so and have these words, one after the other.
fn has_rows(frame: &str, rows: &[(&str, &[&str])]) -> bool {
    let mut lines = frame.lines();
    rows.iter()
        .all(|(begins, has)| lines.any(|line| line.starts_with(begins) && has.iter().all(|word| line.contains(word))))
}

fn kubeconfig(site: &Site<'_>) -> PathBuf {
    site.cluster.folder().join("admin.kubeconfig")
}

/// The command, with its output in a file and keys in our hands.
struct Top {
    child: Child,
    screen: PathBuf,
}

impl Top {
    fn start(site: &Site<'_>, mut command: Command, file: &str) -> Result<Self> {
        let screen = site.cluster.folder().join(file);
        command.env("KUBECONFIG", kubeconfig(site));
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

#[test]
fn rows_are_looked_for_in_their_order() {
    let frame = "voice/echo   yes  1/1\nvoice/steady  yes\n\necho-1  voice/echo  serving";
    let check = |rows: &[(&str, &[&str])], found: bool| assert_eq!(has_rows(frame, rows), found, "{rows:?}");
    check(&[("voice/echo ", &["yes", "1/1"]), ("echo-1", &["serving"])], true);
    check(&[("echo-1", &["serving"]), ("voice/echo ", &["yes"])], false);
    check(&[("voice/echo ", &["no"])], false);
    check(&[("", &["voice/echo", "serving"])], true);
    check(&[], true);
}
