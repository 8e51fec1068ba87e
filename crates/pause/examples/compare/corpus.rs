//! Speech with known timing, by espeak-ng.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use streamfleet_audio::resample::Resampler;
use streamfleet_pause::VAD_RATE;

/// Sentences and voices that thresholds were chosen on; the others are reported on.
pub(crate) const TUNING: Set = Set {
    voices: &["en-us+m1", "en-gb+f1", "en-us+f3", "en-gb-scotland"],
    sentences: &[
        "Could you tell me when the next train to the airport leaves",
        "I would like to change the delivery address of my order",
        "What is the weather going to be like tomorrow morning",
        "Please book a table for four people at half past seven",
        "My internet connection has been very slow since yesterday",
        "Turn off the lights in the kitchen and lock the front door",
        "How much does the larger apartment cost for two weeks",
        "The parcel arrived yesterday but one of the cups was broken",
        "No I do not think so",
        "Yes that would be wonderful",
        "Read me the last message from my sister again",
        "Which of these two cameras is better in the dark",
    ],
};

/// See [`TUNING`].
pub(crate) const EVALUATION: Set = Set {
    voices: &["en-us", "en-gb+f2", "en-us+m3", "en-gb+m5", "en-us+f4", "en-gb-x-rp"],
    sentences: &[
        "I am calling about the invoice that you sent me last week",
        "Is there a pharmacy near the central station that opens on Sundays",
        "Remind me to water the plants when I get home this evening",
        "The washing machine stops in the middle and shows an error",
        "We would like to rent bicycles for the whole weekend",
        "Can I bring my dog to the hotel without paying more",
        "Explain to me again how the second part of the contract works",
        "Play some quiet music and wake me up at six",
        "There are three adults and two children in our party",
        "I have lost my card and need to block it right now",
        "Send the report to everybody who was in the meeting",
        "What did he say about the new schedule for the summer",
        "That sounds good to me",
        "I am not sure about that",
        "How long does it take to walk from the museum to the harbour",
        "My daughter wants to learn the violin but we do not have one",
    ],
};

/// What is said at the other tables.
const BABBLE: Set = Set {
    voices: &["en-us+m2", "en-gb+f5", "en-us+m4", "en-gb+m6", "en-us+f1", "en-gb+m7", "en-us+f5", "en-gb-scotland+m8"],
    sentences: &[
        "and then she told him that nobody had ever asked for the keys so they went back to the car and waited there",
        "the soup was fine but honestly I have had better ones in the small place around the corner from our old office",
        "we drove all night because the ferry was cancelled and my brother insisted on being there before breakfast",
        "prices have doubled since we moved here and the landlord still has not repaired the heating in the bathroom",
        "he keeps talking about that mountain as if he had climbed it alone in winter with nothing but a map and a rope",
        "you should have seen their faces when the band began to play the wrong song at the very beginning of the show",
    ],
};

/// Who says what.
pub(crate) struct Set {
    voices: &'static [&'static str],
    sentences: &'static [&'static str],
}

/// One sentence at [`VAD_RATE`], from its first sound to its last, at 0 dB: an RMS of 1.
#[derive(Clone)]
pub(crate) struct Clip(pub(crate) Vec<f32>);

/// Every sentence by some of the voices.
pub(crate) fn clips(set: &Set, folder: &Path) -> Result<Vec<Clip>> {
    let mut clips = Vec::new();
    for (number, sentence) in set.sentences.iter().enumerate() {
        for turn in 0..2 {
            let voice = set.voices[(number + turn * 3) % set.voices.len()];
            let words_per_minute = 140 + 12 * ((number + turn) % 4);
            clips.push(spoken(sentence, voice, words_per_minute, folder)?);
        }
    }
    Ok(clips)
}

/// Turns of five sentences with hardly a breath between them.
pub(crate) fn long(clips: &[Clip]) -> Vec<Clip> {
    let breath = vec![0.0; VAD_RATE as usize / 7];
    let turn = |five: &[Clip]| Clip(five.iter().map(|clip| clip.0.as_slice()).collect::<Vec<_>>().join(&breath[..]));
    clips.chunks(5).map(turn).collect()
}

/// Many voices at once: `seconds` of it at an RMS of 1.
pub(crate) fn babble(voices: usize, seconds: usize, shift: usize, folder: &Path) -> Result<Vec<f32>> {
    let clips = clips(&BABBLE, folder)?;
    let length = seconds * VAD_RATE as usize;
    let mut mix = vec![0.0; length];
    for voice in 0..voices {
        // Each begins somewhere else in the same talk, and never falls silent.
        let mut at = 0;
        let mut next = voice * 5 + shift;
        let mut skip = (voice * 7_919 + shift * 4_801) % (VAD_RATE as usize * 2);
        while at < length {
            let clip = &clips[next % clips.len()].0;
            let piece = &clip[skip.min(clip.len())..];
            let count = piece.len().min(length - at);
            mix[at..at + count].iter_mut().zip(piece).for_each(|(sum, sample)| *sum += sample);
            (at, next, skip) = (at + count, next + 7, 0);
        }
    }
    normalise(&mut mix);
    Ok(mix)
}

/// Scales to an RMS of 1.
pub(crate) fn normalise(samples: &mut [f32]) {
    let power = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    let factor = power.max(1e-20).sqrt().recip() as f32;
    samples.iter_mut().for_each(|sample| *sample *= factor);
}

fn spoken(sentence: &str, voice: &str, words_per_minute: usize, folder: &Path) -> Result<Clip> {
    let path = folder.join("spoken.wav");
    let status = Command::new("espeak-ng")
        .args(["-v", voice, "-s", &words_per_minute.to_string(), "-w"])
        .arg(&path)
        .arg(sentence)
        .status()
        .context("espeak-ng must be installed")?;
    ensure!(status.success(), "espeak-ng failed for the voice {voice}");
    let mut reader = hound::WavReader::open(&path)?;
    let rate = reader.spec().sample_rate;
    let samples: Vec<i16> = reader.samples::<i16>().collect::<Result<_, _>>()?;
    let mut at_rate = Vec::new();
    Resampler::new(rate, VAD_RATE, 1).process(&samples, &mut at_rate);

    // From the first to the last 10 ms within 35 dB of the loudest.
    let power = |piece: &[i16]| piece.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
    let pieces: Vec<f64> = at_rate.chunks_exact(160).map(power).collect();
    let audible = pieces.iter().copied().fold(0.0, f64::max) / 3_162.0;
    let first = pieces.iter().position(|&power| power > audible).context("espeak-ng says nothing")?;
    let last = pieces.iter().rposition(|&power| power > audible).unwrap_or(first);
    let mut clip: Vec<f32> = at_rate[first * 160..(last + 1) * 160].iter().map(|&sample| f32::from(sample)).collect();
    normalise(&mut clip);
    Ok(Clip(clip))
}
