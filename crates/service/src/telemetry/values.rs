//! Counters and gauges that the process itself reads, next to the exporter, which can only render text.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;
use millrace_contracts::metric::{self, Metric};

/// The metrics that can be read. Few, because an update of one costs a second atomic operation.
const READABLE: [&Metric; 8] = [
    &metric::COMMAND_EVENTS,
    &metric::LAG,
    &metric::READS,
    &metric::BREAKER_OPEN,
    &metric::TCP_CONNECTIONS,
    &metric::TCP_REFUSED,
    &metric::TCP_FRAMES,
    &metric::INTAKE_MESSAGES,
];

/// The values of the readable metrics of this process.
#[derive(Clone, Default)]
pub struct MetricValues(Arc<Mutex<HashMap<Key, Cell>>>);

/// The value of one series. Gauges are the bits of a float.
enum Cell {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
}

impl MetricValues {
    /// Every series with its value.
    pub fn snapshot(&self) -> Vec<(Key, f64)> {
        let cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = |cell: &Cell| match cell {
            Cell::Counter(value) => value.load(Ordering::Relaxed) as f64,
            Cell::Gauge(bits) => f64::from_bits(bits.load(Ordering::Relaxed)),
        };
        cells.iter().map(|(key, cell)| (key.clone(), value(cell))).collect()
    }

    fn cell(&self, key: &Key, new: impl FnOnce(Arc<AtomicU64>) -> Cell) -> Arc<AtomicU64> {
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = cells.entry(key.clone()).or_insert_with(|| new(Arc::default()));
        let (Cell::Counter(value) | Cell::Gauge(value)) = cell;
        Arc::clone(value)
    }
}

/// Records every metric to the exporter, and the readable ones to [`MetricValues`], too.
pub(super) struct ReadableRecorder {
    pub(super) exporter: PrometheusRecorder,
    pub(super) values: MetricValues,
}

impl Recorder for ReadableRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.exporter.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let exported = self.exporter.register_counter(key, metadata);
        if !is_readable(key) {
            return exported;
        }
        Counter::from_arc(Arc::new(ReadableCounter { exported, value: self.values.cell(key, Cell::Counter) }))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        let exported = self.exporter.register_gauge(key, metadata);
        if !is_readable(key) {
            return exported;
        }
        Gauge::from_arc(Arc::new(ReadableGauge { exported, value: self.values.cell(key, Cell::Gauge) }))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.exporter.register_histogram(key, metadata)
    }
}

fn is_readable(key: &Key) -> bool {
    READABLE.iter().any(|metric| metric.name == key.name())
}

struct ReadableCounter {
    exported: Counter,
    value: Arc<AtomicU64>,
}

impl CounterFn for ReadableCounter {
    fn increment(&self, value: u64) {
        self.exported.increment(value);
        CounterFn::increment(&*self.value, value);
    }

    fn absolute(&self, value: u64) {
        self.exported.absolute(value);
        CounterFn::absolute(&*self.value, value);
    }
}

struct ReadableGauge {
    exported: Gauge,
    value: Arc<AtomicU64>,
}

impl GaugeFn for ReadableGauge {
    fn increment(&self, value: f64) {
        self.exported.increment(value);
        GaugeFn::increment(&*self.value, value);
    }

    fn decrement(&self, value: f64) {
        self.exported.decrement(value);
        GaugeFn::decrement(&*self.value, value);
    }

    fn set(&self, value: f64) {
        self.exported.set(value);
        GaugeFn::set(&*self.value, value);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{Label, Level};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn readable_metrics_have_the_exported_values() {
        let recorder =
            ReadableRecorder { exporter: PrometheusBuilder::new().build_recorder(), values: MetricValues::default() };
        let metadata = Metadata::new("", Level::INFO, None);
        let key = |name, tier| Key::from_parts(name, vec![Label::new("tier", tier)]);
        let (reads, lag) = (key(metric::READS.name, "redis"), Key::from_static_name(metric::LAG.name));
        recorder.register_counter(&reads, &metadata).increment(2);
        recorder.register_counter(&reads, &metadata).increment(3);
        recorder.register_counter(&key(metric::STALE_READS.name, "redis"), &metadata).increment(7);
        recorder.register_gauge(&lag, &metadata).set(9.0);
        recorder.register_gauge(&lag, &metadata).decrement(1.5);
        let mut values = recorder.values.snapshot();
        values.sort_by(|(a, _), (b, _)| a.cmp(b));
        assert_eq!(values, [(lag, 7.5), (reads, 5.0)]);
        let text = recorder.exporter.handle().render();
        assert!(text.contains("millrace_query_reads_total{tier=\"redis\"} 5\n"), "{text}");
        assert!(text.contains("millrace_lag_records 7.5\n"), "{text}");
    }
}
