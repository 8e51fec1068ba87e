//! A client of the API server for this process, whose connections are made on a machine of the cluster's.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::net::TcpStream;
use tower::{Service, ServiceBuilder};

use crate::machine::Place;

/// The API server is one cable away.
const CONNECTS: Duration = Duration::from_secs(5);

/// What a kubeconfig says, as the library wants it.
pub(crate) async fn config(kubeconfig: &str) -> Result<Config> {
    streamfleet_process::crypto::install();
    let read = Kubeconfig::from_yaml(kubeconfig)?;
    Ok(Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?)
}

/// A client that connects from `place`.
pub(crate) async fn client(kubeconfig: &str, place: &Place) -> Result<Client> {
    let config = config(kubeconfig).await?;
    let https = config.rustls_https_connector_with_connector(Dial(place.clone()))?;
    let http = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(https);
    let layers = ServiceBuilder::new().layer(config.base_uri_layer()).option_layer(config.auth_layer()?);
    let service = layers.map_err(tower::BoxError::from).service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// Connects from a place.
#[derive(Clone)]
struct Dial(Place);

impl Service<http::Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let place = self.0.clone();
        Box::pin(async move {
            let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("no address in {uri}"));
            let host = uri.host().and_then(|host| host.parse().ok()).ok_or_else(wrong)?;
            let address = SocketAddr::new(host, uri.port_u16().unwrap_or(443));
            let connected = tokio::task::spawn_blocking(move || place.connect(address, CONNECTS)).await;
            let stream = connected.map_err(io::Error::other)??;
            stream.set_nonblocking(true)?;
            Ok(TokioIo::new(TcpStream::from_std(stream)?))
        })
    }
}
