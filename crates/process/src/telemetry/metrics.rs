//! Metrics: OpenTelemetry instruments, read by Prometheus.

use super::collected::{Collected, Counted, Kind, Sample, histogram};
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::proto::{Metric, MetricType};
use prometheus::{Encoder as _, Registry, TextEncoder};

/// The instruments of one process. Whoever measures something takes a [`Meter`] and keeps its instruments; nothing is
/// registered globally, so tests do not see each other's counts.
///
/// Labels of instruments are values of enums only: OpenTelemetry gives each 2 000 sets of labels, keeps room for them, forgets none, and
/// says nothing of what is beyond them. Figures of services are [`values`](Self::values); ids go into traces and logs.
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
        let provider = SdkMeterProvider::builder().with_reader(exporter).with_resource(resource).build();
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
        self.collect(name, about, MetricType::HISTOGRAM, move || read().into_iter().map(histogram).collect());
    }

    /// Values that are kept elsewhere, and read when Prometheus reads: as many as there are. The name is as Prometheus has it, with its
    /// unit, and a counter's `_total`.
    pub fn values(
        &self,
        name: &'static str,
        about: &'static str,
        kind: Kind,
        read: impl Fn() -> Vec<Sample> + Send + Sync + 'static,
    ) {
        let all = move || read().into_iter().map(|sample| kind.metric(sample)).collect();
        self.collect(name, about, kind.of_family(), all);
    }

    fn collect(
        &self,
        name: &'static str,
        about: &'static str,
        kind: MetricType,
        read: impl Fn() -> Vec<Metric> + Send + Sync + 'static,
    ) {
        let registered = Collected::new(name, about, kind, read).and_then(|all| self.registry.register(Box::new(all)));
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
    fn values_are_as_they_are_kept() {
        let metrics = Metrics::new("t", "0");
        let many = || {
            let sample = |n: u32| Sample { labels: vec![("service", n.to_string())], value: f64::from(n) };
            (0..6_000).map(sample).collect()
        };
        metrics.values("streamfleet_service_workers", "Workers", Kind::Gauge, many);
        metrics.values("streamfleet_decisions_total", "Decisions", Kind::Counter, || {
            vec![Sample { labels: vec![("kind", "a \"b\"".to_owned())], value: 3.0 }]
        });
        metrics.values("streamfleet_nothing", "Nothing", Kind::Gauge, Vec::new);
        let text = metrics.render();
        for line in [
            "# HELP streamfleet_service_workers Workers",
            "# TYPE streamfleet_service_workers gauge",
            "streamfleet_service_workers{service=\"5999\"} 5999",
            "# TYPE streamfleet_decisions_total counter",
            "streamfleet_decisions_total{kind=\"a \\\"b\\\"\"} 3",
        ] {
            assert!(text.contains(line), "no {line} in\n{}", &text[..2_000]);
        }
        // No service is left out where there are thousands.
        assert_eq!(text.lines().filter(|line| line.starts_with("streamfleet_service_workers{")).count(), 6_000);
        assert!(!text.contains("streamfleet_nothing"), "a metric without values is no metric");
    }

    #[test]
    fn two_sets_do_not_mix() {
        let (one, two) = (Metrics::new("t", "0"), Metrics::new("t", "0"));
        one.meter("m").u64_counter("c").build().add(1, &[]);
        assert!(one.render().contains("c_total 1"));
        assert!(!two.render().contains("c_total"));
    }
}
