//! Metrics that are kept elsewhere, and read when Prometheus reads: histograms of whoever counts millions of values a second without an
//! instrument, and figures of services, of which nothing is remembered here when they are gone.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// What a value does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows, until its process or its service ends.
    Counter,
}

/// One value as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: Vec<(&'static str, String)>,
    /// In the unit of the metric.
    pub value: f64,
}

/// A histogram as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Its labels: names, and values of an enum.
    pub labels: Vec<(&'static str, &'static str)>,
    /// The most that each bucket has, in the unit of the metric.
    pub bounds: Vec<f64>,
    /// How many values each bucket has, without those of others; the last has no bound.
    pub counts: Vec<u64>,
    /// All values together.
    pub sum: f64,
}

/// One metric's.
pub(super) struct Collected<F> {
    name: &'static str,
    about: &'static str,
    desc: Desc,
    kind: MetricType,
    read: F,
}

impl<F: Fn() -> Vec<Metric> + Send + Sync> Collected<F> {
    pub(super) fn new(name: &'static str, about: &'static str, kind: MetricType, read: F) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), about.to_owned(), Vec::new(), HashMap::new())?;
        Ok(Self { name, about, desc, kind, read })
    }
}

impl<F: Fn() -> Vec<Metric> + Send + Sync> Collector for Collected<F> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.about.to_owned());
        family.set_field_type(self.kind);
        family.set_metric((self.read)());
        vec![family]
    }
}

impl Kind {
    pub(super) const fn of_family(self) -> MetricType {
        match self {
            Self::Gauge => MetricType::GAUGE,
            Self::Counter => MetricType::COUNTER,
        }
    }

    pub(super) fn metric(self, sample: Sample) -> Metric {
        let mut metric = labelled(sample.labels);
        match self {
            Self::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(sample.value);
                metric.set_gauge(gauge);
            }
            Self::Counter => {
                let mut counter = Counter::default();
                counter.set_value(sample.value);
                metric.set_counter(counter);
            }
        }
        metric
    }
}

pub(super) fn histogram(counted: Counted) -> Metric {
    let mut all = 0;
    let buckets = counted.bounds.iter().zip(&counted.counts).map(|(bound, count)| {
        all += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(all);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counted.counts.iter().sum());
    histogram.set_sample_sum(counted.sum);
    let mut metric = labelled(counted.labels);
    metric.set_histogram(histogram);
    metric
}

fn labelled(labels: Vec<(&'static str, impl Into<String>)>) -> Metric {
    let labels = labels.into_iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.into());
        label
    });
    Metric::from_label(labels.collect())
}
