//! Follows a read model that is built again from the log.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millrace_contracts::{Hour, Topic};
use millrace_log::Log;
use serde::{Deserialize, Serialize};

use super::View;

const BAR: &str = "{elapsed_precise} [{bar:40}] {pos}/{len} offsets, {per_sec}";
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Longer than a projection pauses after a failure, and than a partition takes to go from one process to another.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// How far a read model contains one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stands {
    /// The position it reaches; none before anything was written.
    pub(crate) position: Option<u64>,
    /// Whether everything is contained.
    pub(crate) complete: bool,
    /// Where the log begins, and where it ends now.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Stands {
    fn done(&self) -> u64 {
        self.position.unwrap_or(0).clamp(self.start, self.end) - self.start
    }
}

/// Where every partition of a read model stands.
pub(crate) async fn standing(log: &Log, view: &View) -> anyhow::Result<Vec<Stands>> {
    let infos = log.describe().await?;
    let partitions = infos.into_iter().find(|info| info.topic == Topic::HOURLY).map(|info| info.partitions);
    let partitions = partitions.unwrap_or_default();
    let nothing = Hour::from_index(0);
    let parts = view.snapshot(0..u32::try_from(partitions.len())?, nothing..nothing).await?;
    let stands = parts.iter().zip(&partitions).map(|(part, partition)| Stands {
        position: part.position,
        complete: part.complete,
        start: partition.start,
        end: partition.end,
    });
    Ok(stands.collect())
}

/// Shows progress until every partition is complete; answers how many offsets were passed. Gives up when nothing has moved
/// for a minute.
pub(crate) async fn follow<E>(look: impl AsyncFn() -> Result<Vec<Stands>, E>) -> anyhow::Result<u64>
where
    anyhow::Error: From<E>,
{
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (mut before, mut moved, mut line) = (Vec::new(), Instant::now(), Instant::now());
    loop {
        let now = look().await?;
        let (done, all): (u64, u64) =
            now.iter().fold((0, 0), |(done, all), stands| (done + stands.done(), all + stands.end - stands.start));
        bar.set_length(all);
        bar.set_position(done);
        if now.iter().all(|stands| stands.complete) {
            bar.finish_and_clear();
            return Ok(done);
        }
        if bar.is_hidden() && line.elapsed() >= LINE_EVERY {
            line = Instant::now();
            eprintln!("{done} of {all} offsets");
        }
        let positions: Vec<Option<u64>> = now.iter().map(|stands| stands.position).collect();
        if positions != before {
            (before, moved) = (positions, Instant::now());
        }
        anyhow::ensure!(
            moved.elapsed() < STUCK_AFTER,
            "nothing has moved for {STUCK_AFTER:?}: is a materializer running? The store is empty now and is built as soon \
             as one runs (`millrace materializer`, or `millrace up`)"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
