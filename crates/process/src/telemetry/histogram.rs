//! Histograms that are counted elsewhere.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// A histogram as it is now. Whoever counts millions of values a second does it without an instrument, and is asked when somebody
/// reads.
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
    read: F,
}

impl<F: Fn() -> Vec<Counted> + Send + Sync> Collected<F> {
    pub(super) fn new(name: &'static str, about: &'static str, read: F) -> prometheus::Result<Self> {
        let desc = Desc::new(name.to_owned(), about.to_owned(), Vec::new(), HashMap::new())?;
        Ok(Self { name, about, desc, read })
    }
}

impl<F: Fn() -> Vec<Counted> + Send + Sync> Collector for Collected<F> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.about.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric((self.read)().iter().map(metric).collect());
        vec![family]
    }
}

fn metric(counted: &Counted) -> Metric {
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
    let labels = counted.labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    metric.set_histogram(histogram);
    metric
}
