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
    Ok(client(kube::Config::infer().await?)?)
}

fn client(mut config: kube::Config) -> kube::Result<Client> {
    config.connect_timeout = Some(CONNECTS);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    // A request that is refused for now fails: what is asked again has its own pauses, and says meanwhile that nobody answers. The
    // client's own would be minutes long, and nobody would hear of them.
    config.default_retry = false;
    Client::try_from(config)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use kube::Api;
    use kube::runtime::watcher;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::contact::{Contact, Standing};
    use super::watching::Watch;
    use super::*;

    /// What an API server says that begins, or has too much to do, counts as a failure at once.
    #[tokio::test]
    async fn who_is_told_to_come_back_says_so() {
        streamfleet_process::crypto::install();
        for status in ["429 Too Many Requests", "503 Service Unavailable", "504 Gateway Timeout"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let answer = async {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _ = stream.read(&mut [0; 4_096]).await;
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes()).await;
                }
            };
            let contact = Contact::default();
            let line = contact.line();
            line.heard();
            let services = Api::<Service>::namespaced(client(kube::Config::new(uri)).unwrap(), "voice");
            let mut watch = Watch::new(services, watcher::Config::default(), line);
            let failed = async {
                while contact.standing(std::time::Instant::now()) != Standing::Away {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            // Without pauses of the client's: the first of them alone may be as long.
            let watched = async { while watch.heard().await.is_ok() {} };
            let seen = tokio::select! {
                seen = timeout(Duration::from_secs(20), failed) => seen.is_ok(),
                () = watched => false,
                () = answer => false,
            };
            assert!(seen, "{status}");
        }
    }
}
