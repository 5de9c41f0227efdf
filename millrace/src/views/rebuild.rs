//! Follows the rebuild of a read model.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_contracts::{Hour, Topic};
use millrace_log::Log;
use serde::{Deserialize, Serialize};

use super::View;

const BAR: &str = "{elapsed_precise} [{bar:40}] {pos}/{len} offsets, {per_sec}";
const POLL_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Longer than the pause of a failed projection and than a rebalance.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// The position of a read model in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionProgress {
    /// The position; `None` before the first write.
    pub(crate) position: Option<u64>,
    /// Whether the read model has every record.
    pub(crate) complete: bool,
    /// First and next offset of the log.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl PartitionProgress {
    fn done(&self) -> u64 {
        self.position.unwrap_or(0).clamp(self.start, self.end) - self.start
    }
}

/// The progress of every partition of a read model.
pub(crate) async fn progress(log: &Log, view: &View) -> anyhow::Result<Vec<PartitionProgress>> {
    let infos = log.describe().await?;
    let partitions = infos.into_iter().find(|info| info.topic == Topic::HOURLY).map(|info| info.partitions);
    let partitions = partitions.unwrap_or_default();
    let nothing = Hour::from_index(0);
    let parts = view.snapshot(0..u32::try_from(partitions.len())?, nothing..nothing).await?;
    let progress = parts.iter().zip(&partitions).map(|(part, partition)| PartitionProgress {
        position: part.position,
        complete: part.complete,
        start: partition.start,
        end: partition.end,
    });
    Ok(progress.collect())
}

/// Shows progress until every partition is complete; returns the number of processed offsets. Gives up after a minute without
/// progress.
pub(crate) async fn follow<E>(poll: impl AsyncFn() -> Result<Vec<PartitionProgress>, E>) -> anyhow::Result<u64>
where
    anyhow::Error: From<E>,
{
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (mut before, mut moved, mut line) = (Vec::new(), Instant::now(), Instant::now());
    loop {
        let now = poll().await?;
        let (done, all): (u64, u64) =
            now.iter().fold((0, 0), |(done, all), one| (done + one.done(), all + one.end - one.start));
        bar.set_length(all);
        bar.set_position(done);
        if now.iter().all(|one| one.complete) {
            bar.finish_and_clear();
            return Ok(done);
        }
        if bar.is_hidden() && line.elapsed() >= LINE_INTERVAL {
            line = Instant::now();
            eprintln!("{done} of {all} offsets");
        }
        let positions: Vec<Option<u64>> = now.iter().map(|one| one.position).collect();
        if positions != before {
            (before, moved) = (positions, Instant::now());
        }
        anyhow::ensure!(
            moved.elapsed() < STALL_TIMEOUT,
            "no progress for {STALL_TIMEOUT:?}: is a materializer running? The store is empty; the next materializer that starts \
             rebuilds it (`millrace materializer`, or `millrace up`)"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
