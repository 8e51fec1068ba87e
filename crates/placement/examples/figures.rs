//! The figures that the choice of a placement rests on: how full the fullest worker is, and how many keys go elsewhere when a
//! worker comes or goes. `cargo run --release -p streamfleet-placement --example figures` prints what docs/placement.md has, and a
//! test holds the first rows of it against this program.
//!
//! Sessions arrive one after another, 20 a worker on the mean, at workers of 40 places, and stay. Moved keys are those that a
//! second run, with one worker less or more, places elsewhere. Ten seeds, two for a thousand workers; means.

#![allow(clippy::print_stdout, reason = "a program that prints its figures")]

use streamfleet_placement::{Affinity, Key, Packing, Policy, Worker, rank};

const SEEDS: u32 = 10;
const SESSIONS_PER_WORKER: usize = 20;
const CAPACITY: u32 = 40;

fn main() {
    println!(
        "| workers | peak to mean, plain | bounded | moved when one goes, plain | bounded | when one comes, plain | bounded |"
    );
    println!("|---|---|---|---|---|---|---|");
    for workers in [3, 10, 50, 100, 300, 1_000] {
        println!("{}", row(workers));
    }
    println!();
    decisions();
}

/// The figures of a fleet of so many workers, as a row of the table.
fn row(workers: usize) -> String {
    let plain = Policy { affinity: Affinity::Prefer, ..Policy::default() };
    let bounded = Policy { packing: Packing::Spread, soft_cap_percent: 100, ..Policy::default() };
    let mut row = [0.0; 6];
    // With so many workers one run is like another.
    let seeds = if workers > 300 { 2 } else { SEEDS };
    for seed in 0..seeds {
        for (column, policy) in [plain, bounded].iter().enumerate() {
            let before = place(workers, seed, policy, None);
            row[column] += peak_to_mean(&before, workers);
            row[2 + column] += moved(&before, &place(workers, seed, policy, Some(workers / 2)));
            let more = place(workers + 1, seed, policy, None);
            row[4 + column] += moved(&before, &more[..before.len()]);
        }
    }
    let [peak, bound, gone, gone_bound, more, more_bound] = row.map(|sum| sum / f64::from(seeds));
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let (gone, gone_bound, more, more_bound) = (percent(gone), percent(gone_bound), percent(more), percent(more_bound));
    format!("| {workers} | {peak:.2} | {bound:.2} | {gone} | {gone_bound} | {more} | {more_bound} |")
}

/// The worker of each session, in the order of arrival. The number of sessions is that of the first `workers`.
fn place(workers: usize, seed: u32, policy: &Policy, gone: Option<usize>) -> Vec<usize> {
    let mut fleet: Vec<Worker> =
        (0..workers).map(|n| Worker::new(&format!("{seed}/worker-{n}"), 0, CAPACITY)).collect();
    if let Some(gone) = gone {
        fleet[gone].capacity = 0;
    }
    (0..SESSIONS_PER_WORKER * workers)
        .map(|session| {
            let order = rank(Key::of(&format!("{seed}/session-{session}")), &fleet, policy);
            let chosen = order[0];
            fleet[chosen].active += 1;
            chosen
        })
        .collect()
}

fn peak_to_mean(placed: &[usize], workers: usize) -> f64 {
    let mut counts = vec![0_usize; workers];
    placed.iter().for_each(|worker| counts[*worker] += 1);
    let peak = counts.iter().copied().max().unwrap_or(0);
    peak as f64 * workers as f64 / placed.len() as f64
}

/// The share of all sessions that are elsewhere.
fn moved(before: &[usize], after: &[usize]) -> f64 {
    let elsewhere = before.iter().zip(after).filter(|(a, b)| a != b).count();
    elsewhere as f64 / before.len() as f64
}

/// Decisions a second on one core.
fn decisions() {
    for workers in [10, 100, 1_000] {
        let fleet: Vec<Worker> =
            (0..workers).map(|n| Worker::new(&format!("worker-{n}"), u32::try_from(n % 18).unwrap_or(0), 20)).collect();
        let began = std::time::Instant::now();
        let mut decided = 0_u32;
        while began.elapsed() < std::time::Duration::from_millis(500) {
            std::hint::black_box(rank(Key::of(&decided.to_string()), &fleet, &Policy::default()));
            decided += 1;
        }
        println!("{workers} workers: {:.0} decisions a second", f64::from(decided) / began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The larger fleets take minutes without optimisation; they are the same program.
    #[test]
    fn the_document_has_these_figures() {
        let document = include_str!("../../../docs/placement.md");
        for workers in [3, 10, 50] {
            let row = row(workers);
            assert!(document.lines().any(|line| line == row), "docs/placement.md has no line {row}");
        }
    }
}
