//! The search for the gate's thresholds.

use std::path::Path;

use anyhow::Result;
use streamfleet_pause::gate::{Gate, GateOptions};
use streamfleet_pause::{Decision, Earshot, PauseDetector, Rules};

use crate::corpus::{self, TUNING};
use crate::scene::{Scene, Score};
use crate::{Noises, Row, rows};

const HOP: usize = 256;

/// What the model and the level meter say about each hop of a scene: probability, level, the room's level. The same for
/// every gate.
type Trace = Vec<(f32, f32, f32)>;

/// Prints the best thresholds found, and what they and the defaults make of the tuning scenes.
pub(crate) fn run(folder: &Path) -> Result<()> {
    let clips = corpus::clips(&TUNING, folder)?;
    let noises = Noises::new(1, folder)?;
    let rows = rows(&clips, &noises, 10_000);
    let mut tried = Vec::new();
    for room in rooms() {
        let traces = traces(&rows, room);
        let of_room = gates(room).into_iter().map(|gate| (loss(&rows, &scores(&rows, &traces, gate)), gate));
        let start = tried.len();
        tried.extend(of_room);
        let best = tried[start..].iter().map(|(loss, _)| *loss).fold(f64::INFINITY, f64::min);
        let GateOptions { room_level, floor_quantile, memory_hops, .. } = room;
        println!("room {room_level} dBFS, quantile {floor_quantile}, {memory_hops} hops: {best:.1}");
    }
    tried.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (loss, options) in tried.iter().take(12) {
        println!("{loss:7.2} {options:?}");
    }
    for (title, options) in [("best", tried[0].1), ("default", GateOptions::default())] {
        let scores = scores(&rows, &traces(&rows, options), options);
        println!("\n{title}: {:.2}\n", loss(&rows, &scores));
        println!("| | found, % | false starts a minute | pieces, % | p50, ms | p95, ms |\n|---|---|---|---|---|---|");
        for ((name, _), score) in rows.iter().zip(&scores) {
            let [p50, p95] = [0.5, 0.95].map(|quantile| score.delay(quantile).unwrap_or(f64::NAN));
            let (found, starts, split) = (score.found_percent(), score.false_per_minute(), score.split_percent());
            println!("| {name} | {found:.1} | {starts:.2} | {split:.1} | {p50:.0} | {p95:.0} |");
        }
    }
    Ok(())
}

fn traces(rows: &[Row], options: GateOptions) -> Vec<Vec<Trace>> {
    let trace = |scene: &Scene| {
        let mut model = Earshot::with_options(options);
        let hops = scene.samples.chunks_exact(HOP).filter_map(|hop| hop.try_into().ok());
        hops.map(|hop| model.measure(hop)).collect()
    };
    rows.iter().map(|(_, scenes)| scenes.iter().map(trace).collect()).collect()
}

fn rooms() -> Vec<GateOptions> {
    let mut all = Vec::new();
    for room_level in [-60.0, -55.0, -50.0] {
        for floor_quantile in [0.3, 0.35, 0.4] {
            for memory_hops in [600.0, 1_000.0, 1_500.0] {
                all.push(GateOptions { room_level, floor_quantile, memory_hops, ..GateOptions::default() });
            }
        }
    }
    all
}

fn gates(room: GateOptions) -> Vec<GateOptions> {
    let mut all = Vec::new();
    for usual_quantile in [0.85, 0.92] {
        for enter in [0.55, 0.6, 0.65] {
            for enter_at_most in [0.7, 0.73, 0.76] {
                for enter_above_room in [0.05, 0.1] {
                    for margin in [3.5, 4.0, 4.5, 5.0] {
                        let gate = GateOptions { usual_quantile, enter, enter_at_most, enter_above_room, ..room };
                        all.push(GateOptions { margin, ..gate });
                    }
                }
            }
        }
    }
    all
}

fn scores(rows: &[Row], traces: &[Vec<Trace>], options: GateOptions) -> Vec<Score> {
    let of_row = |((_, scenes), traces): (&Row, &Vec<Trace>)| {
        let mut sum = Score::default();
        for (scene, trace) in scenes.iter().zip(traces) {
            sum.add(score(scene, trace, options));
        }
        sum
    };
    rows.iter().zip(traces).map(of_row).collect()
}

fn score(scene: &Scene, trace: &Trace, options: GateOptions) -> Score {
    let mut gate = Gate::new(options);
    let hop = const { std::num::NonZeroUsize::new(HOP).expect("256 is not zero") };
    let mut detector = PauseDetector::new(Rules::default(), hop);
    let (mut starts, mut pauses) = (Vec::new(), Vec::new());
    for &(probability, level, floor) in trace {
        for decision in detector.hear(gate.decide(probability, level, floor)).into_iter().flatten() {
            let now = detector.position() as usize;
            match decision {
                Decision::StartedTalking { .. } => starts.push(now),
                Decision::PauseDetected { .. } => pauses.push(now),
            }
        }
    }
    Score::of(&scene.spoken, scene.samples.len(), &starts, &pauses)
}

/// What is lost: a percent of the utterances that is not found is as bad as one in pieces (which count up to once an utterance) or a tenth of a false start a
/// minute. Rows at 5 dB count half: nobody expects much of them.
fn loss(rows: &[Row], scores: &[Score]) -> f64 {
    let each = rows.iter().zip(scores).map(|((name, _), score)| {
        let weight = if name.contains(" 5 dB") { 0.5 } else { 1.0 };
        let missed = if score.utterances == 0 { 0.0 } else { 100.0 - score.found_percent() };
        weight * (missed + score.split_percent().min(100.0) + 10.0 * score.false_per_minute())
    });
    each.sum()
}
