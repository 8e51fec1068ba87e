//! The secrets that services name.

use streamfleet_service::spec::SecretSource;

/// A file with a secret is a line; one that is longer is another file by mistake.
const MAX_BYTES: u64 = 64 << 10;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NoSecret {
    /// Its file cannot be read.
    #[error("cannot read the secret in {path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        error: std::io::Error,
    },
    /// Its variable is not set.
    #[error("the variable {0} with the secret is not set")]
    Variable(String),
    /// A secret of Kubernetes, which is not known here.
    #[error("a secret of Kubernetes cannot be read from files of services: name a file or a variable")]
    Kubernetes,
}

/// The secret's octets, without the white space that editors end files with.
///
/// # Errors
/// [`NoSecret`].
pub(crate) fn read(source: &SecretSource) -> Result<Vec<u8>, NoSecret> {
    match source {
        SecretSource::File(path) => {
            let text = contents(path).map_err(|error| NoSecret::File { path: path.clone(), error })?;
            Ok(text.trim_ascii_end().to_vec())
        }
        SecretSource::Env(name) => {
            std::env::var(name).map(String::into_bytes).map_err(|_| NoSecret::Variable(name.clone()))
        }
        SecretSource::SecretKeyRef(_) => Err(NoSecret::Kubernetes),
    }
}

fn contents(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text)
}
