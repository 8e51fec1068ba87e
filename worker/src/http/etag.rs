//! Entity tags of sessions' data, and the requests that depend on them (RFC 9110, 8.8.3 and 13.1).

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use streamfleet_store::{ContextId, InvalidTag, Version};

/// A document's version. Every document counts from 0 and an id may come to be another session's: whose document it is
/// belongs to the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    context: u32,
    version: Version,
}

impl Tag {
    pub(super) fn new(context: ContextId, version: Version) -> Self {
        Self { context: context.hint(), version }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:08x}-{}\"", self.context, self.version)
    }
}

impl FromStr for Tag {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let (context, version) = text.strip_prefix('"').and_then(|rest| rest.split_once('-')).ok_or(InvalidTag)?;
        let tag = Self {
            context: u32::from_str_radix(context, 16).map_err(|_| InvalidTag)?,
            version: format!("\"{version}").parse()?,
        };
        // Number parsers take more than one text for a number; a tag of ours has one.
        if tag.to_string() == text { Ok(tag) } else { Err(InvalidTag) }
    }
}

/// The tags that a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tags {
    Any,
    These(Vec<Tag>),
}

/// How two entity tags compare (RFC 9110, 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Strong,
    Weak,
}

impl Tags {
    /// What the header says; `None` if it is not there. What is no tag of ours matches nothing.
    pub(super) fn parse(headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> Option<Self> {
        if !headers.contains_key(name) {
            return None;
        }
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let tags: Vec<&str> = texts.flat_map(|text| text.split(',')).map(str::trim).collect();
        if tags.contains(&"*") {
            return Some(Self::Any);
        }
        let read = |tag: &&str| match comparison {
            Comparison::Strong => tag.parse().ok(),
            Comparison::Weak => tag.strip_prefix("W/").unwrap_or(tag).parse().ok(),
        };
        Some(Self::These(tags.iter().filter_map(read).collect()))
    }

    pub(super) fn matches(&self, tag: Tag) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.contains(&tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::IF_MATCH;

    use super::*;

    fn tag(context: u32, version: u64) -> Tag {
        Tag { context, version: Version(version) }
    }

    #[test]
    fn tags_go_there_and_back() {
        for tag in [tag(0, 0), tag(0xa7, 1), tag(u32::MAX, u64::MAX)] {
            assert_eq!(tag.to_string().parse(), Ok(tag));
        }
        for text in [
            "",
            "\"1\"",
            "\"000000a7-1",
            "000000a7-1",
            "\"a7-1\"",
            "\"000000A7-1\"",
            "\"+00000a7-1\"",
            "\"000000a7-01\"",
            "\"-\"",
        ] {
            assert_eq!(text.parse::<Tag>(), Err(InvalidTag), "{text}");
        }
    }

    #[test]
    fn tags_of_requests() {
        #[track_caller]
        fn check(values: &[&'static str], strong: &[u64], weak: &[u64]) {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IF_MATCH, value.parse().unwrap());
            }
            let these =
                |versions: &[u64]| Some(Tags::These(versions.iter().map(|version| tag(0xa7, *version)).collect()));
            assert_eq!(Tags::parse(&headers, &IF_MATCH, Comparison::Strong), these(strong), "{values:?}");
            assert_eq!(Tags::parse(&headers, &IF_MATCH, Comparison::Weak), these(weak), "{values:?}");
        }
        check(&["\"000000a7-7\""], &[7], &[7]);
        check(&["W/\"000000a7-7\""], &[], &[7]);
        check(&["\"000000a7-1\" , \"000000a7-2\"", "\"000000a7-3\""], &[1, 2, 3], &[1, 2, 3]);
        check(&["000000a7-7"], &[], &[]);
        check(&["\"a,b\", \"000000a7-7\""], &[7], &[7]);
        check(&[""], &[], &[]);
        assert_eq!(Tags::parse(&HeaderMap::new(), &IF_MATCH, Comparison::Strong), None);
        let any = HeaderMap::from_iter([(IF_MATCH, "*".parse().unwrap())]);
        assert_eq!(Tags::parse(&any, &IF_MATCH, Comparison::Strong), Some(Tags::Any));
        let any = Tags::Any;
        assert!(any.matches(tag(1, 1)) && !Tags::These(vec![tag(1, 1)]).matches(tag(2, 1)), "another's document");
    }
}
