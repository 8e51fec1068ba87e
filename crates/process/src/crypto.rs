//! The one cryptography provider of a process.

use rustls::crypto::CryptoProvider;

/// Makes `ring` the provider of every rustls in the process; calling it again is free.
///
/// A process with two candidate providers panics at its first handshake, far from the cause, so the choice is made
/// here, before anything else, and not left to crate features.
pub fn install() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread has installed a provider in between, which is all we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_once_and_for_all() {
        install();
        install();
        assert!(CryptoProvider::get_default().is_some());
    }
}
