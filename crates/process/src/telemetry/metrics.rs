//! Metrics: OpenTelemetry instruments, read by Prometheus.

use super::histogram::{Collected, Counted};
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::{Encoder as _, Registry, TextEncoder};

/// Instruments whose names begin so have labels for each service. OpenTelemetry gives others 2 000 sets of labels, and says nothing of
/// what is beyond them: with three states each that is no more than 666 services.
const OF_SERVICES: [&str; 2] = ["streamfleet_service_", "streamfleet_operator_decisions"];
/// Sets of labels of one of those: four for each of 10 000 services. Room for them is made when the instrument is.
const MAX_SETS: usize = 40_000;

/// The instruments of one process. Whoever measures something takes a [`Meter`] and keeps its instruments; nothing is
/// registered globally, so tests do not see each other's counts.
///
/// Labels are values of enums only, but for names of services where there is one instrument for all of them (`streamfleet_service_…`). Ids
/// go into traces and logs.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
}

impl Metrics {
    /// The media type of [`render`](Self::render)'s text.
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;

    /// No instrument yet; `program` and `version` appear in `target_info`.
    pub fn new(program: &'static str, version: &'static str) -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .expect("invariant: a fresh registry accepts its first collector");
        let resource = Resource::builder()
            .with_service_name(program)
            .with_attribute(opentelemetry::KeyValue::new("service.version", version))
            .build();
        let of_services = |instrument: &Instrument| {
            let is_of_services = OF_SERVICES.iter().any(|of| instrument.name().starts_with(of));
            is_of_services.then(|| Stream::builder().with_cardinality_limit(MAX_SETS).build().ok()).flatten()
        };
        let builder = SdkMeterProvider::builder().with_reader(exporter).with_resource(resource);
        let provider = builder.with_view(of_services).build();
        Self { registry, provider }
    }

    /// Shows what the process as a whole holds: the bytes that are allocated and not freed, where `heap` can tell. Once a process.
    pub fn observe_process(&self, heap: fn() -> Option<u64>) {
        self.meter("process")
            .u64_observable_gauge("streamfleet_process_heap_bytes")
            .with_description("Bytes allocated and not freed. Absent where the C library does not tell.")
            .with_callback(move |observer| {
                if let Some(bytes) = heap() {
                    observer.observe(bytes, &[]);
                }
            })
            .build();
    }

    /// A factory of instruments. Name them `streamfleet_noun`; counters get their `_total`, and units their suffix
    /// (`s` becomes `_seconds`), when Prometheus reads them.
    pub fn meter(&self, owner: &'static str) -> Meter {
        self.provider.meter(owner)
    }

    /// Histograms that are counted elsewhere, and read when Prometheus reads: one for each set of labels. The name is as Prometheus
    /// has it, with its unit.
    pub fn histograms(
        &self,
        name: &'static str,
        about: &'static str,
        read: impl Fn() -> Vec<Counted> + Send + Sync + 'static,
    ) {
        let registered = Collected::new(name, about, read).and_then(|all| self.registry.register(Box::new(all)));
        if let Err(error) = registered {
            tracing::warn!(%error, name, "a metric is not shown");
        }
    }

    /// All values, in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics could not be written");
        }
        String::from_utf8(text).expect("invariant: the text format is UTF-8")
    }

    /// Nothing is measured any more. A provider that is dropped without this says so in the log, wherever its last
    /// instrument happens to go.
    ///
    /// # Errors
    /// It was done before.
    pub fn shutdown(&self) -> OTelSdkResult {
        self.provider.shutdown()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruments_are_read_under_their_prometheus_names() {
        let metrics = Metrics::new("streamfleet-test", "1.2.3");
        let meter = metrics.meter("test");
        meter.u64_counter("streamfleet_offers").build().add(2, &[]);
        meter.f64_histogram("streamfleet_offer").with_unit("s").with_boundaries(vec![0.1]).build().record(0.05, &[]);
        let gauge = meter.i64_up_down_counter("streamfleet_sessions").build();
        gauge.add(5, &[]);
        gauge.add(-1, &[]);
        let text = metrics.render();
        for line in [
            "streamfleet_offers_total 2",
            "streamfleet_offer_seconds_bucket{le=\"0.1\"} 1",
            "streamfleet_offer_seconds_count 1",
            "streamfleet_sessions 4",
            "service_name=\"streamfleet-test\"",
            "service_version=\"1.2.3\"",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn histograms_are_as_they_were_counted() {
        let metrics = Metrics::new("t", "0");
        metrics.histograms("streamfleet_test_seconds", "Times", || {
            let labels = vec![("direction", "to_worker")];
            vec![Counted { labels, bounds: vec![0.1, 0.5], counts: vec![2, 0, 3], sum: 4.5 }]
        });
        let text = metrics.render();
        for line in [
            "# HELP streamfleet_test_seconds Times",
            "# TYPE streamfleet_test_seconds histogram",
            "streamfleet_test_seconds_bucket{direction=\"to_worker\",le=\"0.1\"} 2",
            "streamfleet_test_seconds_bucket{direction=\"to_worker\",le=\"0.5\"} 2",
            "streamfleet_test_seconds_bucket{direction=\"to_worker\",le=\"+Inf\"} 5",
            "streamfleet_test_seconds_sum{direction=\"to_worker\"} 4.5",
            "streamfleet_test_seconds_count{direction=\"to_worker\"} 5",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn no_service_is_left_out_where_there_are_thousands() {
        let metrics = Metrics::new("t", "0");
        let of = |name: &'static str| {
            let meter = metrics.meter("m");
            let gauge = meter.u64_observable_gauge(name).with_callback(|observer| {
                (0..6_000).for_each(|n| observer.observe(n, &[opentelemetry::KeyValue::new("service", n.to_string())]));
            });
            gauge.build();
        };
        of("streamfleet_service_workers");
        of("streamfleet_other");
        let text = metrics.render();
        let count = |name: &str| text.lines().filter(|line| line.starts_with(&format!("{name}{{service="))).count();
        assert_eq!(count("streamfleet_service_workers"), 6_000);
        assert!(count("streamfleet_other") < 6_000, "others are bounded as ever");
    }

    #[test]
    fn two_sets_do_not_mix() {
        let (one, two) = (Metrics::new("t", "0"), Metrics::new("t", "0"));
        one.meter("m").u64_counter("c").build().add(1, &[]);
        assert!(one.render().contains("c_total 1"));
        assert!(!two.render().contains("c_total"));
    }
}
