//! Configured texts that must not show up in logs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A secret: shows nothing of itself in `Debug`, and itself only where somebody asks for it by name, or serialises it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that is to be kept.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, in clear.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing_unless_asked() {
        let secret: Secret = serde_json::from_str("\"north\"").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.reveal(), "north");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"north\"");
    }
}
