//! Handlers by name.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::error::Reason;
use crate::{ConfigError, Registered, builtin};

/// What a handler takes and gives, for a page that offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Modality {
    /// Sound only.
    Audio,
    /// Sound and pictures.
    AudioVideo,
}

impl Modality {
    /// FastRTC's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::AudioVideo => "audio-video",
        }
    }
}

/// What a person who chooses a handler wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// A short title.
    pub title: String,
    /// One sentence.
    pub summary: String,
    /// What it takes and gives.
    pub modality: Modality,
}

impl Description {
    /// A handler of sound.
    pub fn audio(title: impl Into<String>, summary: impl Into<String>) -> Self {
        Self { title: title.into(), summary: summary.into(), modality: Modality::Audio }
    }

    /// A handler of sound and pictures.
    pub fn audio_video(title: impl Into<String>, summary: impl Into<String>) -> Self {
        Self { title: title.into(), summary: summary.into(), modality: Modality::AudioVideo }
    }
}

type Constructor = Box<dyn Fn(Value) -> Result<Registered, ConfigError> + Send + Sync>;

struct Entry {
    description: Description,
    construct: Constructor,
}

/// Constructors of handlers by name. A later registration under the same name replaces the earlier one.
#[derive(Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
}

impl Registry {
    /// Knows no handler.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows the built-in handlers; see [`builtin`].
    #[must_use]
    pub fn builtin() -> Self {
        let mut registry = Self::new();
        builtin::register(&mut registry);
        registry
    }

    /// Adds a handler. `construct` is given the configuration (a JSON object, or `null` for none) and returns a
    /// prototype; [`Keys`](crate::Keys) reads configurations with all mistakes at once.
    pub fn register(
        &mut self,
        name: &str,
        description: Description,
        construct: impl Fn(Value) -> Result<Registered, ConfigError> + Send + Sync + 'static,
    ) {
        self.entries.insert(name.to_owned(), Entry { description, construct: Box::new(construct) });
    }

    /// Makes the prototype of the handler called `name`. May read the files that the configuration names, so it
    /// belongs at the start of the process.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no such handler or its configuration has mistakes.
    pub fn get(&self, name: &str, config: Value) -> Result<Registered, ConfigError> {
        let entry = self.entries.get(name).ok_or_else(|| ConfigError::UnknownHandler(Reason::new(name)))?;
        (entry.construct)(config)
    }

    /// Names and descriptions, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Description)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &entry.description))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin::{Echo, EchoFrames};
    use crate::{Handler, Media};

    #[test]
    fn the_built_in_handlers_are_there_and_described() {
        let registry = Registry::builtin();
        let names: Vec<_> = registry.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["echo", "echo-frames", "gain", "playback", "recorder", "tone"]);
        for (name, description) in registry.iter() {
            assert!(!description.title.is_empty() && description.summary.ends_with('.'), "{name}");
            let expected = if name == "echo" { "audio-video" } else { "audio" };
            assert_eq!(description.modality.as_str(), expected, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_made_says_why() {
        fn check(name: &str, config: Value, expected: &str) {
            assert_eq!(Registry::builtin().get(name, config).unwrap_err().to_string(), expected);
        }
        check("ecko", Value::Null, "there is no handler `ecko`");
        check("\u{7}", Value::Null, "there is no handler ` `");
        check("echo", json!(true), "the configuration must be an object, not true");
        check("playback", Value::Null, "`path` is required");
        check("tone", json!({ "hz": 0 }), "`hz` must be a number from 20 to 11999, not 0");
        check("recorder", Value::Null, "`folder` is required");
    }

    #[test]
    fn a_later_registration_replaces_an_earlier_one() {
        let mut registry = Registry::new();
        registry.register("mine", Description::audio("Mine", "First."), |_| Ok(Registered::Packets(Box::new(Echo))));
        assert_eq!(registry.get("mine", Value::Null).unwrap().media(), Media::Packets);
        registry.register("mine", Description::audio("Mine", "Second."), |config| {
            let rate = config["rate"].as_u64().and_then(|rate| u32::try_from(rate).ok());
            let rate = rate.ok_or_else(|| ConfigError::mistake("rate", "is required"))?;
            Ok(Registered::Handler(Box::new(EchoFrames::new(rate))))
        });
        let made = registry.get("mine", json!({ "rate": 8000 })).unwrap().copy();
        assert_eq!(made.media(), EchoFrames::new(8_000).media());
        assert_eq!(registry.iter().count(), 1);
    }
}
