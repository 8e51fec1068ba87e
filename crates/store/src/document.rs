//! A context's data: one JSON object with a version.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde_json::{Map, Value};

/// The largest document, as compact JSON in bytes. It travels with every take-over and lives in memory for each session:
/// room for a conversation's summary, not for its recording.
pub const MAX_DATA_BYTES: usize = 64 * 1024;
/// Nesting of objects and arrays, the document itself counted as 1: bounds the recursion of everybody who reads it.
pub const MAX_DATA_DEPTH: usize = 16;

/// How often a document has been written; 0 is one that never was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As an entity tag of HTTP (RFC 9110, 8.8.3), quotes included.
    #[must_use]
    pub fn etag(self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no entity tag of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an entity tag of this document")]
pub struct InvalidTag;

impl FromStr for Version {
    type Err = InvalidTag;

    /// Reads what [`etag`](Self::etag) writes. A weak tag (`W/"…"`) never matches `If-Match` (RFC 9110, 13.1.1).
    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(InvalidTag)?;
        // What the number parser takes besides digits, a tag of ours never has.
        if digits.is_empty()
            || !digits.bytes().all(|b| b.is_ascii_digit())
            || digits.len() > 1 && digits.starts_with('0')
        {
            return Err(InvalidTag);
        }
        digits.parse().map(Self).map_err(|_| InvalidTag)
    }
}

/// A document as it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// The data; empty in version 0.
    pub data: Map<String, Value>,
    /// What to expect when it is written back.
    pub version: Version,
}

/// Why data cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidData {
    /// More than [`MAX_DATA_BYTES`].
    #[error("the data must be at most {MAX_DATA_BYTES} bytes of JSON")]
    TooLarge,
    /// Deeper than [`MAX_DATA_DEPTH`].
    #[error("the data must be nested at most {MAX_DATA_DEPTH} levels deep")]
    TooDeep,
}

/// The size of `data` as compact JSON, in bytes, if it may be kept.
///
/// # Errors
/// [`InvalidData`] says which bound it breaks.
pub fn checked(data: &Map<String, Value>) -> Result<usize, InvalidData> {
    if data.values().any(|value| deeper_than(value, MAX_DATA_DEPTH - 1)) {
        return Err(InvalidData::TooDeep);
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, data) {
        Ok(()) => Ok(counter.0),
        Err(_) => Err(InvalidData::TooLarge),
    }
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => true,
        Value::Array(items) => items.iter().any(|item| deeper_than(item, levels - 1)),
        Value::Object(map) => map.values().any(|item| deeper_than(item, levels - 1)),
        _ => false,
    }
}

/// Counts what is written and stops at the bound, so that nothing larger is ever formatted.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        if self.0 > MAX_DATA_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Applies a merge patch (RFC 7396): objects are merged, null removes, anything else replaces.
///
/// Recurses as deep as the patch, whose depth its parser bounds (`serde_json`: 128).
pub fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(object) = slot {
                    merge(object, inner);
                }
            }
            other => {
                target.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is no object"),
        }
    }

    /// The examples of RFC 7396, appendix A, whose target and patch are objects.
    #[test]
    fn merge_patches_are_those_of_the_rfc() {
        fn check(target: Value, patch: Value, expected: Value) {
            let mut merged = object(target.clone());
            merge(&mut merged, object(patch.clone()));
            assert_eq!(Value::Object(merged), expected, "{target} with {patch}");
        }
        check(json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"}));
        check(json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"}));
        check(json!({"a":"b"}), json!({"a":null}), json!({}));
        check(json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"}));
        check(json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"}));
        check(json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]}));
        check(json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}}));
        check(json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]}));
        check(json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1}));
        check(json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}}));
        check(json!({"a":"text"}), json!({"a":{"b":1}}), json!({"a":{"b":1}}));
    }

    #[test]
    fn data_is_bounded_in_size_and_depth() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "k": inner }));
        assert!(checked(&object(nested(MAX_DATA_DEPTH))).is_ok());
        assert_eq!(checked(&object(nested(MAX_DATA_DEPTH + 1))), Err(InvalidData::TooDeep));
        let text = |bytes: usize| object(json!({ "k": "x".repeat(bytes - r#"{"k":""}"#.len()) }));
        assert_eq!(checked(&text(MAX_DATA_BYTES)), Ok(MAX_DATA_BYTES));
        assert_eq!(checked(&text(MAX_DATA_BYTES + 1)), Err(InvalidData::TooLarge));
        assert_eq!(checked(&Map::new()), Ok(2));
    }

    #[test]
    fn entity_tags_go_there_and_back() {
        for version in [0, 1, 17, u64::MAX] {
            assert_eq!(Version(version).etag().parse(), Ok(Version(version)));
        }
        for text in
            ["", "1", "\"1", "\"\"", "W/\"1\"", "\"+1\"", "\"01\"", "\"1\", \"2\"", "*", "\"99999999999999999999\""]
        {
            assert_eq!(text.parse::<Version>(), Err(InvalidTag), "{text}");
        }
    }
}
