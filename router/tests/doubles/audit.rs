//! What is written down: one audit line for each decision, with ids and nothing else of its client; and one trace.

use std::io::Write;
use std::sync::Arc;

use opentelemetry::trace::TracerProvider as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use streamfleet_session::fleet::Refused;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::double::Act;
use super::world::{ADMIN, World, error};

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
    /// The audit lines so far, without the addresses.
    fn trail(&self) -> Vec<Value> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
        for secret in ["secret-plan", ADMIN, super::world::SECRET] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let fields = lines.filter(|line| line["target"] == "audit").map(|line| line["fields"].clone());
        fields
            .map(|mut fields| {
                assert!(fields["source"].as_str().is_some_and(|source| source.starts_with("127.0.0.1:")), "{fields}");
                fields.as_object_mut().unwrap().remove("source");
                fields
            })
            .collect()
    }
}

#[tokio::test]
async fn one_line_for_each_decision() {
    let page = Page::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE).with_writer(page.clone());
    // With one subscriber alone a line that another thread reaches first would be taken for one that nobody wants, for good.
    drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
    // Holds for this thread, which is the only one of the test's runtime.
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let world = World::new();
    world.worker("w").await;
    let router = world.router(json!({ "limits": { "perUser": 1 } }));
    let mia = json!({ "metadata": { "user_id": "mia", "plan": "secret-plan" } });
    page.trail();
    let line = |message: &str, more: Value| {
        let mut line = json!({ "message": message, "service": "a", "session": "x", "user": "mia" });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };

    let token = world.offer(&router, "x", &mia).await.1["resume"].as_str().unwrap().to_owned();
    assert_eq!(page.trail(), [line("session placed", json!({ "worker": "w", "standing": "claimed" }))]);
    world.offer(&router, "x", &mia).await;
    assert_eq!(page.trail(), [line("session refused", json!({ "error": "connection_already_exists" }))]);
    world.offer(&router, "y", &mia).await;
    assert_eq!(page.trail(), [line("session refused", json!({ "error": "user_limit_reached", "session": "y" }))]);
    world.script.lock().push_back(Act::Refuse(Refused::Full));
    let tess = json!({ "metadata": { "user_id": "tess" } });
    assert_eq!(error(&world.offer(&router, "z", &tess).await), (503, "no_capacity"));
    let refused = json!({ "error": "no_capacity", "session": "z", "user": "tess" });
    assert_eq!(page.trail(), [line("session refused", refused)]);
    let url = format!("{router}/sessions/x");
    world.client.delete(&url).bearer_auth("secret-plan").send().await.unwrap();
    let denied = json!({ "message": "session denied", "service": "a", "session": "x", "error": "unauthorized" });
    assert_eq!(page.trail(), [denied]);
    world.client.get(format!("{router}/outputs?webrtc_id=x&access_token=secret-plan")).send().await.unwrap();
    assert_eq!(page.trail(), [] as [Value; 0]);
    world.client.delete(&url).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(page.trail(), [line("session controlled", json!({ "outcome": "ended" }))]);
    let all = String::from_utf8(page.0.lock().clone()).unwrap();
    assert!(!all.contains(&token), "{all}");
}

/// The worker goes on with the trace that a trusted proxy has begun, and with the router's own where a stranger has: he would
/// decide whether it is recorded.
#[tokio::test]
async fn one_trace_from_a_trusted_proxy_to_the_worker() {
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // With one subscriber alone a line that another thread reaches first would be taken for one that nobody wants, for good.
    drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let mut world = World::new();
    world.worker("w").await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let offer = async |world: &mut World, router: &str, id: &str| {
        let body = json!({ "type": "offer", "sdp": "v=0", "webrtc_id": id }).to_string();
        let request = world.client.post(format!("{router}/webrtc/offer")).body(body);
        let request = request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-00"));
        assert_eq!(request.header("tracestate", "a=1").send().await.unwrap().status(), 200);
        let seen = world.next().await;
        let passed: Vec<&str> =
            seen.headers.get_all("traceparent").iter().map(|value| value.to_str().unwrap()).collect();
        let [passed] = passed[..] else { panic!("{passed:?}") };
        assert_eq!(passed.len(), 55, "{passed}");
        (passed.to_owned(), seen.headers.contains_key("tracestate"))
    };
    let router = world.router(json!({}));
    let (passed, has_state) = offer(&mut world, &router, "x").await;
    assert!(!passed.contains(trace) && passed.ends_with("-01") && !has_state, "{passed}");
    world.trusted = vec!["127.0.0.1".parse().unwrap()];
    let router = world.router(json!({}));
    let (passed, has_state) = offer(&mut world, &router, "y").await;
    let is_continued = passed.starts_with(&format!("00-{trace}-")) && passed.ends_with("-00");
    assert!(is_continued && !passed.contains("b7ad6b7169203331") && has_state, "{passed}");
    // And one is begun where there is none.
    assert_eq!(world.offer(&router, "z", &json!({})).await.0, 200);
    assert_eq!(world.next().await.headers["traceparent"].len(), 55);
}
