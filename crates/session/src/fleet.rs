//! What passes between a router and a worker beside the client's own request: headers.
//!
//! | header | way | what |
//! |---|---|---|
//! | [`SECRET_HEADER`] | to the worker, with every request | that a router of the same installation asks for its service: the [key](crate::ServiceKey) of that |
//! | [`PLACED_HEADER`] | to the worker, with an offer or a handshake | the session's place, as the claim gave it: [`Placed`] |
//! | [`VOUCHED_HEADER`] | to the worker, with what is asked of a session | that whoever asks may: the router has seen to it |
//! | [`USER_HEADER`] | to the worker, with what is asked of outputs | the user who is proved to ask: [`encode_user`] |
//! | [`HERE_HEADER`] | to the worker, with a question for a session | that it shall say what it knows itself, and ask nobody |
//! | [`PATH_HEADER`] | to the worker, with every request | the path under which the client asked, query included |
//! | [`CLIENT_HEADER`] | to the worker, with every request | whose request it is |
//! | [`REFUSED_HEADER`] | to the router, with a 503 | that the worker does not take it, and has kept nothing: [`Refused`] |
//!
//! Workers are asked at `/SERVICE` and the route below, whatever the service's public paths are.
//!
//! A router passes on no header of a client's that [`is_reserved`].

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::id::{SessionId, UserId};
use crate::token::ResumeToken;
use crate::ufrag::{SessionKey, Ufrag};

/// Carries the [`ServiceKey`](crate::ServiceKey) of the service that is asked for.
pub const SECRET_HEADER: &str = "streamfleet-secret";
/// Carries a [`Placed`].
pub const PLACED_HEADER: &str = "streamfleet-placed";
/// Says `operator`: the router vouches for whoever asks, as if it showed the worker's own admin token.
pub const VOUCHED_HEADER: &str = "streamfleet-vouched";
/// The value of [`VOUCHED_HEADER`].
pub const VOUCHED: &str = "operator";
/// Says which user asks, as a token has proved to the router: where only the worker knows whose a session was, which is over.
pub const USER_HEADER: &str = "streamfleet-user";
/// Asks for what the worker itself has: a router that cannot ask the store looks for whoever has a session. Any value.
pub const HERE_HEADER: &str = "streamfleet-here";
/// The path and query that the client asked for.
pub const PATH_HEADER: &str = "streamfleet-path";
/// Carries the address that a request has come from, without a port: routers write it anew, whatever a client says there.
pub const CLIENT_HEADER: &str = "x-forwarded-for";
/// Carries a [`Refused`].
pub const REFUSED_HEADER: &str = "streamfleet-refused";
/// What the names of all these begin with.
const RESERVED: &str = "streamfleet-";

/// The longest [`PLACED_HEADER`], in bytes. A context's data is at most 64 KiB, metadata and claims 4 KiB each unless a
/// service allows more, and base64 makes four bytes of three: about 98 KiB. The rest is for services that do allow more.
/// A worker that is part of a fleet takes so much beside the usual headers.
pub const MAX_PLACED: usize = 128 << 10;

/// The form of a [`Placed`]. Another one is refused: router and worker are of different releases then.
const FORM: u32 = 1;

/// Whether a header is one of those that only routers and workers write.
#[must_use]
pub fn is_reserved(header: &str) -> bool {
    header.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED))
}

/// A user's id as [`USER_HEADER`] says it: base64 for URLs, without padding (RFC 4648, 5), of its UTF-8.
#[must_use]
pub fn encode_user(user: &UserId) -> String {
    URL_SAFE_NO_PAD.encode(user.as_str())
}

/// Reads what [`encode_user`] writes; `None` for anything else.
#[must_use]
pub fn decode_user(header: &[u8]) -> Option<UserId> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    // An id is what is left of a text: another one than was said is somebody else's.
    text.parse::<UserId>().ok().filter(|user| user.as_str() == text)
}

/// A session's place, for the worker that is to have it: who its client is, and what the claim has opened.
///
/// `Debug` shows which session it is and nothing of its client.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placed {
    /// The form that this is written in.
    pub v: Form,
    /// The claim's name.
    #[serde(with = "hex")]
    pub ticket: u64,
    /// The worker's registration under which it has given room.
    pub epoch: u64,
    /// The session's id.
    pub session: SessionId,
    /// Who it counts for.
    pub user: Option<UserId>,
    /// Whether a signature vouches for the user.
    pub verified: bool,
    /// What its client said.
    pub metadata: Map<String, Value>,
    /// What a token that was verified says of it.
    pub claims: Map<String, Value>,
    /// Which variant of the service it has, where there are several.
    pub variant: Option<String>,
    /// What it must be together with, for as long as it lives: a store that has lost it is told so again.
    #[serde(default)]
    pub pin: Option<String>,
    /// What the place rests on.
    #[serde(default)]
    pub standing: Standing,
    /// Its context, which the claim has opened.
    pub context: PlacedContext,
    /// The session that goes on until this one has connected.
    #[serde(with = "hex::optional")]
    pub takes_over: Option<u64>,
    /// Where the client's request came from.
    pub client: SocketAddr,
    /// How long its context is kept after its end.
    #[serde(rename = "retentionMs", with = "millis")]
    pub retention: Duration,
    /// How its media comes, where that is by relays; without, its client is told the worker's own addresses.
    #[serde(default)]
    pub media: Option<PlacedMedia>,
}

/// How a session's media comes by relays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedMedia {
    /// What the session is called in its client's checks: it leads relays to the worker.
    pub ufrag: Ufrag,
    /// Seals what relays and worker put before each datagram of it.
    pub key: SessionKey,
    /// The UDP port of the worker's media loop that is to have it: the ufrag leads there.
    pub port: u16,
    /// Where its client is told to send to.
    pub candidates: Vec<SocketAddr>,
}

/// What a place rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// A claim in the store, in the registration of [`Placed::epoch`].
    #[default]
    Claimed,
    /// Nothing yet: the store was away from the router. The worker decides by what it knows itself, takes it whatever its
    /// registration is, and makes it known to the store when it can.
    Provisional(Share),
}

/// What one worker may give of a service's limits while nobody counts for the whole fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Sessions of the service at a time, here.
    pub sessions: Option<NonZeroU32>,
    /// Sessions of one user at a time, here.
    pub of_user: Option<NonZeroU32>,
}

impl Share {
    /// A worker's part of limits that `workers` share, at least one: rounded up, so that together they may give more than the
    /// limit rather than less.
    #[must_use]
    pub fn of(sessions: Option<NonZeroU32>, of_user: Option<NonZeroU32>, workers: usize) -> Self {
        let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
        let part = |limit: NonZeroU32| NonZeroU32::new(limit.get().div_ceil(workers)).unwrap_or(NonZeroU32::MIN);
        Self { sessions: sessions.map(part), of_user: of_user.map(part) }
    }
}

/// A context as a claim has opened it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlacedContext {
    /// Its name.
    #[serde(with = "hex")]
    pub id: u128,
    /// How often its data has been written.
    pub version: u64,
    /// Its data.
    pub data: Map<String, Value>,
    /// Whether it is an earlier session's.
    pub resumed: bool,
    /// What the next session must show.
    pub token: ResumeToken,
    /// That token's place among the context's tokens.
    pub generation: u64,
    /// The verified user whose it is, where that gives it back: a store that has lost it is told so again.
    #[serde(default)]
    pub user: Option<UserId>,
}

/// A place that does not fit a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a place must be at most {MAX_PLACED} bytes")]
pub struct PlacedTooLarge;

/// A header that is no place.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPlaced {
    /// Longer than [`MAX_PLACED`].
    #[error(transparent)]
    TooLarge(#[from] PlacedTooLarge),
    /// Not base64 for URLs, without padding (RFC 4648, 5).
    #[error("not base64url")]
    Encoding,
    /// Not the JSON of a place. The error says where and repeats nothing of it.
    #[error("not a place, at byte {column}")]
    Form {
        /// Where it stops being one.
        column: usize,
    },
}

impl Placed {
    /// The header's value.
    ///
    /// # Errors
    /// [`PlacedTooLarge`].
    pub fn encode(&self) -> Result<String, PlacedTooLarge> {
        // Maps of JSON and plain words: nothing here can fail to be written.
        let json = serde_json::to_vec(self).map_err(|_| PlacedTooLarge)?;
        let text = URL_SAFE_NO_PAD.encode(json);
        if text.len() > MAX_PLACED { Err(PlacedTooLarge) } else { Ok(text) }
    }

    /// Reads what [`encode`](Self::encode) writes.
    ///
    /// # Errors
    /// [`InvalidPlaced`].
    pub fn decode(header: &[u8]) -> Result<Self, InvalidPlaced> {
        if header.len() > MAX_PLACED {
            return Err(PlacedTooLarge.into());
        }
        let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| InvalidPlaced::Encoding)?;
        serde_json::from_slice(&json).map_err(|error| InvalidPlaced::Form { column: error.column() })
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placed")
            .field("ticket", &format_args!("{:016x}", self.ticket))
            .field("epoch", &self.epoch)
            .field("standing", &self.standing)
            .field("session", &self.session)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PlacedContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlacedContext")
            .field("version", &self.version)
            .field("resumed", &self.resumed)
            .finish_non_exhaustive()
    }
}

/// Why a worker does not take a session that was placed on it. It has kept nothing; another worker may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The place was given in another registration of its than the present one, or it has none.
    Stale,
    /// It finishes the sessions that it has.
    Draining,
    /// It has no room.
    Full,
    /// It does not know whoever asks: its secret is another one. Said with 403 instead of 503.
    Stranger,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Stale, Self::Draining, Self::Full, Self::Stranger];

    /// The stable label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Stranger => "stranger",
        }
    }
}

/// A text that is no reason to refuse a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reason to refuse a session")]
pub struct InvalidRefused;

impl FromStr for Refused {
    type Err = InvalidRefused;

    fn from_str(text: &str) -> Result<Self, InvalidRefused> {
        Self::ALL.into_iter().find(|refused| refused.as_str() == text).ok_or(InvalidRefused)
    }
}

/// The form of a [`Placed`]: a number on the wire, and nothing to choose here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form;

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(FORM)
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            FORM => Ok(Self),
            _ => Err(serde::de::Error::custom("another form")),
        }
    }
}

/// Random bits as hexadecimal digits: as a number of JSON they are exact for nobody else.
mod hex {
    use std::borrow::Cow;
    use std::fmt::LowerHex;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) trait Bits: Sized + LowerHex {
        const DIGITS: usize;
        fn parse(digits: &str) -> Option<Self>;
    }

    impl Bits for u64 {
        const DIGITS: usize = 16;

        fn parse(digits: &str) -> Option<Self> {
            Self::from_str_radix(digits, 16).ok()
        }
    }

    impl Bits for u128 {
        const DIGITS: usize = 32;

        fn parse(digits: &str) -> Option<Self> {
            Self::from_str_radix(digits, 16).ok()
        }
    }

    fn read<T: Bits, E: serde::de::Error>(text: &str) -> Result<T, E> {
        let is_ours = text.len() == T::DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_ours.then(|| T::parse(text)).flatten().ok_or_else(|| E::custom("not hexadecimal digits"))
    }

    pub(super) fn serialize<T: Bits, S: Serializer>(bits: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{bits:0width$x}", width = T::DIGITS))
    }

    pub(super) fn deserialize<'de, T: Bits, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        read(&Cow::<'de, str>::deserialize(deserializer)?)
    }

    pub(super) mod optional {
        use super::{Bits, Cow, Deserialize, Deserializer, Serializer, read};

        pub(in super::super) fn serialize<T: Bits, S: Serializer>(
            bits: &Option<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match bits {
                Some(bits) => super::serialize(bits, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, T: Bits, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<T>, D::Error> {
            Option::<Cow<'de, str>>::deserialize(deserializer)?.map(|text| read(&text)).transpose()
        }
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
