//! Something to play: a few bars, made of decaying sines, so that the binary carries no recording.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use streamfleet_audio::{PcmFormat, wav};

const FORMAT: PcmFormat = PcmFormat::mono(24_000);
/// Seconds from one note to the next.
const STEP: f64 = 0.3;
/// How long a note rings, seconds.
const RING: f64 = 1.2;
/// Semitones from A (440 Hz); `None` is a rest.
const NOTES: [Option<i32>; 16] = [
    Some(-9),
    Some(-5),
    Some(-2),
    Some(3),
    Some(-2),
    Some(-5),
    Some(-7),
    None,
    Some(-4),
    Some(0),
    Some(5),
    Some(3),
    Some(0),
    Some(-4),
    Some(-9),
    None,
];

pub(super) fn write(path: &Path) -> anyhow::Result<()> {
    let rate = f64::from(FORMAT.rate);
    let length = (NOTES.len() as f64 * STEP + RING) * rate;
    let mut sum = vec![0.0f64; length as usize];
    for (i, note) in NOTES.iter().enumerate() {
        let Some(semitones) = note else { continue };
        let hz = 440.0 * 2f64.powf(f64::from(*semitones) / 12.0);
        let start = (i as f64 * STEP * rate) as usize;
        for (n, sample) in sum[start..].iter_mut().take((RING * rate) as usize).enumerate() {
            let t = n as f64 / rate;
            // A struck bar: a fast attack, an exponential decay, and a partial that dies sooner.
            let envelope = (t / 0.005).min(1.0) * (-t * 4.0).exp();
            let partial = 0.3 * (-t * 9.0).exp() * (std::f64::consts::TAU * hz * 3.0 * t).sin();
            *sample += envelope * ((std::f64::consts::TAU * hz * t).sin() + partial);
        }
    }
    let samples: Vec<i16> = sum.iter().map(|s| (s * 7_000.0).clamp(-32_767.0, 32_767.0) as i16).collect();
    let mut writer = wav::Writer::new(BufWriter::new(File::create(path)?), FORMAT, Duration::from_secs(60))?;
    writer.write(&samples)?;
    writer.finish()?;
    Ok(())
}
