//! Prometheus text, as far as the suites read it.

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Reads the sample lines; comments and what is no sample are skipped.
    pub fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum over all label sets of the metric `name`; `None` when it has no sample.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.sum_where(name, "")
    }

    /// The sum over those label sets that contain the text `label` (`state="active"`).
    pub fn sum_where(&self, name: &str, label: &str) -> Option<f64> {
        let of = |series: &str| {
            series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && series.contains(label)
        };
        self.0.iter().filter(|(series, _)| of(series)).map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }

    /// Each sample, by its name and labels as they were exported.
    pub fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(series, value)| (series.as_str(), *value))
    }

    /// The names and labels of all samples, for a failed test's message.
    pub fn names(&self) -> String {
        self.0.iter().map(|(series, value)| format!("{series} {value}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn samples_add_up_by_name_and_label() {
        let metrics =
            Metrics::parse("# HELP a text\n# TYPE a gauge\na{s=\"x\",t=\"1\"} 2\na{s=\"y\"} 3.5\nab 7\nbroken\n");
        #[track_caller]
        fn check(metrics: &Metrics, name: &str, label: &str, expected: Option<f64>) {
            assert_eq!(metrics.sum_where(name, label), expected);
        }
        check(&metrics, "a", "", Some(5.5));
        check(&metrics, "a", "s=\"y\"", Some(3.5));
        check(&metrics, "ab", "", Some(7.0));
        check(&metrics, "b", "", None);
        assert_eq!(metrics.series().last(), Some(("ab", 7.0)));
    }
}
