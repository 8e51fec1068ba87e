//! The router in a cluster: what it learns of the API server instead of files and names.
//!
//! | module | noun |
//! |---|---|
//! | [`config`] | what an operator can say about it |
//! | [`contact`] | whether the API server answers |
//! | [`watching`] | a watch that goes on |
//! | [`book`] | the StreamServices, as they were last read |
//! | [`vault`] | the Secrets that services name |
//! | [`services`] | both of them followed: the roster |
//! | [`addresses`], [`public`] | where the world reaches relays: what is said of it, and that followed |
//! | [`peers`] | the other relays |
//!
//! Everything that decides is pure; [`watching`], [`services`], [`public`] and [`peers`] are the shells, and parts of [`vault`]. While the API
//! server is away everything goes on as it was known last. A router that has no `kubernetes` in its configuration does nothing of this.

pub(crate) mod addresses;
pub(crate) mod book;
pub mod config;
pub(crate) mod contact;
pub(crate) mod peers;
pub(crate) mod public;
pub(crate) mod services;
pub(crate) mod vault;
pub(crate) mod watching;

use std::time::Duration;

use kube::Client;

/// For a connection: an API server that is away is asked again, and nobody waits for it.
const CONNECTS: Duration = Duration::from_secs(5);
/// For the next octets of an answer: longer than a watch is quiet, which the API server ends before.
const SILENCE: Duration = Duration::from_secs(30);

/// Why the API server cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoCluster {
    /// Neither a service account nor a kubeconfig is there.
    #[error("kubernetes: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// What they say cannot be used.
    #[error("kubernetes: {0}")]
    Client(#[from] kube::Error),
}

/// A way to the API server, as the pod's service account, or as a kubeconfig says. Nobody is asked yet.
pub(crate) async fn connect() -> Result<Client, NoCluster> {
    let mut config = kube::Config::infer().await?;
    config.connect_timeout = Some(CONNECTS);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}
