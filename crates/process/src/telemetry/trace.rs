//! Traces: W3C trace context (https://www.w3.org/TR/trace-context/) in and out of `tracing` spans.

use std::collections::HashMap;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The headers of the trace context, which is all that is read or written. Who writes them decides whether a trace is recorded,
/// and under which name: servers take them away from requests of strangers.
pub const HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// Makes `span` a child of the trace that the headers name, if they name one. Call before the span is entered.
pub fn accept<'a>(span: &Span, header: impl Fn(&str) -> Option<&'a str>) {
    struct Found<'a>([Option<&'a str>; 2]);
    impl Extractor for Found<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            HEADERS.iter().position(|name| *name == key).and_then(|at| self.0[at])
        }
        fn keys(&self) -> Vec<&str> {
            HEADERS.to_vec()
        }
    }
    let context = TraceContextPropagator::new().extract(&Found(HEADERS.map(header)));
    if context.span().span_context().is_valid() {
        // An error means that no trace is being recorded, and then there is nothing to be a child in.
        let _ = span.set_parent(context);
    }
}

/// Makes `span` a child of `other` in its trace, and nothing else: neither keeps the other open. Call before the span is
/// entered.
pub fn follow(span: &Span, other: &Span) {
    let context = other.context();
    if context.span().span_context().is_valid() {
        // As above.
        let _ = span.set_parent(context);
    }
}

/// The headers that let another process continue `span`'s trace; empty if no trace is recorded.
pub fn headers(span: &Span) -> Vec<(String, String)> {
    struct Sink(HashMap<String, String>);
    impl Injector for Sink {
        fn set(&mut self, key: &str, value: String) {
            if !value.is_empty() {
                self.0.insert(key.to_owned(), value);
            }
        }
    }
    let mut sink = Sink(HashMap::new());
    TraceContextPropagator::new().inject_context(&span.context(), &mut sink);
    sink.0.into_iter().collect()
}

/// The trace id of `span`, 32 hexadecimal digits; `None` if no trace is recorded.
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let id = context.span().span_context().trace_id();
    (id != opentelemetry::TraceId::INVALID).then(|| id.to_string())
}
