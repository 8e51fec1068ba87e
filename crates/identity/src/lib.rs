//! Who is calling: signed tokens, and the keys that verify them.
//!
//! A [`Keys`] set is read once, from a JWKS document (RFC 7517), a PEM public key or a shared secret; [`verify`] holds a
//! token (RFC 7519) against it and a [`TokenPolicy`]. [`KeyCache`] says when a set that lives at a URL is to be fetched
//! again: an issuer rotates its keys without telling anybody, and a caller who makes up key ids must not have it asked for
//! each of them.
//!
//! All of it is pure: time is an argument, and nothing here opens a connection.
//!
//! What is absent: HTTP, where in a request a token stands, what a session does with the claims.

mod cache;
mod keys;
mod signature;
mod token;

pub use cache::{KeyCache, MAX_AGE, Need, RETRY_AFTER};
pub use keys::{InvalidKeys, Keys, MAX_DOCUMENT, MAX_KEYS, MIN_RSA_BITS, MIN_SECRET_BYTES};
pub use token::{Claims, MAX_TOKEN, TokenError, TokenPolicy, key_id, verify};
