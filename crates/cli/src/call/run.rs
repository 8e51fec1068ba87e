//! Making the call: speak as a microphone does, listen, show how it goes, report.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use streamfleet_audio::analysis::level_dbfs;
use streamfleet_audio::wav;
use streamfleet_client::{Call, Client, ClientOptions, Event, PcmFormat};
use tokio::time::MissedTickBehavior;

use super::arguments::Args;
use super::report::{MAX_MESSAGES, Report, Subject, Verdict, message_line};
use super::sound::Recording;
use super::source::Source;

/// What a microphone hands over at a time.
const PIECE: Duration = Duration::from_millis(20);
/// How long to listen on after the last word: a round trip with its buffers.
const AFTER: Duration = Duration::from_millis(500);
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
    let options = args.options()?;
    let source = match &args.file {
        Some(path) => Source::file(path)?,
        None => Source::tone(args.tone),
    };
    // Opened first: a wrong path is known before the call, not after it.
    let out = args.out.as_deref().map(|path| create(path, options.playout)).transpose()?;
    let length = args.length(source.length());
    let (url, playout) = (options.url.to_string(), options.playout);
    let mut bar = Bar::new(length, !args.json && std::io::stderr().is_terminal());

    let call = connect(options, &mut bar).await?;
    let subject = Subject { url, id: call.id().to_string() };
    let conversation = converse(&call, source, playout, length, &mut bar).await;
    let summary = call.end().await;
    bar.clear();
    let Conversation { spoken, heard, messages } = conversation;
    if let Some(mut out) = out {
        out.write(&heard.samples).and_then(|_| out.finish()).context("cannot write the WAV file")?;
    }
    Ok(Report::new(subject, &summary, &spoken, &heard, messages))
}

type WavFile = wav::Writer<std::io::BufWriter<std::fs::File>>;

fn create(path: &Path, format: PcmFormat) -> anyhow::Result<WavFile> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let limit = Duration::from_secs(24 * 3600);
    wav::Writer::new(std::io::BufWriter::new(file), format, limit)
        .with_context(|| format!("cannot write {}", path.display()))
}

async fn connect(options: ClientOptions, bar: &mut Bar) -> anyhow::Result<Call> {
    bar.say(&format!("calling {} …", options.url));
    let connected = tokio::select! {
        connected = Client::connect(options) => connected.map_err(anyhow::Error::new),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(anyhow::Error::new)
            .and_then(|()| Err(anyhow::anyhow!("interrupted before there was a connection"))),
    };
    bar.clear();
    connected
}

/// Both sides of a call, on one clock.
struct Conversation {
    spoken: Recording,
    heard: Recording,
    messages: Vec<String>,
}

async fn converse(
    call: &Call,
    mut source: Source,
    playout: PcmFormat,
    length: Duration,
    bar: &mut Bar,
) -> Conversation {
    let format = source.format();
    let start = Instant::now();
    let mut spoken = Recording::new(format.rate, length);
    let mut heard = Recording::new(playout.rate, length + AFTER);
    let mut messages = Vec::new();

    let speak = async {
        let mut piece = vec![0; (PIECE.as_secs_f64() * f64::from(format.rate)) as usize];
        let mut tick = tokio::time::interval_at((start + PIECE).into(), PIECE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut position = Duration::ZERO;
        // After the last word the microphone stays open: what ends would be concealed at the other side, and here.
        while position < length + AFTER {
            if position < length {
                source.fill(&mut piece)
            } else {
                piece.fill(0)
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
            heard.place(chunk.at.saturating_duration_since(start), &chunk.samples);
        }
    };
    let watch = async {
        while let Some(event) = call.next_event().await {
            let line = match event {
                Event::Message(message) => message_line(&message),
                Event::Reconnecting { reason } => format!("joining again: {reason}"),
                Event::Reconnected => "joined again".to_owned(),
                Event::ReconnectFailed { reason } => format!("joining again failed: {reason}"),
                _ => continue,
            };
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
    Conversation { spoken, heard, messages }
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
