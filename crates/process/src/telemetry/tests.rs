use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use opentelemetry_sdk::error::OTelSdkError;

use super::*;

const PROGRAM: Program = Program { name: "streamfleet-test", version: "0.0.0" };

/// A writer that keeps everything.
#[derive(Debug, Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, filter: &str, speak: impl FnOnce()) -> String {
    let page = Page::default();
    let log = LogConfig { filter: LogFilter::try_from(filter.to_owned()).unwrap(), format };
    let config = TelemetryConfig { log, ..Default::default() };
    let writer = page.clone();
    let (subscriber, traces) = subscriber(&config, PROGRAM, move || writer.clone(), Colour::None).unwrap();
    assert!(traces.is_none());
    tracing::subscriber::with_default(subscriber, speak);
    let bytes = page.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_audit_trail_is_written_whatever_the_filter() {
    let text = logged(LogFormat::Text, "off", || {
        tracing::error!("not wanted");
        tracing::info!(target: AUDIT, session = "s1", "session accepted");
    });
    assert!(text.contains("audit") && text.contains("session=\"s1\"") && !text.contains("not wanted"), "{text}");
}

/// A list that could not be read was a line of the log, a megabyte long, every eight seconds.
#[test]
fn the_cluster_s_client_does_not_write_what_it_was_told() {
    let text = logged(LogFormat::Text, "info,kube_client=debug", || {
        tracing::warn!(target: "kube_client::client", "the whole list");
        tracing::warn!(target: "kube_runtime::watcher", "refused again");
        tracing::debug!(target: "kube_client::client", "what is asked for");
        tracing::error!(target: "kube_client::client::builder", "no answer");
        tracing::error!(target: "kube_client::client", "something else");
        tracing::warn!("ours");
    });
    let is_there = ["the whole list", "refused again", "no answer", "what is asked for", "something else", "ours"]
        .map(|line| text.contains(line));
    assert_eq!(is_there, [false, false, false, true, true, true], "{text}");
}

#[test]
fn json_lines_are_flat_and_carry_the_span() {
    let text = logged(LogFormat::Json, "info", || {
        let _span = tracing::info_span!("offer", session = "s1").entered();
        tracing::info!(port = 5000, "bound");
        tracing::debug!("below the level");
    });
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["message"], "bound");
    assert_eq!(lines[0]["port"], 5000);
    assert_eq!(lines[0]["span"]["session"], "s1");
}

/// A provider that nobody has shut down is one that logs its own end: nobody who reads the log of a process wants to know.
#[test]
fn telemetry_that_ends_has_shut_down_what_it_measures_with() {
    let metrics = Metrics::new(PROGRAM.name, PROGRAM.version);
    let (_, log) = NonBlockingBuilder::default().finish(std::io::sink());
    drop(Telemetry { metrics: metrics.clone(), traces: None, _log: log });
    assert!(matches!(metrics.shutdown(), Err(OTelSdkError::AlreadyShutdown)));
}

#[test]
fn configuration_is_parsed_not_guessed() {
    let check = |json: &str, valid: Option<&str>| {
        let parsed = serde_json::from_str::<TelemetryConfig>(json);
        match valid {
            None => assert!(parsed.is_ok(), "{json}: {parsed:?}"),
            Some(message) => assert!(parsed.as_ref().unwrap_err().to_string().contains(message), "{json}: {parsed:?}"),
        }
    };
    check(r#"{}"#, None);
    check(r#"{"log":{"filter":"warn,streamfleet_worker=debug","format":"json"}}"#, None);
    check(r#"{"log":{"filter":"streamfleet=loud"}}"#, Some("not a log filter"));
    check(r#"{"log":{"format":"xml"}}"#, Some("unknown variant"));
    check(r#"{"otlp":{"endpoint":"http://collector:4318","sample":0.1}}"#, None);
    check(r#"{"otlp":{"endpoint":"https://collector/base/"}}"#, None);
    check(r#"{"otlp":{"endpoint":"collector:4318"}}"#, Some("not a URL"));
    check(r#"{"otlp":{"endpoint":"ftp://collector"}}"#, Some("not a URL"));
    check(r#"{"otlp":{"sample":1.5}}"#, Some("not between 0 and 1"));
    let default = serde_json::to_string(&TelemetryConfig::default()).unwrap();
    assert_eq!(serde_json::from_str::<TelemetryConfig>(&default).unwrap(), TelemetryConfig::default());
}

/// A collector that takes one request and returns its head and body.
fn collector() -> (String, std::thread::JoinHandle<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let n = stream.read(&mut chunk).unwrap();
            assert!(n > 0, "the request was cut off");
            bytes.extend_from_slice(&chunk[..n]);
            let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap().parse::<usize>();
            if bytes.len() >= end + 4 + length.unwrap() {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                return (head, bytes.split_off(end + 4));
            }
        }
    });
    (url, taken)
}

#[test]
fn spans_reach_a_collector_with_the_callers_trace_id() {
    let (url, taken) = collector();
    let otlp = OtlpConfig { endpoint: Some(OtlpEndpoint::try_from(url).unwrap()), ..Default::default() };
    let config = TelemetryConfig { otlp, ..Default::default() };
    let (subscriber, traces) = subscriber(&config, PROGRAM, std::io::sink, Colour::None).unwrap();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!(target: "streamfleet_test", "negotiate");
        trace::accept(&span, |name| (name == "traceparent").then_some(parent));
        assert_eq!(trace::trace_id(&span).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        let out = trace::headers(&span);
        assert!(out.iter().any(|(k, v)| k == "traceparent" && v.starts_with(&parent[..36])), "{out:?}");
        // Spans of libraries stay out.
        drop(tracing::info_span!(target: "hyper", "connecting").entered());
        drop(span);
    });
    traces.unwrap().shutdown_with_timeout(FLUSH_TIMEOUT).unwrap();
    let (head, body) = taken.join().unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    let holds = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("negotiate") && holds("streamfleet-test") && !holds("connecting"));
}

#[test]
fn without_traces_there_is_no_id() {
    logged(LogFormat::Text, "info", || {
        let span = tracing::info_span!(target: "streamfleet_test", "negotiate");
        trace::accept(&span, |_| Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert_eq!(trace::trace_id(&span), None);
        assert!(trace::headers(&span).is_empty());
    });
}
