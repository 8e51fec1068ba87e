//! Reading a handler's configuration: all mistakes at once, each with its key.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::Reason;

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key; none for the configuration as a whole.
    pub key: Option<String>,
    /// What is wrong, as the rest of a sentence that begins with the key.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "`{key}` {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

/// Why a handler cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No handler has this name.
    #[error("there is no handler `{0}`")]
    UnknownHandler(Reason),
    /// The configuration has mistakes.
    #[error("{}", join(.0))]
    Mistakes(Vec<Mistake>),
}

impl ConfigError {
    /// A single mistake: `key` names what is wrong, `problem` goes on from it.
    pub fn mistake(key: &str, problem: impl fmt::Display) -> Self {
        Self::Mistakes(vec![Mistake { key: Some(key.to_owned()), problem: problem.to_string() }])
    }
}

fn join(mistakes: &[Mistake]) -> String {
    let texts: Vec<_> = mistakes.iter().map(Mistake::to_string).collect();
    texts.join("; ")
}

/// The keys of one configuration object, taken one by one. A key that is missing, or `null`, has its default;
/// [`finish`](Keys::finish) reports every mistake together, and keys that nobody took.
///
/// ```
/// use serde_json::json;
/// use streamfleet_handler::Keys;
///
/// let mut keys = Keys::new(json!({ "hz": "high", "volume": 11 }));
/// let hz = keys.number("hz", 440.0, 20.0..=20_000.0);
/// assert_eq!(hz, 440.0);
/// let error = keys.finish().unwrap_err();
/// assert_eq!(error.to_string(), "`hz` must be a number from 20 to 20000, not \"high\"; `volume` is not known here");
/// ```
#[derive(Debug)]
pub struct Keys {
    left: Map<String, Value>,
    mistakes: Vec<Mistake>,
}

impl Keys {
    /// Begins with an object; `null` is an empty one.
    #[must_use]
    pub fn new(config: Value) -> Self {
        let mut keys = Self { left: Map::new(), mistakes: Vec::new() };
        match config {
            Value::Object(map) => keys.left = map,
            Value::Null => {}
            other => {
                let problem = format!("the configuration must be an object, not {}", shown(&other));
                keys.mistakes.push(Mistake { key: None, problem });
            }
        }
        keys
    }

    /// A number within `range`.
    pub fn number(&mut self, key: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.take(key, default, &expected, |value| value.as_f64().filter(|number| range.contains(number)))
    }

    /// A whole number within `range`.
    pub fn integer(&mut self, key: &str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(key, default, &expected, |value| {
            value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number))
        })
    }

    /// `true` or `false`.
    pub fn switch(&mut self, key: &str, default: Switch) -> Switch {
        self.take(key, default, "true or false", |value| match value {
            Value::Bool(true) => Some(Switch::On),
            Value::Bool(false) => Some(Switch::Off),
            _ => None,
        })
    }

    /// One of some words, each with what it stands for.
    pub fn choice<T: Clone>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        self.take(key, default, &format!("one of {}", words.join(", ")), |value| {
            choices.iter().find(|(word, _)| value.as_str() == Some(word)).map(|(_, meaning)| meaning.clone())
        })
    }

    /// A text that is not empty and has no default.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let found = self.left.remove(key);
        match found {
            Some(Value::String(text)) if !text.is_empty() => return Some(text),
            None | Some(Value::Null) => self.reject(key, "is required".to_owned()),
            Some(other) => self.reject(key, format!("must be a text, not {}", shown(&other))),
        }
        None
    }

    /// Reports a mistake the caller found in a key.
    pub fn mistake(&mut self, key: &str, problem: impl fmt::Display) {
        self.reject(key, problem.to_string());
    }

    /// All mistakes together, or none.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] with at least one mistake.
    pub fn finish(mut self) -> Result<(), ConfigError> {
        for key in std::mem::take(&mut self.left).keys() {
            // An unknown key may be anything: what cannot be shown is written as an escape.
            let key = Reason::new(&key.escape_debug().to_string());
            self.reject(key.as_str(), "is not known here".to_owned());
        }
        if self.mistakes.is_empty() { Ok(()) } else { Err(ConfigError::Mistakes(self.mistakes)) }
    }

    fn take<T>(&mut self, key: &str, default: T, expected: &str, parse: impl FnOnce(&Value) -> Option<T>) -> T {
        match self.left.remove(key) {
            None | Some(Value::Null) => default,
            Some(value) => parse(&value).unwrap_or_else(|| {
                self.reject(key, format!("must be {expected}, not {}", shown(&value)));
                default
            }),
        }
    }

    fn reject(&mut self, key: &str, problem: String) {
        self.mistakes.push(Mistake { key: Some(key.to_owned()), problem });
    }
}

/// Something that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `true`
    On,
    /// `false`
    Off,
}

/// The value as JSON, short enough to repeat.
fn shown(value: &Value) -> Reason {
    Reason::new(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<(f64, u32, Switch, Option<String>), String> {
        let mut keys = Keys::new(config);
        let read = (
            keys.number("db", 0.0, -60.0..=40.0),
            keys.integer("rate", 24_000, 8_000..=48_000),
            keys.switch("loop", Switch::Off),
            keys.text("path"),
        );
        keys.finish().map(|()| read).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_read() {
        let path = Some("a.wav".to_owned());
        assert_eq!(read(json!({ "path": "a.wav" })), Ok((0.0, 24_000, Switch::Off, path.clone())));
        assert_eq!(
            read(json!({ "path": "a.wav", "db": -6, "rate": 8000, "loop": true })),
            Ok((-6.0, 8_000, Switch::On, path.clone()))
        );
        assert_eq!(read(json!({ "path": "a.wav", "db": null })), Ok((0.0, 24_000, Switch::Off, path)));
    }

    #[test]
    fn mistakes_name_their_keys_all_at_once() {
        fn check(config: Value, expected: &str) {
            assert_eq!(read(config).unwrap_err(), expected);
        }
        check(Value::Null, "`path` is required");
        check(json!([]), "the configuration must be an object, not []; `path` is required");
        check(json!({ "path": "" }), "`path` must be a text, not \"\"");
        check(json!({ "path": "a", "db": 41 }), "`db` must be a number from -60 to 40, not 41");
        check(json!({ "path": "a", "rate": 24000.5 }), "`rate` must be a whole number from 8000 to 48000, not 24000.5");
        check(json!({ "path": "a", "rate": -1 }), "`rate` must be a whole number from 8000 to 48000, not -1");
        check(json!({ "path": "a", "loop": "yes" }), "`loop` must be true or false, not \"yes\"");
        check(
            json!({ "path": 5, "db": [], "loop": 0, "speed": 1, "\n": 1 }),
            "`db` must be a number from -60 to 40, not []; `loop` must be true or false, not 0; \
             `path` must be a text, not 5; `\\n` is not known here; `speed` is not known here",
        );
    }
}
