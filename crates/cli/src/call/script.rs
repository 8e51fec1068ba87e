//! A conversation that is known beforehand: the file of `--script`, read and checked before anybody is called.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use streamfleet_audio::PcmFormat;
use streamfleet_audio::resample::Resampler;
use streamfleet_audio::tone::Tone;
use streamfleet_audio::wav;
use streamfleet_client::Digit;
use thiserror::Error;

use super::source::{TONE_DBFS, TONE_RATE};

/// Longest script, in turns: an hour of short ones.
const MAX_TURNS: usize = 1_000;
/// Longest file of turns.
const MAX_TEXT: u64 = 1 << 20;
/// Longest time that a script may name.
const MAX_TIME: Duration = Duration::from_secs(600);
/// How long a reply, its end, or an event is waited for unless the script says otherwise.
const WITHIN_MS: u64 = 10_000;
/// From here on a sample is sound, −50 dBFS: the noise of a recording's end is below, the last consonant is not.
const AUDIBLE: u16 = 104;
/// Quiet after which a reply counts as ended: longer than the pause between two sentences.
const QUIET_MS: u64 = 700;

/// One thing to do or to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn<S> {
    /// Speak, to the end.
    Play(S),
    /// Wait until the other side speaks.
    WaitForReply { within: Duration },
    /// Wait until it has spoken and been quiet for a while.
    WaitForEnd { within: Duration, quiet: Duration },
    /// Wait until it speaks, let it go on for a while, and speak over it.
    Interrupt { after: Duration, sound: S, within: Duration },
    /// Say nothing.
    Silence(Duration),
    /// Send a text on the data channel.
    Say(String),
    /// Press keys.
    Digits(Vec<Digit>),
    /// Wait for a message that contains this.
    Expect { event: String, within: Duration },
}

/// What is spoken, before it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sound {
    File(PathBuf),
    Tone { hz: u32, length: Duration },
}

/// What is spoken: mono at [`TONE_RATE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clip {
    pub(crate) samples: Arc<[i16]>,
}

impl Clip {
    pub(crate) fn length(&self) -> Duration {
        PcmFormat::mono(TONE_RATE).duration(self.samples.len())
    }

    /// Until its last sound: recordings end with silence, in which a reply may come. Zero where there is no sound at all.
    pub(crate) fn speech(&self) -> Duration {
        let end = self.samples.iter().rposition(|sample| sample.unsigned_abs() >= AUDIBLE).map_or(0, |last| last + 1);
        PcmFormat::mono(TONE_RATE).duration(end)
    }
}

/// Why a script is none.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ScriptError {
    #[error("{0}")]
    Syntax(String),
    #[error("it has no turns")]
    Empty,
    #[error("it has more than {MAX_TURNS} turns")]
    TooLong,
    #[error("turn {turn}: {what}")]
    Turn { turn: usize, what: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum TurnWords {
    Play(SoundWords),
    WaitForReply(WaitWords),
    WaitForEnd(WaitWords),
    Interrupt(InterruptWords),
    Silence(u64),
    Say(String),
    Digits(String),
    Expect(ExpectWords),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SoundWords {
    File(String),
    Tone(ToneWords),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToneWords {
    tone: u32,
    ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitWords {
    #[serde(default = "within")]
    within_ms: u64,
    quiet_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InterruptWords {
    after_ms: u64,
    play: SoundWords,
    #[serde(default = "within")]
    within_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectWords {
    event: String,
    #[serde(default = "within")]
    within_ms: u64,
}

fn within() -> u64 {
    WITHIN_MS
}

/// Reads a script, YAML or JSON: a list of turns, each a map of one key.
pub(crate) fn parse(text: &str) -> Result<Vec<Turn<Sound>>, ScriptError> {
    let words: Vec<TurnWords> = serde_saphyr::from_str(text).map_err(|error| ScriptError::Syntax(error.to_string()))?;
    if words.is_empty() {
        return Err(ScriptError::Empty);
    }
    if words.len() > MAX_TURNS {
        return Err(ScriptError::TooLong);
    }
    let number =
        |at: usize, turn: Result<Turn<Sound>, String>| turn.map_err(|what| ScriptError::Turn { turn: at + 1, what });
    words.into_iter().enumerate().map(|(at, words)| number(at, words.check())).collect()
}

impl TurnWords {
    fn check(self) -> Result<Turn<Sound>, String> {
        Ok(match self {
            Self::Play(sound) => Turn::Play(sound.check()?),
            Self::WaitForReply(WaitWords { within_ms, quiet_ms: None }) => {
                Turn::WaitForReply { within: time("within_ms", within_ms)? }
            }
            Self::WaitForReply(_) => return Err("quiet_ms: belongs to wait_for_end".to_owned()),
            Self::WaitForEnd(words) => Turn::WaitForEnd {
                within: time("within_ms", words.within_ms)?,
                quiet: time("quiet_ms", words.quiet_ms.unwrap_or(QUIET_MS))?,
            },
            Self::Interrupt(words) => Turn::Interrupt {
                after: time("after_ms", words.after_ms)?,
                sound: words.play.check()?,
                within: time("within_ms", words.within_ms)?,
            },
            Self::Silence(ms) => Turn::Silence(time("silence", ms)?),
            Self::Say(text) => Turn::Say(text),
            Self::Digits(keys) => {
                let digit = |key| Digit::new(key).ok_or_else(|| format!("digits: `{key}` is no key of a telephone"));
                Turn::Digits(keys.chars().map(digit).collect::<Result<_, _>>()?)
            }
            Self::Expect(words) if words.event.is_empty() => return Err("event: it is empty".to_owned()),
            Self::Expect(words) => Turn::Expect { event: words.event, within: time("within_ms", words.within_ms)? },
        })
    }
}

impl SoundWords {
    fn check(self) -> Result<Sound, String> {
        match self {
            Self::File(path) if path.is_empty() => Err("play: no file is named".to_owned()),
            Self::File(path) => Ok(Sound::File(path.into())),
            Self::Tone(words) if (50..=7_000).contains(&words.tone) => {
                Ok(Sound::Tone { hz: words.tone, length: time("ms", words.ms)? })
            }
            Self::Tone(words) => Err(format!("tone: {} Hz is not in 50..=7000", words.tone)),
        }
    }
}

fn time(key: &str, ms: u64) -> Result<Duration, String> {
    let time = Duration::from_millis(ms);
    if time > MAX_TIME { Err(format!("{key}: more than {} ms", MAX_TIME.as_millis())) } else { Ok(time) }
}

/// Reads a script's file and every sound that it names; paths are relative to it.
///
/// # Errors
/// The script or a sound cannot be read.
pub(crate) fn load(path: &Path) -> anyhow::Result<Vec<Turn<Clip>>> {
    let size = std::fs::metadata(path).with_context(|| format!("cannot open {}", path.display()))?.len();
    ensure!(size <= MAX_TEXT, "{} is longer than a script can be", path.display());
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let turns = parse(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    turns.into_iter().map(|turn| turn.try_map(|sound| sound.load(folder))).collect()
}

impl<S> Turn<S> {
    fn try_map<T>(self, map: impl FnOnce(S) -> anyhow::Result<T>) -> anyhow::Result<Turn<T>> {
        Ok(match self {
            Self::Play(sound) => Turn::Play(map(sound)?),
            Self::Interrupt { after, sound, within } => Turn::Interrupt { after, sound: map(sound)?, within },
            Self::WaitForReply { within } => Turn::WaitForReply { within },
            Self::WaitForEnd { within, quiet } => Turn::WaitForEnd { within, quiet },
            Self::Silence(time) => Turn::Silence(time),
            Self::Say(text) => Turn::Say(text),
            Self::Digits(keys) => Turn::Digits(keys),
            Self::Expect { event, within } => Turn::Expect { event, within },
        })
    }

    /// Its word in a script.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Play(_) => "play",
            Self::WaitForReply { .. } => "wait_for_reply",
            Self::WaitForEnd { .. } => "wait_for_end",
            Self::Interrupt { .. } => "interrupt",
            Self::Silence(_) => "silence",
            Self::Say(_) => "say",
            Self::Digits(_) => "digits",
            Self::Expect { .. } => "expect",
        }
    }
}

impl Sound {
    fn load(self, folder: &Path) -> anyhow::Result<Clip> {
        match self {
            Self::Tone { hz, length } => {
                let mut samples = vec![0; (length.as_secs_f64() * f64::from(TONE_RATE)) as usize];
                Tone::new(TONE_RATE, hz as f32, TONE_DBFS).fill(&mut samples);
                Ok(Clip { samples: samples.into() })
            }
            Self::File(name) => {
                let path = folder.join(name);
                let file = std::fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                let clip = wav::read(std::io::BufReader::new(file), MAX_TIME)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Ok(Clip { samples: at_tone_rate(clip.samples, clip.format.rate).into() })
            }
        }
    }
}

fn at_tone_rate(samples: Vec<i16>, rate: u32) -> Vec<i16> {
    if rate == TONE_RATE {
        return samples;
    }
    let (mut resampler, mut out) = (Resampler::new(rate, TONE_RATE, 1), Vec::new());
    resampler.process(&samples, &mut out);
    resampler.process(&vec![0; resampler.delay()], &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamfleet_audio::analysis::tone_level;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_script_of_every_turn() {
        let yaml = "
- play: question.wav
- play: {tone: 440, ms: 800}
- wait_for_reply: {}
- wait_for_end: {within_ms: 5000, quiet_ms: 300}
- interrupt: {after_ms: 500, play: stop.wav}
- silence: 250
- say: hello
- digits: '1#'
- expect: {event: pause_detected, within_ms: 2000}
";
        let expected = vec![
            Turn::Play(Sound::File("question.wav".into())),
            Turn::Play(Sound::Tone { hz: 440, length: 800 * MS }),
            Turn::WaitForReply { within: 10_000 * MS },
            Turn::WaitForEnd { within: 5_000 * MS, quiet: 300 * MS },
            Turn::Interrupt { after: 500 * MS, sound: Sound::File("stop.wav".into()), within: 10_000 * MS },
            Turn::Silence(250 * MS),
            Turn::Say("hello".into()),
            Turn::Digits(vec![Digit::new('1').unwrap(), Digit::new('#').unwrap()]),
            Turn::Expect { event: "pause_detected".into(), within: 2_000 * MS },
        ];
        assert_eq!(parse(yaml), Ok(expected));
        let json = r#"[{"play": {"tone": 440, "ms": 800}}, {"silence": 250}]"#;
        let expected = vec![Turn::Play(Sound::Tone { hz: 440, length: 800 * MS }), Turn::Silence(250 * MS)];
        assert_eq!(parse(json), Ok(expected));
    }

    #[test]
    fn mistakes_are_named() {
        #[track_caller]
        fn check(text: &str, part: &str) {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        check("[]", "no turns");
        check("- dance: 1", "dance");
        check("- silence: 700000", "turn 1: silence: more than 600000 ms");
        check("[{silence: 1}, {play: {tone: 20, ms: 5}}]", "turn 2: tone: 20 Hz");
        check("- digits: 1x", "`x` is no key");
        check("- wait_for_reply: {quiet_ms: 5}", "belongs to wait_for_end");
        check("- expect: {event: ''}", "it is empty");
        check("- play: ''", "no file is named");
        check(&"- silence: 1\n".repeat(MAX_TURNS + 1), "more than 1000");
    }

    #[test]
    fn sounds_are_loaded_at_one_rate() {
        let folder = std::env::temp_dir().join(format!("streamfleet-script-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut samples = vec![0; 8_000];
        Tone::new(8_000, 500.0, -20.0).fill(&mut samples);
        let file = std::fs::File::create(folder.join("a.wav")).unwrap();
        let mut out = wav::Writer::new(file, PcmFormat::mono(8_000), Duration::from_secs(9)).unwrap();
        out.write(&samples).unwrap();
        out.finish().unwrap();
        std::fs::write(folder.join("s.yaml"), "- play: a.wav\n- play: b.wav").unwrap();
        let error = format!("{:#}", load(&folder.join("s.yaml")).unwrap_err());
        assert!(error.contains("cannot open") && error.contains("b.wav"), "{error}");
        std::fs::write(folder.join("s.yaml"), "- play: a.wav").unwrap();
        let turns = load(&folder.join("s.yaml")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let [Turn::Play(clip)] = &turns[..] else { panic!("{turns:?}") };
        assert!(clip.samples.len().abs_diff(48_000) < 200, "{}", clip.samples.len());
        assert!((tone_level(&clip.samples, 48_000, 500.0) + 20.0).abs() < 0.5);
    }
}
