//! Whose context it is, and what a store of them can do.

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value};
use streamfleet_session::{ResumeToken, ServiceName, SessionId, UserId};

use crate::document::{Document, InvalidData, Version};

/// The session that a context belongs to. Ids are chosen by clients and may collide, so several contexts can have one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContextKey {
    /// The service that was called.
    pub service: ServiceName,
    /// The id that the client chose.
    pub session: SessionId,
}

/// A context's own name: random, so that nobody who knows a session's id knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextId(pub(crate) u128);

impl ContextId {
    /// What tells it from others in public: 32 of its 128 bits.
    #[must_use]
    pub fn hint(self) -> u32 {
        (self.0 >> 96) as u32
    }

    /// A name of random bits.
    #[must_use]
    pub const fn from_random(bits: u128) -> Self {
        Self(bits)
    }

    /// Its bits, for whoever hands the session on. Who has them can read and write the context.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart in a log.
        write!(f, "ContextId({:08x}…)", self.hint())
    }
}

/// What a new session can show for an earlier one's context.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// The one-time token that the earlier session was given.
    pub token: Option<ResumeToken>,
    /// The user, if *verified*: one that merely says who he is claims nothing.
    pub user: Option<UserId>,
}

/// A context that a session has opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Its name, for reading, writing and closing it.
    pub id: ContextId,
    /// Whether it is an earlier session's.
    pub resumed: bool,
    /// What the next session must show. The token that was shown now is good [once more](ContextStore::open); every
    /// earlier one is void.
    pub token: ResumeToken,
    /// That token's place among the context's tokens.
    pub generation: Generation,
    /// What it holds.
    pub document: Document,
}

/// The place of a token among all that its context has given out: of two, the later one's is the one that is sure to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub(crate) u64);

impl Generation {
    /// The place of this number, as the store that gave the token counts them.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number, for whoever hands the token on.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A token that a context has given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// What the client shows the next time.
    pub token: ResumeToken,
    /// Its place among the context's tokens.
    pub generation: Generation,
}

/// What came of the wish to share a live session's context.
#[derive(Debug, Clone, PartialEq)]
pub enum Sharing {
    /// It is open once more.
    Opened(Opened),
    /// The claim is not that of the session's client.
    Refused,
    /// No session lives under this key.
    Nobody,
}

/// How far a token is on its way to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// It is there: the client came by the answer that carried it.
    Known,
    /// It is sent, and may be lost with its connection.
    Sent,
}

/// What a writer believes of the document that it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: the last writer wins.
    Anything,
    /// That it still has this version.
    Version(Version),
}

impl Expected {
    /// Whether a document of version `current` may be replaced.
    #[must_use]
    pub fn allows(self, current: Version) -> bool {
        match self {
            Self::Anything => true,
            Self::Version(version) => version == current,
        }
    }
}

/// The store cannot say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It has no room: as many contexts are open as it may hold.
    #[error("the store is full")]
    Full,
    /// It does not answer.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// Its server has no memory left, and tells and takes nothing: what nobody could renew would look as if it were over.
    #[error("the store is full: its server has no memory left")]
    NoMemory,
    /// It answers, and does not do it: a key of ours is somebody else's, or its user may not.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// Another version of the program wrote it, in another form.
    #[error("the store is written in schema {found}, and this program reads and writes schema {ours}")]
    Schema {
        /// What it is written in.
        found: String,
        /// What this program knows.
        ours: &'static str,
    },
}

impl StoreError {
    /// Whether things go on without it until it is back: it has not said that there is no room, but nothing.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NoMemory | Self::Refused(_))
    }
}

/// Why a document was not written. It is unchanged then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Somebody else has written since.
    #[error("the document is in version {current} by now")]
    Conflict {
        /// The version to read and merge with.
        current: Version,
    },
    /// The data breaks a bound.
    #[error(transparent)]
    Invalid(#[from] InvalidData),
    /// The context is over and forgotten.
    #[error("there is no such context")]
    Gone,
    /// The store cannot say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where contexts are kept.
///
/// A context is *open* from [`open`](Self::open) until each that opened it has called [`close`](Self::close): two sessions
/// hold one context while a client moves from one to the other. Closed, it is retained for a while and then forgotten. Of one that nothing was written to
/// only the tokens are retained, for [`EMPTY_RETENTION`](crate::EMPTY_RETENTION) at most: who shows one has it again.
#[async_trait]
pub trait ContextStore: Send + Sync + 'static {
    /// Opens a session's context: an earlier one of the same key whose token or verified user the claim shows, or a new
    /// and empty one. The token is replaced either way.
    ///
    /// The answer with the new token may be lost with the connection that it is on its way over. The token that was shown
    /// is therefore taken once more, here and by [`rotate`](Self::rotate), until its successor has been shown or
    /// [`TOKEN_GRACE`](crate::TOKEN_GRACE) is over.
    ///
    /// # Errors
    /// [`StoreError`] when there is no room or no answer.
    async fn open(&self, key: &ContextKey, claim: &Claim) -> Result<Opened, StoreError>;

    /// The context of the session that lives under this key; the last one that did, if none does.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn find(&self, key: &ContextKey) -> Result<Option<ContextId>, StoreError>;

    /// Uses up the token of the session that lives under this key, as [`open`](Self::open) does, and gives the one that follows it; `None` if `token` is
    /// not that session's, or none lives. Whoever has the token is that session's client.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn rotate(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<Issued>, StoreError>;

    /// Opens the context of the session that lives under this key once more, for its client on the way to another
    /// connection, if the claim shows that session's token, and its user where it has a verified one. What the
    /// client showed stays good beside what it is given, until one of the two is used or [confirmed](Self::confirm): an
    /// answer that is lost costs it nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn share(&self, key: &ContextKey, claim: &Claim) -> Result<Sharing, StoreError>;

    /// The client has arrived for which this token was made: every other token of this context is void, but the one that
    /// it showed is taken once more, as by [`open`](Self::open), where what it was given may be lost yet. False if that token
    /// was void itself, because its client has gone another way since.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn confirm(&self, id: ContextId, token: &ResumeToken, delivery: Delivery) -> Result<bool, StoreError>;

    /// The context of this key that `token` is good for, whether its session lives or not; `None` if there is none. The
    /// token is not used up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn verify(&self, key: &ContextKey, token: &ResumeToken) -> Result<Option<ContextId>, StoreError>;

    /// What a context holds; `None` when it is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn read(&self, id: ContextId) -> Result<Option<Document>, StoreError>;

    /// Replaces what a context holds, if it is in the expected version. Returns the new version.
    ///
    /// # Errors
    /// [`WriteError`]; the document is unchanged then.
    async fn write(&self, id: ContextId, data: Map<String, Value>, expected: Expected) -> Result<Version, WriteError>;

    /// The session that opened it is over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    async fn close(&self, id: ContextId) -> Result<(), StoreError>;
}
