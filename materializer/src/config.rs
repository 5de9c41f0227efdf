//! Settings of the materializer.

use std::time::Duration;

use millrace_log::Limits;
use millrace_service::config::{Size, Span};

/// Settings of the materializer. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the admin listener: health and metrics.
    pub admin: std::net::SocketAddr,
    /// Worker threads for each store.
    pub workers: usize,
    /// Most records of one write.
    pub step_records: usize,
    /// Most bytes of one write.
    pub step_bytes: Size,
    /// Longest time a write collects records.
    pub step_time: Span,
    /// How often a store is asked whether it still has what was written to it.
    pub look_every: Span,
    /// Pause before a projection that was ended by its store is started anew; doubled each time.
    pub retry_first: Span,
    /// Longest such pause.
    pub retry_longest: Span,
}

impl Config {
    /// What is wrong, as (key below the section, what is allowed).
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &str, allowed: &str| {
            if !ok {
                problems.push((key.to_owned(), allowed.to_owned()));
            }
        };
        let within = |span: Span, least_ms, most_ms| {
            (Duration::from_millis(least_ms)..=Duration::from_millis(most_ms)).contains(&span.0)
        };
        check((1..=64).contains(&self.workers), "workers", "1 to 64");
        check((1..=50_000).contains(&self.step_records), "step_records", "1 to 50000");
        check((1_024..=256 << 20).contains(&self.step_bytes.0), "step_bytes", "1KiB to 256MiB");
        check(within(self.step_time, 1, 1_000), "step_time", "1ms to 1s");
        check(within(self.look_every, 100, 60_000), "look_every", "100ms to 1m");
        check(within(self.retry_first, 10, 60_000), "retry_first", "10ms to 1m");
        let longest = self.retry_longest;
        check(within(longest, 10, 600_000) && longest.0 >= self.retry_first.0, "retry_longest", "retry_first to 10m");
        problems
    }

    pub(crate) fn step(&self) -> Limits {
        let bytes = usize::try_from(self.step_bytes.0).unwrap_or(usize::MAX);
        Limits { records: self.step_records, bytes, wait: self.step_time.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_checked() {
        let ms = |ms| Span(Duration::from_millis(ms));
        let good = Config {
            admin: ([127, 0, 0, 1], 9084).into(),
            workers: 1,
            step_records: 10_000,
            step_bytes: Size(1 << 20),
            step_time: ms(20),
            look_every: ms(1_000),
            retry_first: ms(100),
            retry_longest: ms(30_000),
        };
        assert_eq!(good.validate(), []);
        let bad = Config {
            admin: good.admin,
            workers: 0,
            step_records: 0,
            step_bytes: Size(0),
            step_time: ms(0),
            look_every: ms(0),
            retry_first: ms(0),
            retry_longest: ms(0),
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|(key, _)| key).collect();
        let all = ["workers", "step_records", "step_bytes", "step_time", "look_every", "retry_first", "retry_longest"];
        assert_eq!(keys, all);
    }
}
