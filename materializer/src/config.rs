//! Settings of the materializer.

use millrace_base::{Bounds, Size, Span, Violation};
use millrace_log::Limits;

/// Settings of the materializer. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the admin listener: health and metrics.
    pub admin: std::net::SocketAddr,
    /// Worker threads for each store.
    pub workers: usize,
    /// Most records of one write.
    pub max_step_records: usize,
    /// Most bytes of one write.
    pub max_step_bytes: Size,
    /// Longest time a write collects records.
    pub max_step_time: Span,
    /// Least time between two writes to the archive beside Redis, unless a write is full.
    pub archive_interval: Span,
    /// Least time between two writes to the index of messages, unless a write is full.
    pub index_interval: Span,
    /// Pause between two probes of a store: does it still have what it confirmed?
    pub probe_interval: Span,
    /// Pause before the first restart of a failed projection; doubled each time.
    pub retry_min_delay: Span,
    /// Longest such pause.
    pub retry_max_delay: Span,
}

impl Config {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let (ms, seconds) = (Span::from_millis, Span::from_secs);
        let max_delay = self.retry_min_delay.max(ms(10))..=seconds(600);
        let mut bounds = Bounds::new();
        bounds
            .range("workers", &self.workers, &(1..=64))
            .range("max_step_records", &self.max_step_records, &(1..=50_000))
            .range("max_step_bytes", &self.max_step_bytes, &(Size::from_kib(1)..=Size::from_mib(256)))
            .range("max_step_time", &self.max_step_time, &(ms(1)..=seconds(1)))
            .range("archive_interval", &self.archive_interval, &(ms(1)..=seconds(10)))
            .range("index_interval", &self.index_interval, &(ms(10)..=seconds(10)))
            .range("probe_interval", &self.probe_interval, &(ms(100)..=seconds(60)))
            .range("retry_min_delay", &self.retry_min_delay, &(ms(10)..=seconds(60)))
            .check(max_delay.contains(&self.retry_max_delay), "retry_max_delay", "retry_min_delay..=10m");
        bounds.into_violations()
    }

    pub(crate) fn step(&self) -> Limits {
        Limits { records: self.max_step_records, bytes: self.max_step_bytes.as_usize(), wait: self.max_step_time.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_checked() {
        let ms = Span::from_millis;
        let good = Config {
            admin: ([127, 0, 0, 1], 9084).into(),
            workers: 1,
            max_step_records: 10_000,
            max_step_bytes: Size(1 << 20),
            max_step_time: ms(20),
            archive_interval: ms(100),
            index_interval: ms(1_000),
            probe_interval: ms(1_000),
            retry_min_delay: ms(100),
            retry_max_delay: ms(30_000),
        };
        assert_eq!(good.validate(), []);
        let bad = Config {
            admin: good.admin,
            workers: 0,
            max_step_records: 0,
            max_step_bytes: Size(0),
            max_step_time: ms(0),
            archive_interval: ms(0),
            index_interval: ms(0),
            probe_interval: ms(0),
            retry_min_delay: ms(0),
            retry_max_delay: ms(0),
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|violation| violation.key).collect();
        let all = [
            "workers",
            "max_step_records",
            "max_step_bytes",
            "max_step_time",
            "archive_interval",
            "index_interval",
            "probe_interval",
            "retry_min_delay",
            "retry_max_delay",
        ];
        assert_eq!(keys, all);
    }
}
