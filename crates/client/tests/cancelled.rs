//! A connect that nobody waits for any more. A test program of its own, because it counts the process's sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "the server does more than this test needs")]
mod server;

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use server::{Script, Server};
use streamfleet_client::{Client, ClientOptions};
use tokio::time::timeout;

#[tokio::test]
async fn a_cancelled_connect_leaves_nothing_behind() {
    let refusal = json!({"status": "failed", "meta": {"error": "connection_already_exists"}});
    let server = Server::start(Script { refuse: vec![(StatusCode::OK, refusal); 5], ..Script::default() });
    let sockets = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = sockets();
    for _ in 0..5 {
        let connect = Client::connect(ClientOptions::new(server.url().parse().unwrap()));
        assert!(timeout(Duration::from_millis(150), connect).await.is_err(), "it waits to offer again");
    }
    let closed = async {
        // The server may keep a few idle HTTP connections.
        while sockets() > before + 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), closed).await.expect("all sockets are closed");
}
