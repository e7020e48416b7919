//! Makes metrics, registers them, and remembers what each is for: the reference in the documentation is printed from here.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Metric, MetricVec, MetricVecBuilder},
};

/// One metric, as an operator meets it.
#[derive(Debug, Clone)]
pub struct Described {
    /// In full, with the prefix, and its labels.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What is counted.
    pub help: &'static str,
    /// Which question it answers.
    pub question: &'static str,
}

/// See the module.
pub(super) struct Catalogue {
    pub(super) registry: Registry,
    pub(super) described: Vec<Described>,
}

/// What a metric is: its name without the prefix, what it counts, and the question that it answers.
pub(super) type About = (&'static str, &'static str, &'static str);

impl Catalogue {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self { registry: Registry::new_custom(Some(super::PREFIX.into()), None)?, described: Vec::new() })
    }

    /// Registers what somebody else made.
    pub(super) fn register<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    /// Remembers what a metric is for.
    pub(super) fn describe(&mut self, (name, help, question): About, kind: &'static str, labels: &[&str]) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.described.push(Described { name: format!("{}_{name}{labels}", super::PREFIX), kind, help, question });
    }

    pub(super) fn counter(&mut self, about: About) -> prometheus::Result<IntCounter> {
        self.describe(about, "counter", &[]);
        self.register(IntCounter::new(about.0, about.1)?)
    }

    pub(super) fn gauge(&mut self, about: About) -> prometheus::Result<IntGauge> {
        self.describe(about, "gauge", &[]);
        self.register(IntGauge::new(about.0, about.1)?)
    }

    pub(super) fn float(&mut self, about: About) -> prometheus::Result<Gauge> {
        self.describe(about, "gauge", &[]);
        self.register(Gauge::new(about.0, about.1)?)
    }

    /// A gauge whose labels are set as they become known.
    pub(super) fn gauges(&mut self, about: About, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.describe(about, "gauge", labels);
        self.register(IntGaugeVec::new(Opts::new(about.0, about.1), labels)?)
    }

    pub(super) fn histogram(&mut self, about: About, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.describe(about, "histogram", &[]);
        self.register(Histogram::with_opts(HistogramOpts::new(about.0, about.1).buckets(buckets.to_vec()))?)
    }

    /// One histogram for each of `values`.
    pub(super) fn histograms(
        &mut self,
        about: About,
        label: &'static str,
        values: &[&'static str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        self.describe(about, "histogram", &[label]);
        let options = HistogramOpts::new(about.0, about.1).buckets(buckets.to_vec());
        self.begin(HistogramVec::new(options, &[label])?, values.iter().copied())
    }

    /// One counter for each of `values`.
    pub(super) fn counters<'v>(
        &mut self,
        about: About,
        label: &'static str,
        values: impl IntoIterator<Item = &'v str>,
    ) -> prometheus::Result<IntCounterVec> {
        self.describe(about, "counter", &[label]);
        self.begin(IntCounterVec::new(Opts::new(about.0, about.1), &[label])?, values)
    }

    /// One counter for each pair of values.
    pub(super) fn pairs<const LEFT: usize, const RIGHT: usize>(
        &mut self,
        about: About,
        labels: [&'static str; 2],
        left: [&str; LEFT],
        right: [&str; RIGHT],
    ) -> prometheus::Result<IntCounterVec> {
        self.describe(about, "counter", &labels);
        let family = self.register(IntCounterVec::new(Opts::new(about.0, about.1), &labels)?)?;
        for left in left {
            right.iter().for_each(|right| drop(family.with_label_values(&[left, *right])));
        }
        Ok(family)
    }

    /// Registers a family with all its members at 0.
    fn begin<'v, B: MetricVecBuilder + 'static>(
        &self,
        family: MetricVec<B>,
        values: impl IntoIterator<Item = &'v str>,
    ) -> prometheus::Result<MetricVec<B>>
    where
        B::M: Metric,
        MetricVec<B>: Collector,
    {
        for value in values {
            family.with_label_values(&[value]);
        }
        self.register(family)
    }
}
