//! The audit trail: one line for each decision about a session, with ids and nothing of the metadata.

use std::io::Write;

use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Page {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Page {
    /// The fields of the audit lines so far.
    fn trail(&self) -> Vec<Value> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
        assert!(!text.contains("secret-plan"), "metadata must not be logged: {text}");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["target"] == "audit").map(|line| line["fields"].clone()).collect()
    }
}

#[tokio::test]
async fn one_line_for_each_decision() {
    let page = Page::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(page.clone()).finish();
    // With one subscriber alone a line that another thread reaches first would be taken for one that nobody wants, for good.
    drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
    // Holds for this thread, which is the only one of the test's runtime.
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    let metadata = json!({ "user_id": "ann", "plan": "secret-plan" });
    let body = json!({ "type": "offer", "webrtc_id": "a", "sdp": SDP, "metadata": metadata }).to_string();

    world.post("/webrtc/offer", body.clone()).await;
    assert_eq!(
        page.trail(),
        [json!({ "message": "session accepted", "service": "root", "session": "a", "user": "ann", "source": CLIENT })]
    );
    world.post("/webrtc/offer", body).await;
    assert_eq!(
        page.trail(),
        [json!({ "message": "session refused", "service": "root", "session": "a", "user": "ann", "source": CLIENT,
                 "error": "connection_already_exists" })]
    );
    world.offer("", "b", "bad").await;
    assert_eq!(
        page.trail(),
        [json!({ "message": "session refused", "service": "root", "session": "b", "source": CLIENT,
                 "error": "invalid_offer" })]
    );
    world.control("DELETE", "/sessions/a").await;
    assert_eq!(
        page.trail(),
        [json!({ "message": "session controlled", "service": "root", "session": "a", "user": "ann", "source": CLIENT,
                 "outcome": "ended" })]
    );
    let stranger = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        request.header("authorization", format!("Bearer {}", "0".repeat(32))).body(Body::empty()).unwrap()
    };
    let denied = json!({ "message": "session denied", "service": "root", "session": "c", "source": CLIENT,
                         "error": "unauthorized" });
    for (method, path) in [("GET", "/sessions/c"), ("PATCH", "/sessions/c/data"), ("DELETE", "/sessions/c/tracks/0")] {
        world.send(stranger(method, path)).await;
        assert_eq!(page.trail(), std::slice::from_ref(&denied), "{method} {path}");
    }
    let body = json!({ "type": "offer", "webrtc_id": "c", "sdp": "proven" });
    world.post("/webrtc/offer", body.to_string()).await;
    page.trail();
    let token = "secret-plan-token";
    world.send(Request::get(format!("/outputs?webrtc_id=c&access_token={token}")).body(Body::empty()).unwrap()).await;
    assert_eq!(page.trail(), [denied], "and no token");
    let kind = ("content-type", "application/json");
    let written = Request::patch("/sessions/c/data").header("host", "localhost").header(kind.0, kind.1);
    let written = written.header("authorization", format!("Bearer {TOKEN}"));
    world.send(written.body(Body::from(r#"{"k":"secret-plan"}"#)).unwrap()).await;
    assert_eq!(
        page.trail(),
        [json!({ "message": "session controlled", "service": "root", "session": "c", "source": CLIENT,
                 "outcome": "data_written" })]
    );
    world.post("/webrtc/offer", "nonsense").await;
    world.trickle("a", json!(null)).await;
    world.control("GET", "/sessions").await;
    assert_eq!(page.trail(), Vec::<Value>::new(), "nothing was decided about any session");

    let (service, session) = ("root".parse().unwrap(), "a".parse().unwrap());
    Audit { service: &service, session: &session, user: None }
        .ended(CloseReason::TimeLimit, Duration::from_millis(1500));
    assert_eq!(
        page.trail(),
        [
            json!({ "message": "session ended", "service": "root", "session": "a", "reason": "time_limit", "seconds": 1.5 })
        ]
    );
}
