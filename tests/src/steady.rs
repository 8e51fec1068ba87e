//! A machine that gives its cores to others, seen from inside: what is judged by time while it does so says nothing about the
//! product.

use std::any::Any;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// So often a core is asked whether it is there.
const TICK: Duration = Duration::from_millis(5);
/// What a core that has work of its own takes to come to somebody who wakes up: a few slices of other threads.
const WORK: Duration = Duration::from_millis(40);
/// A machine whose cores were away for longer than this in one second is not steady. Sound is ahead by 0.1 to 0.3 s.
const AWAY: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
/// So often a test that fails on a machine that is not steady is had once more.
const RUNS: usize = 5;
/// How long a steady second is waited for before the next run.
const PATIENCE: Duration = Duration::from_secs(30);

/// Absences that are remembered: those of many minutes on a machine that is never steady.
const REMEMBERED: usize = 10_000;

/// When a core was away, and for how long.
type Absence = (Instant, Duration);

/// A thread on each core that sleeps and looks at the clock.
pub struct Gauge {
    stop: Arc<AtomicBool>,
    absences: Arc<Mutex<VecDeque<Absence>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Gauge {
    /// Watches from now on, until it is dropped.
    ///
    /// # Errors
    /// When there are no threads.
    pub fn start() -> Result<Self> {
        let cores = sched_getaffinity(None).context("the cores of this process")?;
        let mut gauge = Self { stop: Arc::default(), absences: Arc::default(), threads: Vec::new() };
        for core in (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)) {
            let (stop, absences) = (gauge.stop.clone(), gauge.absences.clone());
            let thread = thread::Builder::new().name(format!("gauge-{core}"));
            gauge.threads.push(thread.spawn(move || watch(core, &stop, &absences))?);
        }
        Ok(gauge)
    }

    /// Whether the cores came when they were wanted, in each second since `since`. What is judged by time may be late where they
    /// did not.
    pub fn was_steady(&self, since: Instant) -> bool {
        // A core that is away now says so when it is back.
        thread::sleep(WORK);
        self.away(since) <= AWAY
    }

    /// The most that cores were away in any one second since `since`.
    fn away(&self, since: Instant) -> Duration {
        let absences = self.absences.lock().unwrap_or_else(PoisonError::into_inner);
        worst_second(absences.iter().filter(|(at, _)| *at >= since).copied().collect())
    }

    /// Waits until the machine was steady for a second, or patience ends.
    fn await_steady(&self) {
        let began = Instant::now();
        loop {
            let now = Instant::now();
            thread::sleep(SECOND);
            if self.away(now) <= AWAY || began.elapsed() > PATIENCE {
                return;
            }
        }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn watch(core: usize, stop: &AtomicBool, absences: &Mutex<VecDeque<Absence>>) {
    let mut only = CpuSet::new();
    only.set(core);
    // Where a thread may not choose its core, it tells of the one that it got.
    let _ = sched_setaffinity(None, &only);
    while !stop.load(Relaxed) {
        let slept = Instant::now();
        thread::sleep(TICK);
        let late = slept.elapsed().saturating_sub(TICK);
        if late > WORK {
            let mut absences = absences.lock().unwrap_or_else(PoisonError::into_inner);
            if absences.len() == REMEMBERED {
                absences.pop_front();
            }
            absences.push_back((Instant::now(), late));
        }
    }
}

/// The largest sum of what ended within one second.
fn worst_second(mut absences: Vec<Absence>) -> Duration {
    // Cores tell of themselves, each in its own time.
    absences.sort_unstable();
    let (mut worst, mut within, mut first) = (Duration::ZERO, Duration::ZERO, 0);
    for (at, late) in &absences {
        while absences[first].0 + SECOND <= *at {
            within -= absences[first].1;
            first += 1;
        }
        within += *late;
        worst = worst.max(within);
    }
    worst
}

/// Has a test that judges sound or time. One that fails is had again if the cores did not come when they were wanted; one that
/// fails on a steady machine has failed, and so has one that fails each time. Only if the hypervisor says each time that it gave the
/// cores to others, which nothing in here can bring about, nothing can be said, and the log says that.
///
/// # Errors
/// The test's, and that the machine cannot be watched.
pub fn judged(test: impl FnMut() -> Result<()>) -> Result<()> {
    let gauge = Gauge::start()?;
    let mut before = stolen()?;
    judged_by(test, |began| {
        // A core that is away now says so when it is back.
        thread::sleep(WORK);
        let disturbance =
            Disturbance { away: gauge.away(began), stolen: stolen().unwrap_or(before).saturating_sub(before) };
        if disturbance.away > AWAY {
            gauge.await_steady();
        }
        before = stolen().unwrap_or(before);
        disturbance
    })
}

/// What a machine did while a test ran.
#[derive(Debug, Clone, Copy)]
struct Disturbance {
    /// The most that its cores were late in any one second, whoever had them.
    away: Duration,
    /// How long the hypervisor gave them to others, by its own word.
    stolen: Duration,
}

/// The same where `disturbed` says what the machine did since a run began.
fn judged_by(mut test: impl FnMut() -> Result<()>, mut disturbed: impl FnMut(Instant) -> Disturbance) -> Result<()> {
    let mut always_stolen = true;
    for run in 1..=RUNS {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(&mut test)).unwrap_or_else(|panic| Err(told(panic.as_ref())));
        let Err(error) = outcome else { return Ok(()) };
        let Disturbance { away, stolen } = disturbed(began);
        always_stolen &= stolen > AWAY;
        if away <= AWAY || (run == RUNS && !always_stolen) {
            return Err(error);
        }
        let name = thread::current().name().unwrap_or("a test").to_owned();
        // Past the harness, which shows what failed tests print.
        writeln!(
            io::stderr(),
            "{name}, run {run} of {RUNS}: not judged, cores were away for {away:?} in a second, {stolen:?} stolen: {error:#}"
        )?;
    }
    Ok(())
}

/// How long the hypervisor has given the cores to others since the machine began (`steal`, proc_stat(5), in hundredths of seconds).
fn stolen() -> Result<Duration> {
    steal_of(&fs::read_to_string("/proc/stat")?).context("/proc/stat without a line of all cores")
}

fn steal_of(stat: &str) -> Option<Duration> {
    let all = stat.lines().next()?.strip_prefix("cpu ")?;
    all.split_whitespace().nth(7)?.parse().ok().map(|ticks: u64| Duration::from_millis(10 * ticks))
}

fn told(panic: &(dyn Any + Send)) -> anyhow::Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    anyhow!("{}", text.unwrap_or("a panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_second_is_the_sum_of_what_fell_into_it() {
        let start = Instant::now();
        let at = |ms: u64, late: u64| (start + Duration::from_millis(ms), Duration::from_millis(late));
        assert_eq!(worst_second(Vec::new()), Duration::ZERO);
        let absences = vec![at(1_500, 70), at(0, 50), at(900, 60), at(3_000, 120)];
        assert_eq!(worst_second(absences[1..3].to_vec()), Duration::from_millis(110));
        assert_eq!(worst_second(absences), Duration::from_millis(130));
    }

    /// The outcome, and how often a test is had that fails `failures` times on a machine that does this.
    fn had(failures: usize, away: Duration, stolen: Duration) -> (Result<(), String>, usize) {
        let mut runs = 0;
        let outcome = judged_by(
            || {
                runs += 1;
                anyhow::ensure!(runs > failures, "wrong");
                Ok(())
            },
            |_| Disturbance { away, stolen },
        );
        (outcome.map_err(|error| error.to_string()), runs)
    }

    #[test]
    fn only_a_machine_that_is_not_steady_is_tried_again() {
        let (wrong, none) = (Err("wrong".to_owned()), Duration::ZERO);
        for (failures, away, stolen, outcome, runs) in [
            (0, AWAY * 2, none, Ok(()), 1),
            (1, AWAY, AWAY * 9, wrong.clone(), 1),
            (1, AWAY * 2, none, Ok(()), 2),
            (RUNS, AWAY, none, wrong.clone(), 1),
            // Late each time, and nobody has taken the cores away: it is somebody in here.
            (RUNS, AWAY * 2, none, wrong, RUNS),
            (RUNS, AWAY * 2, AWAY * 2, Ok(()), RUNS),
        ] {
            assert_eq!(had(failures, away, stolen), (outcome, runs), "{failures} failures, {away:?}, {stolen:?}");
        }
    }

    #[test]
    fn what_the_hypervisor_says() {
        let stat = "cpu  8201720 2001478 843379 4015342 29910 0 77649 210275 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(steal_of(stat), Some(Duration::from_millis(2_102_750)));
        for other in ["", "cpu0 1 2 3 4 5 6 7 8", "cpu  1 2"] {
            assert_eq!(steal_of(other), None, "{other}");
        }
        assert!(stolen().is_ok());
    }

    #[test]
    fn a_panic_is_a_failure() {
        let outcome = judged_by(|| panic!("worse"), |_| Disturbance { away: Duration::ZERO, stolen: Duration::ZERO });
        assert_eq!(outcome.map_err(|error| error.to_string()), Err("worse".to_owned()));
    }
}
