//! What the operator shows of itself and of its services.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use parking_lot::Mutex;
use streamfleet_process::telemetry::{Kind, Metrics, Sample};

use crate::due::Due;
use crate::names::Key;

/// How a look at a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it should be, or on its way.
    Ok,
    /// Its specification is wrong, or it stands in another's way.
    Invalid,
    /// Something was refused, or did not answer.
    Error,
}

impl Outcome {
    /// In a word.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Error => "error",
        }
    }
}

/// A service's figures, as they were last seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Workers by state.
    pub starting: u64,
    /// Those that take sessions.
    pub serving: u64,
    /// Those that do not any more.
    pub draining: u64,
    /// Those that there shall be.
    pub desired: u64,
    /// Sessions.
    pub sessions: u64,
    /// Those of serving workers, which are what `capacity` is taken by.
    pub serving_sessions: u64,
    /// Sessions that serving workers can have.
    pub capacity: u64,
    /// Offers that wait for a worker.
    pub held: u64,
    /// From a pod's creation until it serves: the 95th percentile, in seconds; nothing before one has.
    pub start_seconds: Option<f64>,
}

/// The instruments. Services come and go with their StreamServices, so their labels are as many as those.
#[derive(Debug, Clone)]
pub struct Instruments {
    reconciles: Counter<u64>,
    seconds: Histogram<f64>,
    decisions: Arc<Mutex<HashMap<Key, BTreeMap<&'static str, u64>>>>,
    requests: Counter<u64>,
    leader: Arc<AtomicU64>,
    services: Arc<Mutex<HashMap<Key, Figures>>>,
}

impl Instruments {
    /// The instruments, of which none has counted yet. `due` is the queue.
    #[must_use]
    pub fn new(metrics: &Metrics, due: Arc<Mutex<Due>>) -> Self {
        let meter = metrics.meter("operator");
        let leader = Arc::new(AtomicU64::new(0));
        let services: Arc<Mutex<HashMap<Key, Figures>>> = Arc::default();
        let leads = leader.clone();
        meter
            .u64_observable_gauge("streamfleet_operator_leader")
            .with_description("1 if this operator acts, 0 if it waits for another's lease to run out")
            .with_callback(move |observer| observer.observe(leads.load(Ordering::Relaxed), &[]))
            .build();
        meter
            .u64_observable_gauge("streamfleet_operator_queue")
            .with_description("StreamServices that are due and not being looked at yet")
            .with_callback(move |observer| observer.observe(due.lock().late(Instant::now()) as u64, &[]))
            .build();
        type Read = fn(&Figures) -> Option<f64>;
        let gauges: [(&'static str, &'static str, Read); 6] = [
            ("streamfleet_service_desired_workers", "Workers that there shall be", |figures| float(figures.desired)),
            ("streamfleet_service_sessions", "Sessions of all workers, those that drain included", |figures| {
                float(figures.sessions)
            }),
            ("streamfleet_service_serving_sessions", "Sessions of the workers that take calls", |figures| {
                float(figures.serving_sessions)
            }),
            ("streamfleet_service_capacity", "Sessions that the workers that take calls can have", |figures| {
                float(figures.capacity)
            }),
            ("streamfleet_service_held_offers", "Offers that wait for a worker", |figures| float(figures.held)),
            (
                "streamfleet_service_start_seconds",
                "From a pod's creation until it serves, the 95th percentile",
                |figures| figures.start_seconds,
            ),
        ];
        for (name, about, read) in gauges {
            let services = services.clone();
            metrics.values(name, about, Kind::Gauge, move || {
                let services = services.lock();
                let of = |(key, figures)| Some(Sample { labels: labels(key), value: read(figures)? });
                services.iter().filter_map(of).collect()
            });
        }
        let by_state = services.clone();
        metrics.values("streamfleet_service_workers", "Workers by state", Kind::Gauge, move || {
            let services = by_state.lock();
            let of = |(key, figures): (&Key, &Figures)| {
                let states =
                    [("starting", figures.starting), ("serving", figures.serving), ("draining", figures.draining)];
                states.map(|(state, count)| sample(key, ("state", state), count))
            };
            services.iter().flat_map(of).collect()
        });
        let decisions: Arc<Mutex<HashMap<Key, BTreeMap<&'static str, u64>>>> = Arc::default();
        let decided = decisions.clone();
        let about = "Workers created, put back, drained and removed";
        metrics.values("streamfleet_operator_decisions_total", about, Kind::Counter, move || {
            let decided = decided.lock();
            let of = |(key, kinds): (&Key, &BTreeMap<&'static str, u64>)| {
                kinds.iter().map(|(kind, count)| sample(key, ("kind", kind), *count)).collect::<Vec<_>>()
            };
            decided.iter().flat_map(of).collect()
        });
        Self {
            reconciles: meter
                .u64_counter("streamfleet_operator_reconciles")
                .with_description("Looks at StreamServices")
                .build(),
            seconds: meter
                .f64_histogram("streamfleet_operator_reconcile")
                .with_unit("s")
                .with_description("How long one look takes")
                .with_boundaries(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
                .build(),
            decisions,
            requests: meter
                .u64_counter("streamfleet_operator_requests")
                .with_description("Requests to the API server")
                .build(),
            leader,
            services,
        }
    }

    /// A look has ended.
    pub fn looked(&self, outcome: Outcome, took: Duration) {
        self.reconciles.add(1, &[KeyValue::new("outcome", outcome.label())]);
        self.seconds.record(took.as_secs_f64(), &[]);
    }

    /// So many workers of a service were created, put back, drained or removed.
    pub fn decided(&self, key: &Key, kind: &'static str, workers: usize) {
        if workers > 0 {
            let mut decisions = self.decisions.lock();
            *decisions.entry(key.clone()).or_default().entry(kind).or_default() += workers as u64;
        }
    }

    /// A request was answered, or not.
    pub fn requested(&self, verb: &'static str, resource: &'static str, outcome: &'static str) {
        let labels =
            [KeyValue::new("verb", verb), KeyValue::new("resource", resource), KeyValue::new("outcome", outcome)];
        self.requests.add(1, &labels);
    }

    /// Whether this operator acts.
    pub fn leads(&self, leads: bool) {
        self.leader.store(leads.into(), Ordering::Relaxed);
    }

    /// A service's figures.
    pub fn service(&self, key: &Key, figures: Figures) {
        let mut services = self.services.lock();
        match services.get_mut(key) {
            Some(known) => *known = figures,
            None => {
                services.insert(key.clone(), figures);
            }
        }
    }

    /// A service is gone, and its figures with it.
    pub fn forget(&self, key: &Key) {
        self.services.lock().remove(key);
        self.decisions.lock().remove(key);
    }
}

fn labels(key: &Key) -> Vec<(&'static str, String)> {
    vec![("namespace", key.namespace.clone()), ("service", key.name.clone())]
}

/// A figure of a service of which there are several, told apart by one more label.
fn sample(key: &Key, (name, value): (&'static str, &str), count: u64) -> Sample {
    let mut labels = labels(key);
    labels.push((name, value.to_owned()));
    Sample { labels, value: count as f64 }
}

fn float(count: u64) -> Option<f64> {
    Some(count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown() {
        let metrics = Metrics::new("streamfleet-operator", "0");
        let due: Arc<Mutex<Due>> = Arc::default();
        let instruments = Instruments::new(&metrics, due.clone());
        let key = Key::new("voice", "assistant");
        due.lock().wake(&key, Instant::now());
        instruments.leads(true);
        instruments.looked(Outcome::Invalid, Duration::from_millis(2));
        instruments.decided(&key, "create", 3);
        instruments.decided(&key, "drain", 0);
        instruments.requested("patch", "deployments", "ok");
        let figures =
            Figures { serving: 2, sessions: 7, serving_sessions: 5, start_seconds: Some(1.5), ..Figures::default() };
        instruments.service(&key, figures);
        let text = metrics.render();
        let of = "namespace=\"voice\",service=\"assistant\"";
        for line in [
            "streamfleet_operator_leader 1".to_owned(),
            "streamfleet_operator_queue 1".to_owned(),
            "streamfleet_operator_reconciles_total{outcome=\"invalid\"} 1".to_owned(),
            "streamfleet_operator_reconcile_seconds_bucket{le=\"0.003\"} 1".to_owned(),
            format!("streamfleet_operator_decisions_total{{{of},kind=\"create\"}} 3"),
            "streamfleet_operator_requests_total{outcome=\"ok\",resource=\"deployments\",verb=\"patch\"} 1".to_owned(),
            format!("streamfleet_service_workers{{{of},state=\"serving\"}} 2"),
            format!("streamfleet_service_sessions{{{of}}} 7"),
            format!("streamfleet_service_serving_sessions{{{of}}} 5"),
            format!("streamfleet_service_start_seconds{{{of}}} 1.5"),
            format!("streamfleet_service_held_offers{{{of}}} 0"),
        ] {
            assert!(text.contains(&line), "no {line} in\n{text}");
        }
        assert!(!text.contains("kind=\"drain\""));
        instruments.forget(&key);
        let text = metrics.render();
        assert!(!text.contains("streamfleet_service_sessions{") && !text.contains("decisions_total{"), "{text}");
    }
}
