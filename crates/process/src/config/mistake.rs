//! What was wrong with a configuration: every mistake at once, each with its key and where it came from.

use std::fmt;

use super::Origin;

/// One thing that is wrong, in terms of the key that an operator can go and change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted key, with list positions in brackets: `services[1].path`. Empty when the whole document is at fault.
    pub key: String,
    /// The layer that set the value; `None` when the fault lies between keys or in a default.
    pub origin: Option<Origin>,
    /// A clause that completes "key: …", without a final stop.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.origin) {
            ("", None) => write!(f, "{}", self.message),
            ("", Some(origin)) => write!(f, "{} ({origin})", self.message),
            (key, None) => write!(f, "{key}: {}", self.message),
            (key, Some(origin)) => write!(f, "{key}: {} ({origin})", self.message),
        }
    }
}

/// All mistakes of one configuration, in the order of their discovery; printed one per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Exit code of a process whose configuration is wrong (`EX_USAGE` of sysexits.h).
    pub const EXIT_CODE: u8 = 64;

    /// No mistake yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `key` is wrong. Used for what types cannot say: relations between keys, empty lists, duplicates.
    pub fn push(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Mistake { key: key.into(), origin: None, message: message.into() });
    }

    /// Takes the value out of a parse, or notes why there is none.
    pub fn check<T, E: fmt::Display>(&mut self, key: impl Into<String>, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.push(key, error.to_string())).ok()
    }

    /// Notes a mistake whose origin is known.
    pub(super) fn add(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Mistakes) {
        self.0.extend(other.0);
    }

    /// Adds those of `other` that are not noted yet: what two who read the same say of it is one mistake.
    pub fn extend_new(&mut self, other: Mistakes) {
        for mistake in other.0 {
            if !self.0.contains(&mistake) {
                self.0.push(mistake);
            }
        }
    }

    /// Adds those of `other` whose keys are neither above nor below one that is noted already.
    pub(super) fn extend_unrelated(&mut self, other: Mistakes) {
        let noted = self.0.len();
        for mistake in other.0 {
            let (known, _) = self.0.split_at(noted);
            if !known.iter().any(|known| holds(&known.key, &mistake.key) || holds(&mistake.key, &known.key)) {
                self.0.push(mistake);
            }
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mistakes, in the order of their discovery.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }

    /// `value` if nothing is wrong, else all the mistakes.
    ///
    /// # Errors
    /// The mistakes themselves.
    pub fn or<T>(self, value: T) -> Result<T, Mistakes> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

/// Whether `inner` is `outer` or a part of it: `services[1]` holds `services[1].name`, and not `services[10]`.
fn holds(outer: &str, inner: &str) -> bool {
    let rest = inner.strip_prefix(outer);
    rest.is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
