//! Making the call: speak as a microphone does, listen, show how it goes, report.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use streamfleet_audio::analysis::level_dbfs;
use streamfleet_audio::wav;
use streamfleet_client::{Call, ClientError, Event, PcmFormat};
use tokio::time::MissedTickBehavior;

use super::arguments::{Args, Dial};
use super::mouth::{AFTER, Ear, Mouth, Piece};
use super::report::{Conversation, MAX_MESSAGES, Report, Subject, Verdict, message_line};
use super::script;
use super::sound::Recording;
use super::source::Source;
use super::turns::{Act, Runner};

/// What a microphone hands over at a time.
const PIECE: Duration = Duration::from_millis(20);
/// Between two attempts to reach a service that is waited for.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the progress bar moves.
const REDRAW: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(args, &anyhow::Error::new(error).context("cannot start threads")),
    };
    match runtime.block_on(call(args)) {
        Ok(report) => {
            if let Err(error) = print(args, &report) {
                return failed(args, &error);
            }
            ExitCode::from(report.verdict.status())
        }
        Err(error) => failed(args, &error),
    }
}

fn failed(args: &Args, error: &anyhow::Error) -> ExitCode {
    let verdict = Verdict::NotConnected;
    // Nothing can be done about a closed output.
    if args.json {
        let report = serde_json::json!({ "verdict": verdict, "error": format!("{error:#}") });
        let _ = writeln!(std::io::stdout(), "{report}");
    } else {
        let _ = writeln!(std::io::stderr(), "streamfleet call: {error:#}");
    }
    ExitCode::from(verdict.status())
}

fn print(args: &Args, report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{report}")?;
    }
    Ok(())
}

async fn call(args: &Args) -> anyhow::Result<Report> {
    let dial = args.dial()?;
    let script = args.script.as_deref().map(script::load).transpose()?;
    let source = match &args.file {
        Some(path) => Source::file(path)?,
        None => Source::tone(args.tone),
    };
    if let Some(path) = &args.out {
        // A wrong path is known before the call, not after it.
        std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    let url = dial.url().to_string();
    let mut bar = Bar::new(args.length(source.length()), !args.json && std::io::stderr().is_terminal());

    let call = reach(args, dial, &mut bar).await?;
    let subject = Subject { url, id: call.id().to_string(), transport: call.transport() };
    let (mouth, ear, length) = match script {
        Some(turns) => {
            let runner = Runner::new(turns, Instant::now());
            bar.length = args.length(Some(runner.spoken_time()));
            let (mouth, ear) = Mouth::script(runner);
            (mouth, ear, Args::MOST)
        }
        None => {
            let length = args.length(source.length());
            let (mouth, ear) = Mouth::sound(source, length);
            (mouth, ear, length)
        }
    };
    let playout = call.playout();
    let conversation = converse(&call, mouth, ear, length, &mut bar).await;
    let summary = call.end().await;
    bar.clear();
    if let Some(path) = &args.out {
        let mut out = create(path, playout)?;
        out.write(&conversation.heard.samples).and_then(|_| out.finish()).context("cannot write the WAV file")?;
    }
    Ok(Report::new(subject, &summary, conversation))
}

type WavFile = wav::Writer<std::io::BufWriter<std::fs::File>>;

fn create(path: &Path, format: PcmFormat) -> anyhow::Result<WavFile> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let limit = Duration::from_secs(24 * 3600);
    wav::Writer::new(std::io::BufWriter::new(file), format, limit)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Connects; where the service is waited for, again and again until it takes the call or the time is over.
async fn reach(args: &Args, mut dial: Dial, bar: &mut Bar) -> anyhow::Result<Call> {
    let until = args.patience().map(|patience| Instant::now() + patience);
    let mut told = String::new();
    loop {
        let error = match connect(dial, bar).await {
            Ok(call) => return Ok(call),
            Err(error) => error,
        };
        let passes = error.downcast_ref::<ClientError>().is_some_and(ClientError::may_pass);
        if !passes || until.is_none_or(|until| Instant::now() + AGAIN >= until) {
            return Err(error);
        }
        let why = format!("not yet: {error:#}");
        if why != told {
            // Nothing can be done about a closed output.
            let _ = writeln!(std::io::stderr(), "{why}");
            told = why;
        }
        tokio::time::sleep(AGAIN).await;
        // A new id: the last attempt's may be somebody's session for a moment yet.
        dial = args.dial()?;
    }
}

async fn connect(dial: Dial, bar: &mut Bar) -> anyhow::Result<Call> {
    bar.say(&format!("calling {} …", dial.url()));
    let connected = tokio::select! {
        connected = dial.connect() => connected.map_err(anyhow::Error::new),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(anyhow::Error::new)
            .and_then(|()| Err(anyhow::anyhow!("interrupted before there was a connection"))),
    };
    bar.clear();
    connected
}

/// Speaks and listens, both on one clock, for `length` at most.
async fn converse(call: &Call, mut mouth: Mouth, ear: Ear, length: Duration, bar: &mut Bar) -> Conversation {
    let (format, playout) = (mouth.format(), call.playout());
    let start = Instant::now();
    let mut spoken = Recording::new(format.rate, length);
    let mut heard = Recording::new(playout.rate, length + AFTER);
    let mut messages = Vec::new();

    let speak = async {
        let mut piece = vec![0; (PIECE.as_secs_f64() * f64::from(format.rate)) as usize];
        let mut tick = tokio::time::interval_at((start + PIECE).into(), PIECE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut position = Duration::ZERO;
        while position < length + AFTER {
            let Piece::Filled(acts) = mouth.fill(start + position, position, &mut piece) else { return };
            for act in acts {
                if let Err(error) = perform(call, act).await {
                    tracing::warn!(%error, "a turn of the script cannot be taken");
                    return;
                }
            }
            spoken.place(position, &piece);
            position += PIECE;
            // A microphone hands a piece over when its last sample was spoken.
            tick.tick().await;
            if call.send_audio(&piece, format).await.is_err() {
                return;
            }
        }
    };
    let level = std::cell::Cell::new(f32::NEG_INFINITY);
    let listen = async {
        while let Some(chunk) = call.next_audio().await {
            level.set(level_dbfs(&chunk.samples));
            ear.hear(Instant::now(), &chunk);
            heard.place(chunk.at.saturating_duration_since(start), &chunk.samples);
        }
    };
    let watch = async {
        while let Some(event) = call.next_event().await {
            let line = match event {
                Event::Message(message) => message_line(&message),
                Event::Reconnecting { reason } => format!("joining again: {reason}"),
                Event::Reconnected => "joined again".to_owned(),
                Event::Cleared => "clear: what was not heard yet is taken back".to_owned(),
                Event::ReconnectFailed { reason } => format!("joining again failed: {reason}"),
                _ => continue,
            };
            ear.told(Instant::now(), &line);
            if messages.len() < MAX_MESSAGES {
                messages.push(line);
            }
        }
    };
    let draw = async {
        let mut tick = tokio::time::interval(REDRAW);
        loop {
            tick.tick().await;
            bar.draw(start.elapsed(), level.get());
        }
    };
    tokio::select! {
        () = speak => {}
        // The server has ended the call.
        ((), ()) = async { tokio::join!(listen, watch) } => {}
        () = draw => {}
        // Hanging up early is not an error: the report is of what there was.
        _ = tokio::signal::ctrl_c() => {}
    }
    Conversation { spoken, heard, messages, turns: ear.turns(Instant::now()) }
}

async fn perform(call: &Call, act: Act) -> Result<(), ClientError> {
    match act {
        Act::Say(text) => call.send_text(text).await,
        Act::Press(digit) => call.send_digit(digit).await,
        // The mouth has taken it.
        Act::Play(_) => Ok(()),
    }
}

/// The progress bar on a terminal; nothing elsewhere.
struct Bar {
    length: Duration,
    terminal: Option<std::io::Stderr>,
}

impl Bar {
    fn new(length: Duration, shown: bool) -> Self {
        Self { length, terminal: shown.then(std::io::stderr) }
    }

    fn say(&mut self, text: &str) {
        if let Some(terminal) = &mut self.terminal {
            // A bar that cannot be drawn is no reason to hang up.
            let _ = write!(terminal, "\r\u{1b}[K{text}").and_then(|()| terminal.flush());
        }
    }

    fn draw(&mut self, elapsed: Duration, level: f32) {
        self.say(&bar(elapsed, self.length, level));
    }

    fn clear(&mut self) {
        self.say("");
    }
}

/// One line: how far the call is, and how loud it is what comes back.
fn bar(elapsed: Duration, length: Duration, level: f32) -> String {
    const WIDTH: usize = 24;
    let part = |share: f32, width: usize| ((share.clamp(0.0, 1.0) * width as f32).round() as usize).min(width);
    let done = part(elapsed.as_secs_f32() / length.as_secs_f32().max(0.001), WIDTH);
    // From inaudible to as loud as it gets.
    let loud = part((level + 50.0) / 50.0, 10);
    format!(
        "[{}{}] {:>3.0}/{:.0} s  in [{}{}]",
        "#".repeat(done),
        " ".repeat(WIDTH - done),
        elapsed.as_secs_f32(),
        length.as_secs_f32(),
        "|".repeat(loud),
        " ".repeat(10 - loud)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        fn check(elapsed_ms: u64, level: f32, expected: &str) {
            assert_eq!(bar(Duration::from_millis(elapsed_ms), Duration::from_secs(4), level), expected);
        }
        check(0, f32::NEG_INFINITY, "[                        ]   0/4 s  in [          ]");
        check(2_000, -20.0, "[############            ]   2/4 s  in [||||||    ]");
        check(9_000, 3.0, "[########################]   9/4 s  in [||||||||||]");
        check(1_000, f32::NAN, "[######                  ]   1/4 s  in [          ]");
    }
}
