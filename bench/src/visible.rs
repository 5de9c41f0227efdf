//! The time from POST to visible GET, under a steady load of events of the current hour. Two measurements:
//!
//! - One event at a time, of the previous hour, which has no other writer: posted, then read until the count includes it.
//! - All events of the current hour: the n-th acknowledged one is visible at the first read whose count is n or more.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::clock::{HOUR_MS, now_ms, wait_out_the_hours_end};
use crate::cpu::{Meter, Process};
use crate::http::Connection;
use crate::numbers::{ms, percentile};
use crate::offer::Pace;
use crate::open_loop::{Late, Outcome, run as run_open_loop};
use crate::{print, requests};

/// The interval between two reads.
const LOOK: Duration = Duration::from_millis(1);
/// The longest wait for a count.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A read of the current hour: when its response arrived, and the events it counted.
type Shown = (Duration, u64);

/// Prints `ACHIEVED` with the rate acknowledged and the number not acknowledged; then `VISIBLE` with the hour
/// (`previous`, `current`), number of events, median and 99th percentile in ms, from when the POST was due; and the lines
/// `CPU` of these processes, from the first POST until all is visible.
pub(crate) async fn run(
    command: SocketAddr,
    query: SocketAddr,
    pace: Pace,
    processes: Vec<Process>,
) -> anyhow::Result<()> {
    wait_out_the_hours_end(pace.lasting() + TIMEOUT).await;
    let now_ms = now_ms();
    let mut hour = Page::open(query, now_ms).await?;
    let before = hour.settled().await?;
    let plan = pace.plan(command, requests::posts(command, now_ms), Late::Outcome);
    let (start, started) = tokio::sync::oneshot::channel();
    let sending = tokio::task::spawn_blocking(move || {
        run_open_loop(plan, |begin| {
            // The receiver is dropped only if the measurement has failed.
            let _ = start.send(begin);
        })
    });
    let begin = started.await.context("the load did not start")?;
    let cpu = Meter::start(processes);
    let probing = tokio::spawn(probe(command, query, now_ms - HOUR_MS, begin, pace.lasting()));
    let mut shown = Vec::new();
    while !sending.is_finished() {
        hour.sample(begin, before, &mut shown).await?;
    }
    let sent = sending.await??;
    let posted = posted(&sent);
    let deadline = Instant::now() + TIMEOUT;
    while shown.last().is_none_or(|&(_, count)| count < posted.len() as u64) {
        ensure!(Instant::now() < deadline, "{} acknowledged, {:?} visible", posted.len(), shown.last());
        hour.sample(begin, before, &mut shown).await?;
    }
    let unacknowledged = sent.answers.len() - posted.len();
    let rate = posted.len() as f64 / sent.lasted(pace.lasting()).as_secs_f64();
    print(&format!("ACHIEVED {rate:.0} {unacknowledged}"))?;
    let mut probed = probing.await??;
    let cpu = cpu.lines(posted.len() + probed.len());
    report("previous", &mut probed)?;
    report("current", &mut delays(&posted, &shown))?;
    cpu.iter().try_for_each(|line| print(line))
}

fn report(hour: &str, took: &mut [Duration]) -> anyhow::Result<()> {
    let (p50, p99) = (ms(percentile(took, 0.5)), ms(percentile(took, 0.99)));
    print(&format!("VISIBLE {hour} {} {p50} {p99}", took.len()))
}

/// When the acknowledged posts were due, sorted.
fn posted(sent: &Outcome) -> Vec<Duration> {
    let acknowledged = sent.answers.iter().filter(|answered| (200..300).contains(&answered.status));
    let mut due: Vec<_> = acknowledged.map(|answered| answered.due).collect();
    due.sort_unstable();
    due
}

/// The time until the n-th event is visible, by the first read with a count of n or more. Skips events that no read counts.
fn delays(posted: &[Duration], shown: &[Shown]) -> Vec<Duration> {
    let mut shown = shown.iter().peekable();
    let visible = (1..).map_while(|n| {
        while shown.next_if(|&&(_, count)| count < n).is_some() {}
        shown.peek().map(|&&(at, _)| at)
    });
    posted.iter().zip(visible).map(|(&due, at)| at.saturating_sub(due)).collect()
}

async fn probe(
    command: SocketAddr,
    query: SocketAddr,
    timestamp_ms: u64,
    begin: Instant,
    lasting: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let mut writing = Connection::open(command).await?;
    let mut page = Page::open(query, timestamp_ms).await?;
    let mut count = page.settled().await?;
    let mut took = Vec::new();
    let request = requests::post(command, timestamp_ms, "prober", "click");
    while begin.elapsed() < lasting {
        let posted = Instant::now();
        let status = writing.exchange(&request).await?.status;
        ensure!((200..300).contains(&status), "a single POST returned {status}");
        count += 1;
        while page.count().await?.is_none_or(|shown| shown < count) {
            ensure!(posted.elapsed() < TIMEOUT, "an event was not visible within {TIMEOUT:?}");
            tokio::time::sleep(LOOK).await;
        }
        took.push(posted.elapsed());
    }
    Ok(took)
}

/// The counts of one hour, over a connection of its own.
struct Page {
    connection: Connection,
    request: Vec<u8>,
}

impl Page {
    async fn open(query: SocketAddr, timestamp_ms: u64) -> anyhow::Result<Self> {
        let connection = Connection::open(query).await.context("the query service")?;
        Ok(Self { connection, request: requests::get(query, timestamp_ms) })
    }

    /// Clicks and impressions; `None` without counts, as while a store rebuilds.
    async fn count(&mut self) -> anyhow::Result<Option<u64>> {
        let answer = self.connection.exchange(&self.request).await?;
        Ok(if answer.status == 200 { events_in(answer.body) } else { None })
    }

    /// The count once it is stable: everything written before is visible.
    async fn settled(&mut self) -> anyhow::Result<u64> {
        let deadline = Instant::now() + TIMEOUT;
        let mut before = None;
        loop {
            let now = self.count().await?;
            if let Some(count) = now.filter(|_| now == before) {
                return Ok(count);
            }
            ensure!(Instant::now() < deadline, "the counts do not become stable");
            before = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn sample(&mut self, begin: Instant, before: u64, shown: &mut Vec<Shown>) -> anyhow::Result<()> {
        if let Some(count) = self.count().await? {
            shown.push((begin.elapsed(), count.saturating_sub(before)));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }
}

/// Clicks and impressions of a text response.
fn events_in(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let number = |name| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(',')?.parse::<u64>().ok());
    Some(number("clicks")? + number("impressions")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_the_nth_event_by_the_first_read_that_counts_n() {
        let ms = |values: &[u64]| values.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>();
        let posted = ms(&[0, 10, 20, 30]);
        let shown: Vec<Shown> =
            [(5, 0), (15, 2), (25, 2), (40, 3)].map(|(at, n)| (Duration::from_millis(at), n)).into();
        assert_eq!(delays(&posted, &shown), ms(&[15, 5, 20]), "no read counts the fourth");
        assert_eq!(delays(&posted, &[]), []);
        // A count above n includes the n-th, even before its own time by this clock.
        assert_eq!(delays(&posted, &[(Duration::from_millis(20), 9)]), ms(&[20, 10, 0, 0]));
    }

    #[test]
    fn counts_both_kinds() {
        assert_eq!(events_in(b"unique_users,7\nclicks,3\nimpressions,4\n"), Some(7));
        assert_eq!(events_in(b"unique_users,7\nclicks,3\n"), None);
    }
}
