//! WebSockets over TLS: whom a client trusts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use streamfleet_client::{Client, ClientError, SocketOptions, Tls};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;

/// A server with a self-signed certificate that refuses every call. It lives as long as the set.
async fn self_signed(tasks: &mut JoinSet<()>) -> String {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust the certificate breaks the handshake off.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            let start = socket.next().await.unwrap().unwrap();
            assert!(start.to_text().unwrap().contains("websocket_id"));
            let refusal = r#"{"status":"failed","meta":{"error":"not_today"}}"#;
            socket.send(Message::Text(refusal.into())).await.unwrap();
        }
    });
    format!("https://{address}/echo")
}

#[tokio::test]
async fn a_self_signed_certificate_is_accepted_only_on_request() {
    let mut tasks = JoinSet::new();
    let options = SocketOptions::new(self_signed(&mut tasks).await.parse().unwrap());
    match Client::connect_socket(options.clone()).await {
        Err(ClientError::Unreachable { url, reason }) => {
            assert!(url.starts_with("wss://") && reason.contains("certificate"), "{url} {reason}");
        }
        other => panic!("{other:?}"),
    }
    match Client::connect_socket(SocketOptions { tls: Tls::AcceptAny, ..options }).await {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal.error, "not_today"),
        other => panic!("{other:?}"),
    }
}
