//! What the tokio runtime says of itself, read when somebody asks.

use prometheus::{
    Counter, IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::runtime::{Handle, RuntimeMetrics};

use super::catalogue::{About, Catalogue};

const WORKERS: About = ("tokio_workers", "Threads that run tasks.", "how many cores can it use?");
const TASKS: About =
    ("tokio_alive_tasks", "Tasks that have not ended.", "does something pile up? About one for each connection");
const QUEUE: About =
    ("tokio_global_queue_depth", "Tasks that wait for any worker.", "do the workers keep up? 0 almost always");
const BUSY: About = (
    "tokio_busy_seconds_total",
    "Time that workers have worked, all together.",
    "how near to its limit is the process? At most `chat_tokio_workers` a second",
);

/// See the module.
#[derive(Clone)]
pub(super) struct Runtime(Vec<Desc>);

impl Runtime {
    pub(super) fn register(catalogue: &mut Catalogue) -> prometheus::Result<()> {
        for (about, kind) in [(WORKERS, "gauge"), (TASKS, "gauge"), (QUEUE, "gauge"), (BUSY, "counter")] {
            catalogue.describe(about, kind, &[]);
        }
        let metrics = Values::default().metrics()?;
        catalogue.register(Self(metrics.iter().flat_map(|metric| metric.desc()).cloned().collect()))?;
        Ok(())
    }
}

impl Collector for Runtime {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(runtime) = Handle::try_current() else { return Vec::new() };
        let metrics = Values::of(&runtime.metrics()).metrics().unwrap_or_default();
        metrics.iter().flat_map(|metric| metric.collect()).collect()
    }
}

/// At one moment.
#[derive(Default)]
struct Values {
    workers: usize,
    tasks: usize,
    queue: usize,
    busy: f64,
}

impl Values {
    fn of(runtime: &RuntimeMetrics) -> Self {
        let workers = runtime.num_workers();
        let busy = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64()).sum();
        Self { workers, tasks: runtime.num_alive_tasks(), queue: runtime.global_queue_depth(), busy }
    }

    /// New ones each time: two who ask at once must not add up.
    fn metrics(&self) -> prometheus::Result<Vec<Box<dyn Collector>>> {
        let gauge = |(name, help, _): About, value: usize| -> prometheus::Result<Box<dyn Collector>> {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(value as i64);
            Ok(Box::new(gauge))
        };
        let busy = Counter::new(BUSY.0, BUSY.1)?;
        busy.inc_by(self.busy);
        Ok(vec![gauge(WORKERS, self.workers)?, gauge(TASKS, self.tasks)?, gauge(QUEUE, self.queue)?, Box::new(busy)])
    }
}
