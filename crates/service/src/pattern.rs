//! The path of a service: literal segments, and parameters that sessions can be placed by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use streamfleet_session::PathPrefix;

/// First words of the routes below a service's path. No path may hold one, or `/a` and `/a/sessions` would take each other's calls.
const ROUTES: [&str; 9] = [
    "webrtc",
    "websocket",
    "telephone",
    "outputs",
    "input_hook",
    "trigger_response",
    "rtc_configuration",
    "sessions",
    "whip",
];

/// Segments of a path: they are compared on every request.
pub const MAX_SEGMENTS: usize = 8;

/// The longest value of a parameter, in bytes: it becomes a key of the store.
pub const MAX_VALUE: usize = 128;

/// Why a text is no path of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPattern(String);

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidPattern {}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Segment {
    Literal(String),
    Parameter(String),
}

/// A path prefix whose segments may be parameters: `/rooms/{room}`. The root is the empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern(Vec<Segment>);

/// Values of a pattern's parameters, by name, in the order of the path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PathPattern {
    /// Its parameters' names, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Parameter(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The parameters of `path` and what follows the pattern in it (empty, or with its slash); `None` if it is not under it.
    ///
    /// A parameter's value has 1 to [`MAX_VALUE`] characters of `A-Z a-z 0-9 . _ ~ : @ -`: escapes (`%2F`) have none.
    #[must_use]
    pub fn strip<'a>(&self, path: &'a str) -> Option<(Params, &'a str)> {
        let mut params = Params::default();
        let mut rest = path;
        for segment in &self.0 {
            let below = rest.strip_prefix('/')?;
            let end = below.find('/').unwrap_or(below.len());
            let (found, after) = below.split_at(end);
            match segment {
                Segment::Literal(literal) if literal == found => {}
                Segment::Parameter(name) if is_value(found) => params.0.push((name.clone(), found.to_owned())),
                Segment::Literal(_) | Segment::Parameter(_) => return None,
            }
            rest = after;
        }
        // What follows begins a new segment, or is nothing.
        (rest.is_empty() || rest.starts_with('/')).then_some((params, rest))
    }

    /// The same path, whatever its parameters are called: of two services with the same one, none could be told from the other.
    /// `/rooms/{room}` → `/rooms/{}`.
    #[must_use]
    pub fn shape(&self) -> String {
        let segments = self.0.iter().map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Parameter(_) => "{}",
        });
        segments.fold(String::new(), |shape, segment| shape + "/" + segment)
    }
}

/// Literals before parameters at the first difference, longer before shorter: of several patterns that a path is under, the
/// first is meant.
pub(crate) fn by_precedence(a: &PathPattern, b: &PathPattern) -> std::cmp::Ordering {
    let kinds = |pattern: &PathPattern| -> Vec<bool> {
        pattern.0.iter().map(|segment| matches!(segment, Segment::Literal(_))).collect()
    };
    b.0.len().cmp(&a.0.len()).then_with(|| kinds(b).cmp(&kinds(a))).then_with(|| a.cmp(b))
}

fn is_value(text: &str) -> bool {
    (1..=MAX_VALUE).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b':' | b'@' | b'-'))
        && !matches!(text, "." | "..")
}

fn is_parameter_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl FromStr for PathPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let refuse = |says: &str| Err(InvalidPattern(says.to_owned()));
        // A prefix's rules hold for what is left when each parameter is a word.
        let mut segments = Vec::new();
        let mut literal = String::new();
        for segment in text.split('/') {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            match name {
                Some(name) if !is_parameter_name(name) => {
                    return refuse("a parameter needs a name of A-Z a-z 0-9 _ between { and }");
                }
                Some(name) if segments.contains(&Segment::Parameter(name.to_owned())) => {
                    return refuse("a parameter stands twice in the path");
                }
                Some(name) => {
                    segments.push(Segment::Parameter(name.to_owned()));
                    literal.push('x');
                }
                None => {
                    if ROUTES.contains(&segment) {
                        return Err(InvalidPattern(format!(
                            "/{segment} is the name of a route that every service has"
                        )));
                    }
                    segments.push(Segment::Literal(segment.to_owned()));
                    literal.push_str(segment);
                }
            }
            literal.push('/');
        }
        literal.pop();
        literal.parse::<PathPrefix>().map_err(|error| InvalidPattern(error.to_string()))?;
        segments.retain(|segment| *segment != Segment::Literal(String::new()));
        if segments.len() > MAX_SEGMENTS {
            return Err(InvalidPattern(format!("a path may have at most {MAX_SEGMENTS} segments")));
        }
        Ok(Self(segments))
    }
}

impl TryFrom<&PathPrefix> for PathPattern {
    type Error = InvalidPattern;

    fn try_from(prefix: &PathPrefix) -> Result<Self, InvalidPattern> {
        prefix.as_str().parse()
    }
}

impl fmt::Display for PathPattern {
    /// As it was written; the root is `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.0 {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_a_path_and_what_is_none() {
        for (text, written) in [
            ("", "/"),
            ("/", "/"),
            ("/assistant", "/assistant"),
            ("/assistant/", "/assistant"),
            ("/voice/assistant", "/voice/assistant"),
            ("/rooms/{room}", "/rooms/{room}"),
            ("/{tenant}/rooms/{room}/", "/{tenant}/rooms/{room}"),
        ] {
            assert_eq!(
                text.parse::<PathPattern>().map(|pattern| pattern.to_string()),
                Ok(written.to_owned()),
                "{text:?}"
            );
        }
        for (text, says) in [
            ("assistant", "begin with /"),
            ("/a//b", "//"),
            ("/a/../b", ". or .."),
            ("/a b", "may consist of"),
            ("/{}", "needs a name"),
            ("/{a b}", "needs a name"),
            ("/{room", "may consist of"),
            ("/x{room}", "may consist of"),
            ("/{room}/{room}", "twice"),
            ("/a/sessions", "a route that every service has"),
            ("/webrtc/a", "a route that every service has"),
            ("/1/2/3/4/5/6/7/8/9", "at most 8"),
        ] {
            let error = text.parse::<PathPattern>().unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_under_a_path() {
        let strip = |pattern: &str, path: &'static str| {
            let (params, rest) = pattern.parse::<PathPattern>().unwrap().strip(path)?;
            Some((params.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(), rest))
        };
        assert_eq!(strip("/", "/webrtc/offer"), Some((vec![], "/webrtc/offer")));
        assert_eq!(strip("/echo", "/echo"), Some((vec![], "")));
        assert_eq!(strip("/echo", "/echo/webrtc/offer"), Some((vec![], "/webrtc/offer")));
        assert_eq!(strip("/echo", "/echo-frames"), None, "whole segments");
        assert_eq!(strip("/rooms/{room}", "/rooms/42/outputs"), Some((vec!["room=42".to_owned()], "/outputs")));
        assert_eq!(strip("/rooms/{room}", "/rooms"), None);
        assert_eq!(strip("/rooms/{room}", "/rooms//outputs"), None, "a value is not empty");
        assert_eq!(strip("/rooms/{room}", "/rooms/a%2Fb/outputs"), None, "no escapes");
        assert_eq!(strip("/rooms/{room}", "/rooms/../outputs"), None);
    }

    #[test]
    fn paths_that_could_not_be_told_apart_have_one_shape() {
        let shape = |text: &str| text.parse::<PathPattern>().unwrap().shape();
        assert_eq!((shape("/"), shape("/rooms/{room}/x")), (String::new(), "/rooms/{}/x".to_owned()));
        assert_eq!(shape("/{a}/b"), shape("/{b}/b/"));
        assert_ne!(shape("/{a}/b"), shape("/a/{b}"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}", path in ".{0,60}") {
            if let Ok(pattern) = text.parse::<PathPattern>() {
                let _ = pattern.strip(&path);
                prop_assert_eq!(pattern.to_string().parse::<PathPattern>(), Ok(pattern));
            }
        }
    }
}
