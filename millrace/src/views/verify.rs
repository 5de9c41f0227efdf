//! Compares the log with every read model, a partition at a time: the hours of one partition bound the memory.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use millrace_contracts::{Hour, HourlyCount, Topic};
use millrace_log::Log;

use super::View;
use super::compare::{LogCounts, compare};
use super::fold::each_count;
use super::report::{Report, StoreReport};

/// Most comparisons of counts that change meanwhile, and the pause between two.
const MAX_COMPARISONS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// Compares the counts of `hours`. `progress` receives the number of compared partitions and of all, over all read models.
pub(crate) async fn verify(
    log: &Log,
    views: &[View],
    hours: Range<Hour>,
    progress: impl Fn(usize, usize),
) -> anyhow::Result<Report> {
    let infos = log.describe().await.context("the log")?;
    let starts: Vec<u64> = infos
        .iter()
        .filter(|info| info.topic == Topic::HOURLY)
        .flat_map(|info| info.partitions.iter().map(|partition| partition.start))
        .collect();
    anyhow::ensure!(!starts.is_empty(), "the topic {} does not exist yet; any service creates it", Topic::HOURLY.name);
    let mut report = Report::default();
    let mut done = 0;
    for view in views {
        let first = view.hours(&hours).start;
        let live_from = (first > hours.start).then(|| first.to_string());
        let mut store = StoreReport { store: view.name().into(), live_from, ..StoreReport::default() };
        for (partition, &start) in (0..).zip(&starts) {
            // An unavailable store is a finding like any other: the next one is compared all the same.
            if let Err(error) = one(log, view, (partition, start), &hours, &mut store).await {
                store.error = Some(crate::text::chain(&error));
                break;
            }
            done += 1;
            progress(done, views.len() * starts.len());
        }
        report.stores.push(store);
    }
    Ok(report)
}

async fn one(
    log: &Log,
    view: &View,
    (partition, start): (u32, u64),
    hours: &Range<Hour>,
    report: &mut StoreReport,
) -> anyhow::Result<()> {
    let mut left: Option<BTreeSet<Hour>> = None;
    for comparison in 0..MAX_COMPARISONS {
        if comparison > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        // The window moves with the clock: hours that leave it are not compared.
        let hours = view.hours(hours);
        // The store first, so that the log is read beyond its position.
        let part = view.snapshot(partition..partition + 1, hours.clone()).await?.pop().context("no such partition")?;
        let (Some(position), true) = (part.position, part.complete) else {
            report.building.push(partition);
            return Ok(());
        };
        let (log, wanted) = (log.clone(), hours.clone());
        let fold = move || {
            let mut logged = LogCounts::default();
            let add = |offset, count: HourlyCount| {
                if wanted.contains(&count.hour) {
                    logged.add(position, offset, count);
                }
            };
            each_count(&log, partition, start, add).map(|()| logged)
        };
        let logged = tokio::task::spawn_blocking(fold).await.context("the reader failed")?.context("the log")?;
        let moved = compare(&part, &logged, &hours, left.as_ref(), report);
        if moved.is_empty() {
            return Ok(());
        }
        left = Some(moved);
    }
    report.moving += left.map_or(0, |left| left.len() as u64);
    Ok(())
}
