//! SRTP for RTP: AEAD_AES_128_GCM (RFC 7714) and AES128_CM_HMAC_SHA1_80 (RFC 3711), in place and without allocation.
//!
//! SRTCP stays with the WebRTC core, which has keys and indices of its own for it. The primitives are those of the core's
//! crypto provider.

mod keys;
mod rx;
mod tx;

pub use keys::{KeyError, Keys, Profile, Role};
pub use rx::{Opened, Refused, Rx};
pub use tx::{Outgoing, SealError, Tx};

#[cfg(test)]
mod tests;
