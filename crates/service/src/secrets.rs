//! The Secrets that a service names, and what is to be in them: what routers and workers go by, and the operator tells of.

use crate::Service;
use crate::service::KeySource;
use crate::spec::{SecretKeyRef, SecretSource};
use crate::turn::{TurnSecret, WeakSecret};

/// The shortest secret of tokens, in octets: as long as the hash of HS256 (RFC 7518, 3.2).
pub const MIN_TOKEN_SECRET: usize = 32;
/// The longest secret, in octets: more is another file by mistake.
pub const MAX_SECRET: usize = 64 << 10;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It verifies tokens.
    Tokens,
    /// TURN servers know it.
    Turn,
    /// A telephone company signs with it.
    Telephone,
}

/// Why a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// More than [`MAX_SECRET`].
    #[error("has more than {MAX_SECRET} bytes")]
    TooLarge,
    /// It could be guessed, or is none.
    #[error("must have at least {MIN_TOKEN_SECRET} bytes")]
    Short,
    /// As much of a TURN server's.
    #[error("{0}")]
    Weak(#[from] WeakSecret),
    /// It is empty.
    #[error("is empty")]
    Empty,
}

impl Purpose {
    /// Where a specification names it.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Tokens => "spec.identity.jwt.secret",
            Self::Turn => "spec.media.turn.secret",
            Self::Telephone => "spec.telephone.authToken",
        }
    }

    /// Checks the text of a secret, which may end with a line as editors end files.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn check(self, text: &[u8]) -> Result<(), Unusable> {
        if text.len() > MAX_SECRET {
            return Err(Unusable::TooLarge);
        }
        let text = text.trim_ascii_end();
        match self {
            Self::Tokens if text.len() < MIN_TOKEN_SECRET => Err(Unusable::Short),
            Self::Turn => Ok(TurnSecret::new(text).map(drop)?),
            Self::Telephone if text.is_empty() => Err(Unusable::Empty),
            Self::Tokens | Self::Telephone => Ok(()),
        }
    }
}

/// The keys of Secrets that its routers read. Telephones' tokens are their workers'.
pub fn of_routers(service: &Service) -> impl Iterator<Item = (Purpose, &SecretKeyRef)> {
    let tokens = service.identity.tokens.as_ref().and_then(|tokens| match &tokens.keys {
        KeySource::Secret(source) => Some((Purpose::Tokens, source)),
        KeySource::Jwks(_) | KeySource::Pem(_) => None,
    });
    let turn = service.ice.as_ref().and_then(|ice| ice.turn.as_ref()).map(|turn| (Purpose::Turn, &turn.secret));
    tokens.into_iter().chain(turn).filter_map(|(purpose, source)| match source {
        SecretSource::SecretKeyRef(key) => Some((purpose, key)),
        SecretSource::File(_) | SecretSource::Env(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_must_be() {
        #[track_caller]
        fn check(purpose: Purpose, text: &[u8], expected: Option<&str>) {
            let found = purpose.check(text).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected, "{purpose:?} of {}", text.len());
        }
        check(Purpose::Tokens, &[b'x'; 32], None);
        check(Purpose::Tokens, b"thirty-one-octets-and-a-new-line\n", None);
        check(Purpose::Tokens, b"thirty-one-octets-and-a-newline\n", Some("must have at least 32 bytes"));
        check(Purpose::Tokens, &[b'x'; 900_000], Some("has more than 65536 bytes"));
        check(Purpose::Turn, b"sixteen-octets-x", None);
        let weak = "must have at least 16 characters: whoever gets credentials can try secrets on them";
        check(Purpose::Turn, b"fifteen-octets-\n", Some(weak));
        check(Purpose::Telephone, b"x", None);
        check(Purpose::Telephone, b" \n", Some("is empty"));
    }
}
