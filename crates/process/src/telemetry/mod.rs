//! Logs, traces and metrics of one process.
//!
//! Logs go to standard error, one line each, through a bounded queue: a reader of the log that stalls costs lines (they
//! are counted in `streamfleet_log_lines_dropped`), never a stalled media loop. Traces go by OTLP over HTTP where an
//! endpoint is configured. Metrics wait to be read by Prometheus.

mod collected;
mod metrics;
pub mod trace;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry};

pub use self::collected::{Counted, Kind, Sample};
pub use self::metrics::Metrics;

/// Target of the audit lines: one per accepted, refused, ended or controlled session. Always on, whatever the filter.
pub const AUDIT: &str = "audit";
/// What the API server's client says of itself, and nobody is shown: one part writes every answer that it cannot read as a whole, a Secret
/// as well as a list of a megabyte, one the same refusal every few seconds, one each request that had no answer. Whoever has asked tells
/// of it, once.
const CLIENT: [(Level, &str); 3] = [
    (Level::WARN, "kube_client::client"),
    (Level::WARN, "kube_runtime::watcher"),
    (Level::ERROR, "kube_client::client::builder"),
];

/// Lines that wait to be written. At 200 bytes a line this is 3 MB at most, and a second of the worst burst that we
/// expect, every session of a full worker ending at once.
const LOG_QUEUE_LINES: usize = 16_384;

/// For one batch of spans to reach the collector; the exporter's thread is blocked meanwhile, and nobody else.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// For the last spans at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What to record and where to send it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TelemetryConfig {
    /// Logs.
    pub log: LogConfig,
    /// Traces.
    pub otlp: OtlpConfig,
}

/// Logs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LogConfig {
    /// What to log, as `info` or `info,streamfleet_worker=debug`.
    pub filter: LogFilter,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// A filter of `tracing` directives that has been parsed once, so that a wrong one is a configuration mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl TryFrom<String> for LogFilter {
    type Error = InvalidLogFilter;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match EnvFilter::builder().parse(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => Err(InvalidLogFilter(error.to_string())),
        }
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

/// A text that is no log filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a log filter such as \"info\" or \"info,streamfleet_worker=debug\": {0}")]
pub struct InvalidLogFilter(String);

/// Traces by OTLP (protobuf over HTTP), for collectors such as the OpenTelemetry Collector, Tempo or Jaeger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct OtlpConfig {
    /// The collector's base URL, as `http://collector:4318`; `/v1/traces` is appended. None: no traces.
    pub endpoint: Option<OtlpEndpoint>,
    /// The part of traces that start here to be recorded, 0 to 1. Traces that start elsewhere are as they say.
    pub sample: Ratio,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self { endpoint: None, sample: Ratio(1.0) }
    }
}

/// An `http` or `https` URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OtlpEndpoint(String);

impl OtlpEndpoint {
    fn traces(&self) -> String {
        format!("{}/v1/traces", self.0.trim_end_matches('/'))
    }
}

impl TryFrom<String> for OtlpEndpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match reqwest::Url::parse(&text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Self(text)),
            _ => Err(InvalidEndpoint),
        }
    }
}

impl From<OtlpEndpoint> for String {
    fn from(endpoint: OtlpEndpoint) -> Self {
        endpoint.0
    }
}

/// A text that is no collector's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URL such as \"http://collector:4318\"")]
pub struct InvalidEndpoint;

/// A number between 0 and 1, both included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Ratio(f64);

impl TryFrom<f64> for Ratio {
    type Error = InvalidRatio;

    fn try_from(number: f64) -> Result<Self, Self::Error> {
        if (0.0..=1.0).contains(&number) { Ok(Self(number)) } else { Err(InvalidRatio(number)) }
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

/// A number that is no ratio.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} is not between 0 and 1")]
pub struct InvalidRatio(f64);

/// Who is speaking: appears in every trace and in `target_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// `streamfleet-worker`.
    pub name: &'static str,
    /// `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter of traces could not be made.
    #[error("cannot export traces: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The HTTP client of the exporter could not be made, as without any root certificate.
    #[error("cannot export traces: {0}")]
    Client(#[from] reqwest::Error),
    /// Something else in this process has taken over logging.
    #[error("logging is already set up in this process")]
    Taken,
}

/// What a running process keeps of its telemetry. Call [`shutdown`](Self::shutdown) last; a process that leaves early
/// and merely drops it ends it just as well.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    traces: Option<SdkTracerProvider>,
    _log: WorkerGuard,
}

impl Telemetry {
    /// Starts logging, and tracing where configured. Once per process.
    ///
    /// # Errors
    /// If logging is already set up, or the exporter cannot be made; an unreachable collector is no error.
    pub fn start(config: &TelemetryConfig, program: Program) -> Result<Self, TelemetryError> {
        let metrics = Metrics::new(program.name, program.version);
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(LOG_QUEUE_LINES)
            .lossy(true)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped = writer.error_counter();
        // The provider holds the callback for as long as the process measures anything.
        let _ = metrics
            .meter("telemetry")
            .u64_observable_counter("streamfleet_log_lines_dropped")
            .with_description("Log lines lost because their reader was too slow")
            .with_callback(move |observer| observer.observe(dropped.dropped_lines() as u64, &[]))
            .build();
        let colour = if std::io::stderr().is_terminal() { Colour::Terminal } else { Colour::None };
        let (subscriber, traces) = subscriber(config, program, writer, colour)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Taken)?;
        Ok(Self { metrics, traces, _log: guard })
    }

    /// The instruments of this process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sends the last spans and writes the last lines: blocks for up to 6 s, so not from a task.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last traces were lost");
        }
        if let Err(error) = self.metrics.shutdown() {
            tracing::warn!(%error, "metrics did not stop cleanly");
        }
        // The log's guard goes last, with the fields: it writes what was said until here.
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Terminal,
    None,
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

fn subscriber<W>(
    config: &TelemetryConfig,
    program: Program,
    writer: W,
    colour: Colour,
) -> Result<(impl Subscriber + Send + Sync + use<W>, Option<SdkTracerProvider>), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour == Colour::Terminal);
    let lines: Boxed = match config.log.format {
        LogFormat::Text => lines.with_filter(log_filter(&config.log.filter)).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_span_list(false).with_filter(log_filter(&config.log.filter)).boxed()
        }
    };
    let traces =
        config.otlp.endpoint.as_ref().map(|to| tracer_provider(to, config.otlp.sample, program)).transpose()?;
    let spans: Option<Boxed> = traces.as_ref().map(|provider| {
        // Only our own spans: those of the HTTP client that carries them away would feed on themselves.
        let ours = Targets::new().with_target("streamfleet", LevelFilter::INFO);
        let tracer = provider.tracer(program.name);
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(ours).boxed()
    });
    let mut layers = vec![lines];
    layers.extend(spans);
    Ok((Registry::default().with(layers), traces))
}

fn log_filter<S>(filter: &LogFilter) -> impl Filter<S> + use<S> {
    let audit = format!("{AUDIT}=info").parse().expect("invariant: a target and a level are a directive");
    let wanted = EnvFilter::builder().parse_lossy(&filter.0).add_directive(audit);
    wanted.and(filter_fn(|what| !CLIENT.contains(&(*what.level(), what.target()))))
}

fn tracer_provider(to: &OtlpEndpoint, sample: Ratio, program: Program) -> Result<SdkTracerProvider, TelemetryError> {
    crate::crypto::install();
    // A blocking client must not be made on a runtime's thread; spans are exported from a thread without one anyway.
    let client = std::thread::scope(|scope| {
        let made = scope.spawn(|| reqwest::blocking::Client::builder().timeout(EXPORT_TIMEOUT).build());
        made.join().expect("invariant: making a client does not panic outside a runtime")
    })?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(to.traces())
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(program.name)
        .with_attribute(KeyValue::new("service.version", program.version))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample.0))))
        .with_resource(resource)
        .build())
}

#[cfg(test)]
mod tests;
