//! `streamfleet simulate`: what a day would cost, and whom it would turn away.

mod report;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use streamfleet_scaling::Buffer;
use streamfleet_simulator::{Generator, Holding, Hpa, Load, Rule, Setup, Victims, autoscaler, csv, plot, streamfleet};

use self::report::{Day, Played};

/// Something could not be read or written.
const EXIT_FAILED: u8 = 1;

/// A recorded load that is read, in bytes: ten million lines.
const MAX_CSV: u64 = 512 << 20;

/// Play days of traffic under the scaling rule that ships, and under an HPA
///
/// The load is generated, a day for each seed, or read from a file of `start,duration` lines in seconds. Beside the rule it
/// plays a HorizontalPodAutoscaler at a target of 70 % of all places, once with a grace period of 30 s and once with 5 h.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Exit status:
  0   done
  1   a file could not be read or written
  64  the command line cannot be understood

Examples:
  streamfleet simulate
  streamfleet simulate --seed 1..=10 --pod-start 90
  streamfleet simulate --load calls.csv --capacity 50 --buffer 40 --svg calls.svg
  streamfleet simulate --sessions-per-day 1000000 --capacity 50 --output json")]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where the sessions come from.
#[derive(clap::Args, Debug)]
struct LoadArgs {
    /// A recorded load instead of a generated one: a CSV file, `-` for the standard input
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    load: Option<PathBuf>,
    /// Which days are generated: a number, or a range as 1..=10
    #[arg(long, value_name = "N", default_value = "1", value_parser = seeds, help_heading = "Load", conflicts_with = "load")]
    seed: Seeds,
    /// Sessions of a generated day, without its bursts
    #[arg(long, value_name = "N", default_value = "82000", value_parser = clap::value_parser!(u32).range(1..=10_000_000), help_heading = "Load", conflicts_with = "load")]
    sessions_per_day: u32,
    /// Bursts of a generated day
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(0..=100), help_heading = "Load", conflicts_with = "load")]
    bursts: u32,
    /// How many times as many sessions come in a burst
    #[arg(long, value_name = "X", default_value = "4", value_parser = factor, help_heading = "Load", conflicts_with = "load")]
    burst_factor: f64,
    /// How long a burst takes to rise, of its ten minutes, in seconds
    #[arg(long, value_name = "S", default_value = "120", value_parser = clap::value_parser!(u32).range(0..=300), help_heading = "Load", conflicts_with = "load")]
    burst_rise: u32,
    /// The duration that half of the sessions do not exceed, in seconds
    #[arg(long, value_name = "S", default_value = "240", value_parser = clap::value_parser!(u32).range(1..=86_400), help_heading = "Load", conflicts_with = "load")]
    median: u32,
}

/// What is there to serve them.
#[derive(clap::Args, Debug)]
struct FleetArgs {
    /// Sessions that one pod takes (workers.sessionsPerWorker)
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=2_048), help_heading = "Fleet")]
    capacity: u32,
    /// How long a pod takes until it serves, in seconds
    #[arg(long, value_name = "S", default_value = "30", value_parser = clap::value_parser!(u32).range(0..=3_600), help_heading = "Fleet")]
    pod_start: u32,
    /// Pods at least (autoscaling.minReplicas)
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(0..=10_000), help_heading = "Fleet")]
    min: u32,
    /// Pods that serve at most (autoscaling.maxReplicas)
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Fleet")]
    max: u32,
    /// Places that are kept free: a share of the sessions, or a number (autoscaling.buffer)
    #[arg(long, value_name = "B", default_value_t = Buffer::default(), help_heading = "Fleet")]
    buffer: Buffer,
    /// Whether sessions gather or scatter (routing.packing)
    #[arg(long, value_name = "P", default_value = "pack", help_heading = "Fleet")]
    packing: Packing,
    /// Nothing goes that was wanted within so many seconds (scaleDown.stabilizationSeconds)
    #[arg(long, value_name = "S", default_value = "300", value_parser = clap::value_parser!(u32).range(0..=86_400), help_heading = "Fleet")]
    stabilization: u32,
    /// How long an offer is held, in seconds (routing.offerHoldSeconds)
    #[arg(long, value_name = "S", default_value = "20", value_parser = clap::value_parser!(u32).range(0..=600), help_heading = "Fleet")]
    hold: u32,
    /// When an offer is held: while there is no place and one more pod may come, as routers do, or only while none serves
    #[arg(long, value_name = "WHEN", default_value = "no-place", help_heading = "Fleet")]
    holding: When,
    /// How the HPA's sessions are placed
    #[arg(long, value_name = "P", default_value = "spread", help_heading = "Fleet")]
    hpa_packing: Packing,
    /// Which pods go when the HPA scales down: as the ReplicaSet controller ranks them, or any
    #[arg(long, value_name = "V", default_value = "ranked", help_heading = "Fleet")]
    hpa_victims: Chosen,
}

/// What is told of it.
#[derive(clap::Args, Debug)]
struct OutputArgs {
    /// How it is told
    #[arg(long, value_name = "FORM", default_value = "table", help_heading = "Output")]
    output: Form,
    /// Draw the first day: sessions, capacity and pods over time
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    svg: Option<PathBuf>,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Packing {
    Pack,
    Spread,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum When {
    NoneServes,
    NoPlace,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Chosen {
    Ranked,
    Random,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Form {
    Table,
    Json,
    Csv,
}

impl From<Packing> for streamfleet_simulator::Packing {
    fn from(packing: Packing) -> Self {
        match packing {
            Packing::Pack => Self::Pack,
            Packing::Spread => Self::Spread,
        }
    }
}

/// Days, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seeds(Vec<u64>);

/// Days that are played at most in one call.
const MAX_SEEDS: u64 = 1_000;

/// `7`, or `1..=10`.
fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    let (first, last) = match text.split_once("..=") {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first || last - first >= MAX_SEEDS {
        return Err(format!("a range goes up, over {MAX_SEEDS} days at most"));
    }
    Ok(Seeds((first..=last).collect()))
}

/// A burst's factor.
fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if (1.0..=100.0).contains(&factor) => Ok(factor),
        _ => Err("a number from 1 to 100".to_owned()),
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

impl LoadArgs {
    /// The days and their names, each made when it is asked for: a thousand of them are more than fits into memory.
    fn days(&self) -> anyhow::Result<Box<dyn Iterator<Item = (u64, Load)> + '_>> {
        if let Some(path) = &self.load {
            return Ok(Box::new(std::iter::once((1, recorded(path)?))));
        }
        let of_seed = |seed: &u64| {
            let generator = Generator {
                sessions_per_day: self.sessions_per_day.into(),
                bursts: self.bursts,
                burst_factor: self.burst_factor,
                burst_rise: seconds(self.burst_rise),
                median: seconds(self.median),
                seed: *seed,
                ..Generator::default()
            };
            (*seed, generator.load())
        };
        Ok(Box::new(self.seed.0.iter().map(of_seed)))
    }
}

fn recorded(path: &Path) -> anyhow::Result<Load> {
    use std::io::Read as _;
    let named = || path.display().to_string();
    let source: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(named)?)
    };
    let mut text = String::new();
    let read = source.take(MAX_CSV + 1).read_to_string(&mut text).with_context(named)?;
    anyhow::ensure!(read as u64 <= MAX_CSV, "{}: more than {} MB", named(), MAX_CSV >> 20);
    csv::read(&text).with_context(named)
}

impl FleetArgs {
    fn setup(&self) -> Setup {
        Setup {
            capacity: self.capacity,
            start: seconds(self.pod_start),
            min: self.min,
            max: self.max,
            hold: seconds(self.hold),
            holding: match self.holding {
                When::NoneServes => Holding::NoneServes,
                When::NoPlace => Holding::NoPlace,
            },
        }
    }

    fn rule(&self) -> Rule {
        Rule {
            buffer: self.buffer,
            packing: self.packing.into(),
            stabilization: seconds(self.stabilization),
            ..Rule::default()
        }
    }

    fn hpa(&self, seed: u64) -> Hpa {
        Hpa {
            packing: self.hpa_packing.into(),
            victims: match self.hpa_victims {
                Chosen::Ranked => Victims::Ranked,
                Chosen::Random => Victims::Random,
            },
            seed,
            ..Hpa::default()
        }
    }

    /// The three sides at once: they share nothing but the load.
    fn play(&self, seed: u64, load: &Load) -> Day {
        let (setup, rule, patient) = (self.setup(), self.rule(), self.hpa(seed));
        let hasty = Hpa { grace: Duration::from_secs(30), ..patient.clone() };
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| Played::new(|| autoscaler(&setup, &patient, load)));
            let hasty = scope.spawn(|| Played::new(|| autoscaler(&setup, &hasty, load)));
            Day {
                seed,
                streamfleet: Played::new(|| streamfleet(&setup, &rule, load)),
                hpa_five_hours: joined(patient),
                hpa_half_a_minute: joined(hasty),
            }
        })
    }
}

/// What a thread has played. Its panic is the caller's.
fn joined(side: ScopedJoinHandle<'_, Played>) -> Played {
    side.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let FleetArgs { min, max, .. } = args.fleet;
    if min > max {
        // Without a reader there is nobody to tell.
        drop(writeln!(std::io::stderr().lock(), "error: --min {min} is more than --max {max}"));
        return ExitCode::from(crate::USAGE);
    }
    match told(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a reader there is nobody to tell.
            drop(writeln!(std::io::stderr().lock(), "{error:#}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn told(args: &Args) -> anyhow::Result<()> {
    let days: Vec<Day> = args.load.days()?.map(|(seed, load)| args.fleet.play(seed, &load)).collect();
    if let (Some(path), Some(day)) = (&args.output.svg, days.first()) {
        let pictures: Vec<_> =
            day.all().iter().map(|(name, played)| (report::title(name, played), &played.outcome)).collect();
        std::fs::write(path, plot::svg(&pictures, args.fleet.capacity)).with_context(|| path.display().to_string())?;
    }
    let text = match args.output.output {
        Form::Table => report::table(&days),
        Form::Json => report::json(&days)?,
        Form::Csv => report::csv(&days),
    };
    // A closed pipe is no reason to fail.
    drop(std::io::stdout().lock().write_all(text.as_bytes()));
    Ok(())
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

    /// A thousand days of a million sessions were 16 GB before the first was played.
    #[test]
    fn a_day_is_made_when_it_is_played() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace()).unwrap().args.load;
        let many = parse("simulate --seed 1..=1000 --sessions-per-day 10000");
        let first: Vec<(u64, Load)> = many.days().unwrap().take(2).collect();
        let one = |seed: u64| {
            let args = parse(&format!("simulate --seed {seed} --sessions-per-day 10000"));
            args.days().unwrap().collect::<Vec<_>>()
        };
        assert_eq!(first, [one(1), one(2)].concat());
        // A day of ten million is made by whoever plays it: nobody does.
        let huge = parse("simulate --seed 1..=1000 --sessions-per-day 10000000");
        assert_eq!(huge.days().unwrap().size_hint().0, 1_000);
    }

    #[test]
    fn days_are_a_number_or_a_range() {
        assert_eq!(seeds("7"), Ok(Seeds(vec![7])));
        assert_eq!(seeds("1..=3"), Ok(Seeds(vec![1, 2, 3])));
        for wrong in ["", "a", "3..=1", "1..3", "1..=", "0..=1000", "-1"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0.5", "101", "nan", "x"] {
            assert!(factor(wrong).is_err(), "{wrong}");
        }
    }
}
