//! Names that come from outside: session ids, user ids, service names, path prefixes.
//!
//! Each is checked once, by its `FromStr`; whoever holds one holds a valid one. The texts are shared (`Arc<str>`), so
//! a clone costs a counter.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::strip_hidden;

/// Why a name was refused. The sentence is meant for the one who sent it and repeats nothing of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing is left of the name.
    #[error("{what} must not be empty")]
    Empty {
        /// What was parsed.
        what: &'static str,
    },
    /// The name is too long.
    #[error("{what} must be at most {max} characters long")]
    TooLong {
        /// What was parsed.
        what: &'static str,
        /// The longest accepted length, in characters.
        max: usize,
    },
    /// A character is not in the accepted set.
    #[error("{what} may consist of {allowed} only (character {position} is not)")]
    Character {
        /// What was parsed.
        what: &'static str,
        /// The accepted characters, in words.
        allowed: &'static str,
        /// Which character, counted from 1.
        position: usize,
    },
    /// The characters are right and their order is not.
    #[error("{what} {rule}")]
    Form {
        /// What was parsed.
        what: &'static str,
        /// The broken rule, as the end of a sentence.
        rule: &'static str,
    },
}

/// Checks length and characters of an ASCII name.
fn check_ascii(
    what: &'static str,
    text: &str,
    max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), ParseError> {
    if text.is_empty() {
        return Err(ParseError::Empty { what });
    }
    // Bytes bound characters from above, so a giant text is refused without being walked.
    if text.len() > max && text.chars().nth(max).is_some() {
        return Err(ParseError::TooLong { what, max });
    }
    match text.chars().position(|c| !is_allowed(c)) {
        Some(index) => Err(ParseError::Character { what, allowed, position: index + 1 }),
        None => Ok(()),
    }
}

/// Everything the four names have in common besides their rules.
macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = ParseError;

            fn try_from(text: &str) -> Result<Self, ParseError> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// The id of a session, chosen by its client: 1 to 128 characters of `[A-Za-z0-9._~:@-]`, and neither `.` nor `..`, which no URL
/// can name: clients and proxies remove such segments (RFC 3986, 5.2.4), escaped or not.
///
/// Browsers make it of a few base-36 digits, so it can be guessed: it names a session and proves nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Arc<str>);

text_type!(SessionId);

impl SessionId {
    /// The longest id, in characters. Room for a UUID with prefixes; short enough to be a key and a log field.
    pub const MAX_LEN: usize = 128;
}

impl FromStr for SessionId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        check_ascii("a session id", text, Self::MAX_LEN, "A-Z a-z 0-9 . _ ~ : @ -", |c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | ':' | '@' | '-')
        })?;
        if matches!(text, "." | "..") {
            return Err(ParseError::Form { what: "a session id", rule: "must not be . or .." });
        }
        Ok(Self(text.into()))
    }
}

/// Who a session belongs to, in the words of the user's own system: 1 to 256 characters of any script.
///
/// Hidden characters (controls, directional marks) are stripped and surrounding white space trimmed before anything is
/// compared, so two ids that look the same on a screen are not told apart by them. A longer id is refused and not cut:
/// a cut one could be somebody else's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

text_type!(UserId);

impl UserId {
    /// The longest user id, in characters: an e-mail address (254) or a subject of an OpenID token (255) fits.
    pub const MAX_LEN: usize = 256;

    /// The longest text that is looked at, in bytes: every character four bytes, and as many again to strip.
    const MAX_INPUT: usize = Self::MAX_LEN * 8;
}

impl FromStr for UserId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "a user id";
        let too_long = ParseError::TooLong { what: WHAT, max: Self::MAX_LEN };
        if text.len() > Self::MAX_INPUT {
            return Err(too_long);
        }
        let clean = strip_hidden(text);
        let clean = clean.trim();
        if clean.is_empty() {
            return Err(ParseError::Empty { what: WHAT });
        }
        if clean.chars().count() > Self::MAX_LEN {
            return Err(too_long);
        }
        Ok(Self(clean.into()))
    }
}

/// The name of a service: a DNS label (RFC 1123), or `namespace/name` of two.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

text_type!(ServiceName);

impl ServiceName {
    /// The longest label, in characters (RFC 1035, 2.3.4).
    pub const MAX_LABEL: usize = 63;

    /// The namespace, if the name has one.
    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once('/').map(|(namespace, _)| namespace)
    }

    /// The name without its namespace.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl FromStr for ServiceName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once('/') {
            Some((namespace, name)) => {
                check_label("a service's namespace", namespace).and_then(|()| check_label("a service's name", name))?
            }
            None => check_label("a service's name", text)?,
        }
        Ok(Self(text.into()))
    }
}

fn check_label(what: &'static str, label: &str) -> Result<(), ParseError> {
    check_ascii(what, label, ServiceName::MAX_LABEL, "a-z 0-9 -", |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
    })?;
    if label.starts_with('-') || label.ends_with('-') {
        return Err(ParseError::Form { what, rule: "must begin and end with a letter or a digit" });
    }
    Ok(())
}

/// The path under which a service is served: empty for the root, else `/a/b` without a trailing slash.
///
/// Segments are unreserved characters of RFC 3986 (2.3), so a prefix needs no escaping and cannot be mistaken for a
/// route pattern. `/` and `/a/` are accepted and normalised to `` and `/a`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(Arc<str>);

text_type!(PathPrefix);

impl PathPrefix {
    /// The longest prefix, in characters: far above any in use, and matched on every request.
    pub const MAX_LEN: usize = 256;

    /// The root: the empty prefix.
    pub fn root() -> Self {
        Self("".into())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path below the prefix (empty or with its leading slash), or `None` if `path` is not under it. Whole segments
    /// are compared: `/echo` is no prefix of `/echo-frames`.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(&*self.0)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

impl FromStr for PathPrefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "a path prefix";
        if text.is_empty() || text == "/" {
            return Ok(Self::root());
        }
        check_ascii(WHAT, text, Self::MAX_LEN, "A-Z a-z 0-9 . _ ~ - /", |c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-' | '/')
        })?;
        let Some(segments) = text.strip_prefix('/') else {
            return Err(ParseError::Form { what: WHAT, rule: "must begin with /" });
        };
        let segments = segments.strip_suffix('/').unwrap_or(segments);
        for segment in segments.split('/') {
            match segment {
                "" => return Err(ParseError::Form { what: WHAT, rule: "must not contain //" }),
                "." | ".." => {
                    return Err(ParseError::Form { what: WHAT, rule: "must not contain . or .. as a segment" });
                }
                _ => {}
            }
        }
        Ok(Self(format!("/{segments}").into()))
    }
}

#[cfg(test)]
#[path = "id_tests.rs"]
mod tests;
