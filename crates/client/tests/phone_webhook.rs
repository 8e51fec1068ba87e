//! What happens before a telephone call: the webhook, its signature, and the TwiML that says where the stream goes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_client::{AuthToken, Client, ClientError, InvalidTwiml, PhoneOptions};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

const PATIENCE: Duration = Duration::from_secs(20);

/// Answers the webhook, and keeps what was posted with its signature.
async fn webhook(tasks: &mut JoinSet<()>, status: StatusCode, twiml: String) -> (String, Arc<Mutex<Vec<[String; 2]>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let answer = move |headers: HeaderMap, body: String| async move {
        let signature = headers.get("x-twilio-signature").map(|value| value.to_str().unwrap().to_owned());
        log.lock().push([body, signature.unwrap_or_default()]);
        (status, twiml)
    };
    let app = Router::new().route("/echo/telephone/incoming", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (format!("http://{address}/echo"), seen)
}

#[tokio::test]
async fn a_call_follows_its_twiml() {
    let mut tasks = JoinSet::new();
    let stream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = stream.local_addr().unwrap();
    let twiml = format!(
        "<Response><Say>hello</Say><Connect><Stream url='ws://{address}/somewhere'>\
         <Parameter name='token' value='a&amp;b'/></Stream></Connect></Response>"
    );
    let (url, posted) = webhook(&mut tasks, StatusCode::OK, twiml).await;
    let (seen, log) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (frames, upgrades) = (Arc::clone(&seen), Arc::clone(&log));
    tasks.spawn(async move {
        let (tcp, _) = stream.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let note = |request: &Request, response: Response| {
            let signed = request.headers().contains_key("x-twilio-signature");
            upgrades.lock().push((request.uri().path().to_owned(), signed));
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(tcp, note).await.unwrap();
        while let Some(Ok(frame)) = socket.next().await {
            if let Ok(value) = serde_json::from_str::<Value>(frame.to_text().unwrap_or_default()) {
                frames.lock().push(value);
            }
        }
    });

    let mut options = PhoneOptions::new(url.parse().unwrap());
    options.auth_token = AuthToken::new("12345");
    let call = timeout(PATIENCE, Client::connect_phone(options.clone())).await.unwrap().unwrap();
    timeout(PATIENCE, call.end()).await.unwrap();

    let [body, signature] = posted.lock()[0].clone();
    assert!(body.contains("From=%2B15555550100") && body.contains(&format!("CallSid={}", options.call_sid)), "{body}");
    // 20 octets of HMAC-SHA1.
    assert!(signature.len() == 28 && signature.ends_with('='), "{signature}");
    assert_eq!(*log.lock(), [("/somewhere".to_owned(), true)]);
    let seen = seen.lock();
    assert_eq!((&seen[0]["event"], &seen[1]["event"]), (&json!("connected"), &json!("start")));
    assert_eq!(seen[1]["start"]["customParameters"], json!({"token": "a&b"}));
    assert_eq!(seen[1]["streamSid"], options.stream_sid.as_str());
}

#[tokio::test]
async fn a_webhook_that_connects_nobody_is_told() {
    let mut tasks = JoinSet::new();
    let (url, _) = webhook(&mut tasks, StatusCode::OK, "<Response><Hangup/></Response>".to_owned()).await;
    let found = timeout(PATIENCE, Client::connect_phone(PhoneOptions::new(url.parse().unwrap()))).await.unwrap();
    assert!(matches!(found, Err(ClientError::Twiml { reason: InvalidTwiml::NoStream, .. })), "{found:?}");
    let (url, _) = webhook(&mut tasks, StatusCode::FORBIDDEN, String::new()).await;
    let found = timeout(PATIENCE, Client::connect_phone(PhoneOptions::new(url.parse().unwrap()))).await.unwrap();
    assert!(matches!(&found, Err(ClientError::Refused(refusal)) if refusal.status == 403), "{found:?}");
}
