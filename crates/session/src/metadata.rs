//! What a client says about its session: a small JSON object that travels with it and is trusted for nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::id::ParseError;
use crate::text::{excerpt, strip_hidden};

/// The bounds of [`Metadata`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataLimits {
    /// Size of the kept object as compact JSON, in bytes.
    pub max_bytes: usize,
    /// Nesting of objects and arrays; the outermost object counts as 1.
    pub max_depth: usize,
    /// Keys in all objects together.
    pub max_keys: usize,
    /// Which top-level keys are kept.
    pub allow: AllowList,
}

impl Default for MetadataLimits {
    /// 4096 bytes (metadata is stored with every session and sent with every hand-over), depth 8 (bounds recursion),
    /// 64 keys (a person's profile and then some), all keys allowed.
    fn default() -> Self {
        Self { max_bytes: 4096, max_depth: 8, max_keys: 64, allow: AllowList::All }
    }
}

/// Which top-level keys of metadata are kept. Others are dropped without an error, so that a client may say more than
/// a service wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowList {
    /// Every key (`*`).
    All,
    /// These keys.
    Only(BTreeSet<String>),
}

impl AllowList {
    /// Reads a configured list; `*` anywhere in it allows every key.
    pub fn from_keys<I: IntoIterator<Item = S>, S: Into<String>>(keys: I) -> Self {
        let keys: BTreeSet<String> = keys.into_iter().map(Into::into).collect();
        if keys.contains("*") { Self::All } else { Self::Only(keys) }
    }

    fn allows(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}

/// Why metadata was refused. The sentence goes into `meta.detail` of the reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// Not a JSON object.
    #[error("metadata must be a JSON object")]
    NotAnObject,
    /// Too many bytes.
    #[error("metadata must be at most {max} bytes of JSON")]
    TooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// Nested too deeply.
    #[error("metadata must be nested at most {max} levels deep")]
    TooDeep {
        /// The limit, the outermost object included.
        max: usize,
    },
    /// Too many keys.
    #[error("metadata must have at most {max} keys")]
    TooManyKeys {
        /// The limit over all objects.
        max: usize,
    },
    /// A key has a character that is not accepted, or is empty or too long.
    #[error("metadata key {key:?} must be 1 to 64 characters of A-Z a-z 0-9 _ . -")]
    Key {
        /// The beginning of the key.
        key: String,
    },
    /// The value that names the user is no text.
    #[error("the user id must be a string or an integer")]
    UserIdType,
    /// The value that names the user is not a user id.
    #[error(transparent)]
    UserId(#[from] ParseError),
}

/// The longest key, in characters.
const MAX_KEY: usize = 64;

/// How much of a refused key an error repeats, in characters.
const KEY_EXCERPT: usize = 32;

/// Whether `key` may be a key of metadata: `[A-Za-z0-9_.-]{1,64}`.
pub(crate) fn is_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A validated JSON object. Cheap to clone.
///
/// Strings hold no control characters or directional marks, keys are `[A-Za-z0-9_.-]{1,64}`, and size and depth are
/// within the limits it was parsed with. `Debug` shows how many keys there are and nothing of them: metadata is
/// personal data and stays out of logs.
#[derive(Clone, Default, PartialEq)]
pub struct Metadata(Arc<Map<String, Value>>);

impl Metadata {
    /// Validates and cleans a JSON object.
    ///
    /// # Errors
    /// Says which bound the value breaks. Keys that the allow list drops are not looked into.
    pub fn parse(value: &Value, limits: &MetadataLimits) -> Result<Self, InvalidMetadata> {
        match value {
            Value::Object(object) => Self::from_entries(object, limits),
            _ => Err(InvalidMetadata::NotAnObject),
        }
    }

    /// Validates and cleans the entries of an object, later entries of the same key being ignored.
    pub(crate) fn from_entries<'a>(
        entries: impl IntoIterator<Item = (&'a String, &'a Value)>,
        limits: &MetadataLimits,
    ) -> Result<Self, InvalidMetadata> {
        let mut cleaner = Cleaner { limits, keys_left: limits.max_keys };
        let mut kept = Map::new();
        if limits.max_depth == 0 {
            return Err(InvalidMetadata::TooDeep { max: 0 });
        }
        for (key, value) in entries {
            if limits.allow.allows(key) && !kept.contains_key(key) {
                kept.insert(cleaner.key(key)?, cleaner.value(value, 1)?);
            }
        }
        let mut room = Room(limits.max_bytes);
        serde_json::to_writer(&mut room, &kept).map_err(|_| InvalidMetadata::TooLarge { max: limits.max_bytes })?;
        Ok(Self(Arc::new(kept)))
    }

    /// The value of a top-level key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// All entries.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} keys)", self.0.len())
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().serialize(serializer)
    }
}

/// Copies values within the limits. Stops at the first broken one, so hostile input costs no more than accepted input
/// of the same length.
struct Cleaner<'a> {
    limits: &'a MetadataLimits,
    keys_left: usize,
}

impl Cleaner<'_> {
    fn key(&mut self, key: &str) -> Result<String, InvalidMetadata> {
        if !is_key(key) {
            return Err(InvalidMetadata::Key { key: excerpt(key, KEY_EXCERPT) });
        }
        self.keys_left =
            self.keys_left.checked_sub(1).ok_or(InvalidMetadata::TooManyKeys { max: self.limits.max_keys })?;
        Ok(key.to_owned())
    }

    /// `depth` is how many containers are open around the value.
    fn value(&mut self, value: &Value, depth: usize) -> Result<Value, InvalidMetadata> {
        Ok(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
            Value::String(text) => Value::String(strip_hidden(text)),
            Value::Array(items) => {
                let depth = self.enter(depth)?;
                Value::Array(items.iter().map(|item| self.value(item, depth)).collect::<Result<_, _>>()?)
            }
            Value::Object(entries) => {
                let depth = self.enter(depth)?;
                let mut kept = Map::new();
                for (key, value) in entries {
                    kept.insert(self.key(key)?, self.value(value, depth)?);
                }
                Value::Object(kept)
            }
        })
    }

    fn enter(&self, depth: usize) -> Result<usize, InvalidMetadata> {
        let max = self.limits.max_depth;
        if depth < max { Ok(depth + 1) } else { Err(InvalidMetadata::TooDeep { max }) }
    }
}

/// A writer that keeps nothing and fails once more than its number of bytes were written.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
pub(crate) mod tests;
