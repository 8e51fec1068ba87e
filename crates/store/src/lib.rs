//! State that is not one session's alone.
//!
//! A [`ContextStore`] keeps what handlers and backends have written about a session, [`Document`]s of JSON with versions,
//! and gives it back to the same client after its connection, or the process that held it, has gone. [`Memory`] is the
//! store of a process that stands alone.
//!
//! Who gets a context back is decided here, because it is the one place that all transports and all processes ask: the
//! client with the context's one-time token, or the same verified user, never somebody who merely knows the session's
//! id ([`Claim`]).
//!
//! What is absent: sessions themselves, sockets, HTTP.

mod context;
mod document;
mod memory;

pub use context::{
    Claim, ContextId, ContextKey, ContextStore, Delivery, Expected, Generation, Issued, Opened, Sharing, StoreError,
    WriteError,
};
pub use document::{Document, InvalidData, InvalidTag, MAX_DATA_BYTES, MAX_DATA_DEPTH, Version, checked, merge};
pub use memory::{Bounds, Memory, TOKEN_GRACE, Usage};
