//! The secrets that services name.

use std::collections::BTreeSet;

use streamfleet_service::Service;
use streamfleet_service::secrets::{MAX_SECRET, of_routers};
use streamfleet_service::spec::{SecretKeyRef, SecretSource};

use crate::kubernetes::vault::{Found, Vault};

/// Where secrets are looked for.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Option<Vault>);

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
    /// The API server has not been asked for it yet.
    #[error("the Secret has not been read yet")]
    NotYet,
    /// The API server does not have it.
    #[error("{0}")]
    Missing(String),
    /// A file or a variable of this router, which is none of a cluster's business.
    #[error("in a cluster a secret is named by secretKeyRef")]
    Foreign,
}

impl Secrets {
    /// Files and variables of this machine.
    #[must_use]
    pub fn local() -> Self {
        Self(None)
    }

    /// Those of a cluster.
    pub(crate) fn of(vault: Vault) -> Self {
        Self(Some(vault))
    }

    /// The secret's octets, without the white space that editors end files with.
    ///
    /// # Errors
    /// [`NoSecret`].
    pub(crate) fn read(&self, namespace: &str, source: &SecretSource) -> Result<Vec<u8>, NoSecret> {
        match (source, &self.0) {
            (SecretSource::File(path), None) => {
                let text = contents(path).map_err(|error| NoSecret::File { path: path.clone(), error })?;
                Ok(text.trim_ascii_end().to_vec())
            }
            (SecretSource::Env(name), None) => {
                std::env::var(name).map(String::into_bytes).map_err(|_| NoSecret::Variable(name.clone()))
            }
            (SecretSource::SecretKeyRef(_), None) => Err(NoSecret::Kubernetes),
            (SecretSource::SecretKeyRef(key), Some(vault)) => match vault.find(namespace, key) {
                Found::Bytes(bytes) => Ok(bytes),
                Found::NotYet => Err(NoSecret::NotYet),
                Found::Missing(why) => Err(NoSecret::Missing(why)),
            },
            (SecretSource::File(_) | SecretSource::Env(_), Some(_)) => Err(NoSecret::Foreign),
        }
    }

    /// Whether one of a service's secrets has still to be read.
    pub(crate) fn are_pending(&self, service: &Service) -> bool {
        let namespace = service.name.namespace().unwrap_or_default();
        let is_pending = |vault: &Vault| keys(service).any(|key| vault.find(namespace, key) == Found::NotYet);
        self.0.as_ref().is_some_and(is_pending)
    }

    /// Which versions of a service's secrets are known: what was made of others has to be made again.
    pub(crate) fn versions(&self, service: &Service) -> Vec<u64> {
        let namespace = service.name.namespace().unwrap_or_default();
        let vault = self.0.as_ref();
        vault.map(|vault| keys(service).map(|key| vault.version(namespace, key)).collect()).unwrap_or_default()
    }
}

/// The Secrets that a router needs for these services: namespace and key.
pub(crate) fn wanted<'a>(services: impl Iterator<Item = &'a Service>) -> BTreeSet<(String, SecretKeyRef)> {
    let of = |service: &'a Service| {
        let namespace = service.name.namespace().unwrap_or_default();
        keys(service).map(move |key| (namespace.to_owned(), key.clone()))
    };
    services.flat_map(of).collect()
}

fn keys(service: &Service) -> impl Iterator<Item = &SecretKeyRef> {
    of_routers(service).map(|(_, key)| key)
}

fn contents(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_SECRET as u64).read_to_end(&mut text)?;
    Ok(text)
}
