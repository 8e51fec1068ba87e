//! The detector that ships here against WebRTC's, in the same pause machine, on the same audio: how many utterances
//! are found, how often somebody is thought to talk who does not, how long until a pause is noticed, and what it costs.
//!
//! `cargo run --release -p streamfleet-pause --example compare`
//!
//! Speech is made by espeak-ng, which must be installed; noises are made from fixed seeds, so that a run repeats. With
//! `-- --tune` the gate's thresholds are searched instead, on sentences, voices, babble and seeds of their own.

#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

mod corpus;
mod scene;
mod tune;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use streamfleet_pause::{Activity, Earshot, VAD_RATE, Vad};

use corpus::{Clip, EVALUATION};
use scene::{Noise, Scene, Score, alone, begins, judge, music, scene, white};

const LEVELS: [f32; 4] = [-12.0, -20.0, -30.0, -40.0];
const RATIOS: [f32; 3] = [20.0, 10.0, 5.0];
const NOISE_SECONDS: usize = 120;
/// How long nobody speaks in the rows without speech.
const ALONE_SECONDS: usize = 240;
/// Voices at the other tables.
const BABBLE_VOICES: usize = 10;

fn main() -> Result<()> {
    let folder = Folder::new()?;
    if std::env::args().any(|argument| argument == "--tune") { tune::run(&folder.0) } else { report(&folder.0) }
}

/// The noises of one half of the experiment: by seed, and babble beginning elsewhere in other voices.
struct Noises {
    white: Vec<f32>,
    babble: Vec<f32>,
    music: Vec<f32>,
}

impl Noises {
    fn new(seed: u64, folder: &Path) -> Result<Self> {
        Ok(Self {
            white: white(NOISE_SECONDS, seed),
            babble: corpus::babble(BABBLE_VOICES, NOISE_SECONDS, seed as usize, folder)?,
            music: music(NOISE_SECONDS, seed),
        })
    }

    fn each(&self) -> [(&'static str, &[f32]); 3] {
        [("white noise", &self.white), ("babble", &self.babble), ("music", &self.music)]
    }
}

/// A row's name and its scenes, one per level.
type Row = (String, Vec<Scene>);

fn rows(clips: &[Clip], levels: &[f32], noises: &Noises, seed: u64) -> Vec<Row> {
    let at_levels = |noise: Option<Noise<'_>>, seed: u64| {
        levels.iter().zip(seed..).map(|(&level, seed)| scene(clips, level, noise.as_ref(), seed)).collect()
    };
    let mut rows = vec![("quiet room".to_owned(), at_levels(None, seed))];
    for (kind, (name, sound)) in noises.each().into_iter().enumerate() {
        for (step, snr) in RATIOS.into_iter().enumerate() {
            let seed = seed + 100 * kind as u64 + 10 * step as u64 + 10;
            rows.push((format!("{name}, {snr} dB SNR"), at_levels(Some(Noise { sound, snr }), seed)));
        }
    }
    let long = corpus::long(clips);
    let long_turns = |noise: Option<Noise<'_>>| {
        levels.iter().zip(seed + 900..).map(|(&level, seed)| scene(&long, level, noise.as_ref(), seed)).collect()
    };
    rows.push(("quiet room, long turns".to_owned(), long_turns(None)));
    let babble = Noise { sound: &noises.babble, snr: 10.0 };
    rows.push(("babble, 10 dB SNR, long turns".to_owned(), long_turns(Some(babble))));
    for (name, sound) in noises.each() {
        let scenes = levels.iter().map(|level| alone(sound, ALONE_SECONDS, level - 10.0, seed + 1_000)).collect();
        rows.push((format!("{name} alone"), scenes));
        let scenes = levels.iter().map(|level| begins(sound, ALONE_SECONDS / 2, level - 10.0, seed + 1_100)).collect();
        rows.push((format!("{name} that begins"), scenes));
    }
    rows
}

fn report(folder: &Path) -> Result<()> {
    let clips = corpus::clips(&EVALUATION, folder)?;
    let noises = Noises::new(7, folder)?;
    let rows = rows(&clips, &LEVELS, &noises, 70_000);

    println!("Each cell: the detector that ships here / webrtc-vad mode 2.\n");
    let mut by_level = Vec::new();
    let mut totals = Vec::new();
    for (name, scenes) in &rows {
        let scores: Vec<_> =
            scenes.iter().map(|scene| (judge(scene, Earshot::new()), judge(scene, WebRtc::new()))).collect();
        let (mut ours, mut theirs) = (Score::default(), Score::default());
        for (our, their) in &scores {
            ours.add(our.clone());
            theirs.add(their.clone());
        }
        totals.push((name.as_str(), (ours, theirs)));
        by_level.push((name, scores));
    }
    table(totals.iter().map(|(name, (ours, theirs))| (*name, (ours, theirs))));

    println!("\nFound (%) and false starts a minute by the level of the speech; noises alone are 10 dB below it.\n");
    println!("| | {} |", LEVELS.map(|level| format!("{level} dBFS")).join(" | "));
    println!("|---|---|---|---|---|");
    for (name, scores) in &by_level {
        let cells: Vec<_> = scores
            .iter()
            .map(|(ours, theirs)| {
                let starts = format!("{:.1} / {:.1}", ours.false_per_minute(), theirs.false_per_minute());
                if ours.utterances == 0 {
                    return starts;
                }
                format!("{}; {starts}", pair(ours.found_percent(), theirs.found_percent()))
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }

    println!("\nCPU time of the thread per second of audio.\n\n| | ours, µs | webrtc-vad, µs |\n|---|---|---|");
    for (name, audio) in costly(&rows) {
        println!("| {name} | {:.0} | {:.0} |", cost(Earshot::new, &audio), cost(WebRtc::new, &audio));
    }
    Ok(())
}

/// A row each, ours and theirs in every cell.
fn table<'a>(rows: impl Iterator<Item = (&'a str, (&'a Score, &'a Score))>) {
    println!(
        "| | utterances | found, % | pauses within an utterance, % | false starts a minute | silence taken for talk, % | \
         delay p50, ms | delay p95, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, (ours, theirs)) in rows {
        let of_speech = |figure: fn(&Score) -> f64| {
            if ours.utterances == 0 { "–".to_owned() } else { pair(figure(ours), figure(theirs)) }
        };
        println!(
            "| {name} | {} | {} | {} | {:.2} / {:.2} | {} | {} | {} |",
            ours.utterances,
            of_speech(Score::found_percent),
            of_speech(Score::split_percent),
            ours.false_per_minute(),
            theirs.false_per_minute(),
            pair(ours.talking_percent(), theirs.talking_percent()),
            delays(ours, theirs, 0.5),
            delays(ours, theirs, 0.95),
        );
    }
}

fn pair(ours: f64, theirs: f64) -> String {
    format!("{ours:.1} / {theirs:.1}")
}

fn delays(ours: &Score, theirs: &Score, quantile: f64) -> String {
    let shown = |score: &Score| score.delay(quantile).map_or_else(|| "–".to_owned(), |delay| format!("{delay:.0}"));
    format!("{} / {}", shown(ours), shown(theirs))
}

/// What the cost is measured on: a minute each.
fn costly(rows: &[Row]) -> Vec<(&'static str, Vec<i16>)> {
    let minute = 60 * VAD_RATE as usize;
    let taken = |name: &str| {
        let scenes = rows.iter().find(|(row, _)| row == name).map(|(_, scenes)| &scenes[1]);
        scenes.map(|scene| scene.samples.iter().copied().take(minute).collect()).unwrap_or_default()
    };
    let utterances = rows[0].1[1].spoken.iter().flat_map(|spoken| rows[0].1[1].samples[spoken.clone()].iter().copied());
    vec![
        ("nobody speaks, quiet room", vec![1; minute]),
        ("nobody speaks, babble", taken("babble alone")),
        ("speech without a pause, quiet room", utterances.cycle().take(minute).collect()),
        ("conversation, quiet room", taken("quiet room")),
        ("conversation, babble, 10 dB SNR", taken("babble, 10 dB SNR")),
    ]
}

/// CPU in µs per second of audio; the best of some runs, as other load can only add.
fn cost<V: Vad>(made: impl Fn() -> V, audio: &[i16]) -> f64 {
    let best = (0..7).map(|_| {
        let mut vad = made();
        let hop = vad.hop().get();
        let before = cpu();
        let speech = audio.chunks_exact(hop).filter(|hop| vad.hear(hop) == Activity::Speech).count();
        std::hint::black_box(speech);
        cpu() - before
    });
    best.min().unwrap_or_default().as_secs_f64() * 1e6 * f64::from(VAD_RATE) / audio.len() as f64
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, which the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// WebRTC's detector in mode 2 ("aggressive"), in frames of 30 ms, as FastRTC's users run it.
struct WebRtc(webrtc_vad::Vad);

impl WebRtc {
    fn new() -> Self {
        Self(webrtc_vad::Vad::new_with_rate_and_mode(
            webrtc_vad::SampleRate::Rate16kHz,
            webrtc_vad::VadMode::Aggressive,
        ))
    }
}

impl Vad for WebRtc {
    fn hop(&self) -> NonZeroUsize {
        const HOP: NonZeroUsize = NonZeroUsize::new(480).expect("480 is not zero");
        HOP
    }

    fn hear(&mut self, hop: &[i16]) -> Activity {
        if self.0.is_voice_segment(hop) == Ok(true) { Activity::Speech } else { Activity::Silence }
    }

    fn reset(&mut self) {
        *self = Self::new();
    }
}

/// A temporary folder that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("streamfleet-pause-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing depends on it: the system empties its temporary folder by itself.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
