//! Who a session belongs to, read from its offer and headers by a configured policy.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::id::{ParseError, UserId};
use crate::metadata::{InvalidMetadata, Metadata, MetadataLimits, is_key};
use crate::wire::Offer;

/// Who a session belongs to and what its client said about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    /// The user, if any source named one.
    pub user_id: Option<UserId>,
    /// Whether somebody vouches for the user id.
    pub verified: Verification,
    /// The validated metadata.
    pub metadata: Metadata,
}

/// Whether a user id was proved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Verification {
    /// A signature that this service trusts says so.
    Verified,
    /// The client says so. Good for hashing and for groups; authorises nothing.
    #[default]
    Unverified,
}

impl Verification {
    /// The state as a flag, for JSON.
    pub fn is_verified(self) -> bool {
        self == Self::Verified
    }
}

/// Where a user id may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserIdSource {
    /// A top-level key of the metadata (`metadata:user_id`).
    Metadata(String),
    /// A request header, in lower case (`header:x-user-id`).
    Header(String),
}

impl fmt::Display for UserIdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(key) => write!(f, "metadata:{key}"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl FromStr for UserIdSource {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const WHAT: &str = "a user id source";
        match text.split_once(':') {
            Some(("metadata", key)) if is_key(key) => Ok(Self::Metadata(key.to_owned())),
            Some(("metadata", _)) => {
                Err(ParseError::Form { what: WHAT, rule: "needs a key of A-Z a-z 0-9 _ . - after metadata:" })
            }
            Some(("header", name)) if is_header_name(name) => Ok(Self::Header(name.to_ascii_lowercase())),
            Some(("header", _)) => {
                Err(ParseError::Form { what: WHAT, rule: "needs a header name of A-Z a-z 0-9 - _ after header:" })
            }
            _ => Err(ParseError::Form { what: WHAT, rule: "must be metadata:KEY or header:NAME" }),
        }
    }
}

fn is_header_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// How identities are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPolicy {
    /// Where the user id comes from: the first source that names one wins.
    pub user_id_from: Vec<UserIdSource>,
    /// The bounds of metadata.
    pub metadata: MetadataLimits,
}

impl Default for IdentityPolicy {
    /// `metadata:user_id`, then `header:x-user-id`, with the default limits.
    fn default() -> Self {
        Self {
            user_id_from: vec![UserIdSource::Metadata("user_id".into()), UserIdSource::Header("x-user-id".into())],
            metadata: MetadataLimits::default(),
        }
    }
}

/// What a request says about its sender besides its headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Claims<'a> {
    /// Top-level `metadata`, unread.
    pub metadata: Option<&'a Value>,
    /// An offer's `candidate`, in whose `additionalProp*` some clients put metadata.
    pub candidate: Option<&'a Value>,
}

impl<'a> From<&'a Offer> for Claims<'a> {
    fn from(offer: &'a Offer) -> Self {
        Self { metadata: offer.metadata.as_ref(), candidate: offer.candidate.as_ref() }
    }
}

/// Reads the identity of an offer, or of whoever sends a candidate.
///
/// Metadata is the union of top-level `metadata` and every object at `candidate.additionalProp*`. For a key named
/// twice the top level wins, then the additional property whose name sorts first (`additionalProp2` before
/// `additionalProp10`). Nested objects are not merged: a key comes whole from one place. `metadata: null` is absent;
/// additional properties that are no objects are ignored.
///
/// The user id is looked up source by source in the policy's order, before the allow list drops keys; an empty or null
/// value counts as absent, an integer as its digits. `headers` returns a header's value for its lower-case name. No
/// source here proves anything, so the identity is [`Verification::Unverified`].
///
/// # Errors
/// When the metadata breaks a limit, or the first user id that is present is not a user id. (A broken one is not
/// skipped: the session would silently run under the next source's user.)
pub fn identify<'c, 'h>(
    claims: impl Into<Claims<'c>>,
    headers: impl Fn(&str) -> Option<&'h str>,
    policy: &IdentityPolicy,
) -> Result<Identity, InvalidMetadata> {
    let said = Said::new(claims.into())?;
    let metadata = Metadata::from_entries(said.entries(), &policy.metadata)?;
    for source in &policy.user_id_from {
        let user_id = match source {
            UserIdSource::Metadata(key) => said.get(key).map_or(Ok(None), user_id_of)?,
            UserIdSource::Header(name) => headers(name).map_or(Ok(None), user_id_in)?,
        };
        if user_id.is_some() {
            return Ok(Identity { user_id, verified: Verification::Unverified, metadata });
        }
    }
    Ok(Identity { user_id: None, verified: Verification::Unverified, metadata })
}

fn user_id_of(value: &Value) -> Result<Option<UserId>, InvalidMetadata> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => user_id_in(text),
        // Databases number their users; 7 and "7" are the same user.
        Value::Number(number) if !number.is_f64() => user_id_in(&number.to_string()),
        _ => Err(InvalidMetadata::UserIdType),
    }
}

fn user_id_in(text: &str) -> Result<Option<UserId>, InvalidMetadata> {
    match text.parse() {
        Ok(user_id) => Ok(Some(user_id)),
        Err(ParseError::Empty { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The objects in which a client may have said something, the strongest first.
struct Said<'a>(Vec<&'a Map<String, Value>>);

impl<'a> Said<'a> {
    fn new(claims: Claims<'a>) -> Result<Self, InvalidMetadata> {
        let top = match claims.metadata {
            None | Some(Value::Null) => None,
            Some(Value::Object(object)) => Some(object),
            Some(_) => return Err(InvalidMetadata::NotAnObject),
        };
        let candidate = claims.candidate.and_then(Value::as_object);
        let mut additional: Vec<_> = candidate
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.strip_prefix("additionalProp")?, value.as_object()?)))
            .collect();
        additional.sort_by_key(|(suffix, _)| (suffix.len(), *suffix));
        Ok(Self(top.into_iter().chain(additional.into_iter().map(|(_, object)| object)).collect()))
    }

    fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.0.iter().copied().flatten()
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.iter().find_map(|object| object.get(key))
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
