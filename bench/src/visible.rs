//! From POST to visible GET, while events of the current hour come in at a steady rate. Two ways to look:
//!
//! - One event at a time, of the previous hour, which nobody else writes: posted, then read until its number shows it.
//! - All events of the current hour: the n-th acknowledged one is visible at the first read whose count is n or more.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::clock::{HOUR_MS, not_over_the_turn, now_ms};
use crate::http::Connection;
use crate::numbers::{ms, percentile};
use crate::offer::Pace;
use crate::open_loop::{Late, Sent, run as run_open_loop};
use crate::{requests, say};

/// Between two reads.
const LOOK: Duration = Duration::from_millis(1);
/// The longest wait for a number.
const PATIENCE: Duration = Duration::from_secs(30);

/// A read of the current hour: when its answer was there, and the events it showed.
type Shown = (Duration, u64);

/// Prints `HELD` with the rate acknowledged and the number not acknowledged; then `VISIBLE` with the hour
/// (`previous`, `current`), number of events, median and 99th percentile in ms, from when the POST was due.
pub(crate) async fn run(command: SocketAddr, query: SocketAddr, pace: Pace) -> anyhow::Result<()> {
    not_over_the_turn(pace.lasting() + PATIENCE).await;
    let now_ms = now_ms();
    let mut hour = Page::open(query, now_ms).await?;
    let before = hour.settled().await?;
    let plan = pace.plan(command, requests::posts(command, now_ms), Late::Sent);
    let (tell, told) = tokio::sync::oneshot::channel();
    let sending = tokio::task::spawn_blocking(move || {
        run_open_loop(plan, |begin| {
            // Nobody waits for it only when the measurement has failed.
            let _ = tell.send(begin);
        })
    });
    let begin = told.await.context("the load did not begin")?;
    let probing = tokio::spawn(probe(command, query, now_ms - HOUR_MS, begin, pace.lasting()));
    let mut shown = Vec::new();
    while !sending.is_finished() {
        hour.look(begin, before, &mut shown).await?;
    }
    let sent = sending.await??;
    let posted = posted(&sent);
    let deadline = Instant::now() + PATIENCE;
    while shown.last().is_none_or(|&(_, count)| count < posted.len() as u64) {
        ensure!(Instant::now() < deadline, "{} were acknowledged, {:?} are shown", posted.len(), shown.last());
        hour.look(begin, before, &mut shown).await?;
    }
    let unacknowledged = sent.answers.len() - posted.len();
    let held = posted.len() as f64 / sent.lasted(pace.lasting()).as_secs_f64();
    say(&format!("HELD {held:.0} {unacknowledged}"))?;
    report("previous", &mut probing.await??)?;
    report("current", &mut delays(&posted, &shown))
}

fn report(hour: &str, took: &mut [Duration]) -> anyhow::Result<()> {
    let (p50, p99) = (ms(percentile(took, 0.5)), ms(percentile(took, 0.99)));
    say(&format!("VISIBLE {hour} {} {p50} {p99}", took.len()))
}

/// When the acknowledged posts were due, in order.
fn posted(sent: &Sent) -> Vec<Duration> {
    let acknowledged = sent.answers.iter().filter(|answered| (200..300).contains(&answered.status));
    let mut due: Vec<_> = acknowledged.map(|answered| answered.due).collect();
    due.sort_unstable();
    due
}

/// How long the n-th event was on its way, by the first read that shows n or more. What no read shows is left out.
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
        ensure!((200..300).contains(&status), "a single POST was answered {status}");
        count += 1;
        while page.count().await?.is_none_or(|shown| shown < count) {
            ensure!(posted.elapsed() < PATIENCE, "an event was not visible within {PATIENCE:?}");
            tokio::time::sleep(LOOK).await;
        }
        took.push(posted.elapsed());
    }
    Ok(took)
}

/// The numbers of one hour, over a connection of its own.
struct Page {
    connection: Connection,
    request: Vec<u8>,
}

impl Page {
    async fn open(query: SocketAddr, timestamp_ms: u64) -> anyhow::Result<Self> {
        let connection = Connection::open(query).await.context("the query service")?;
        Ok(Self { connection, request: requests::get(query, timestamp_ms) })
    }

    /// Clicks and impressions; `None` when the answer is no number, as while a store is rebuilding.
    async fn count(&mut self) -> anyhow::Result<Option<u64>> {
        let answer = self.connection.exchange(&self.request).await?;
        Ok(if answer.status == 200 { events_in(answer.body) } else { None })
    }

    /// The number once it stands still: what was written before has arrived.
    async fn settled(&mut self) -> anyhow::Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        let mut before = None;
        loop {
            let now = self.count().await?;
            if let Some(count) = now.filter(|_| now == before) {
                return Ok(count);
            }
            ensure!(Instant::now() < deadline, "the numbers do not stand still");
            before = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn look(&mut self, begin: Instant, before: u64, shown: &mut Vec<Shown>) -> anyhow::Result<()> {
        if let Some(count) = self.count().await? {
            shown.push((begin.elapsed(), count.saturating_sub(before)));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }
}

/// Clicks and impressions of a text answer.
fn events_in(body: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(body).ok()?;
    let number = |name| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(',')?.parse::<u64>().ok());
    Some(number("clicks")? + number("impressions")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_event_is_visible_at_the_first_read_that_shows_n() {
        let ms = |values: &[u64]| values.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>();
        let posted = ms(&[0, 10, 20, 30]);
        let shown: Vec<Shown> =
            [(5, 0), (15, 2), (25, 2), (40, 3)].map(|(at, n)| (Duration::from_millis(at), n)).into();
        assert_eq!(delays(&posted, &shown), ms(&[15, 5, 20]), "the fourth was never shown");
        assert_eq!(delays(&posted, &[]), []);
        // A count past n shows the n-th too, even before its own time by our clock.
        assert_eq!(delays(&posted, &[(Duration::from_millis(20), 9)]), ms(&[20, 10, 0, 0]));
    }

    #[test]
    fn both_kinds_count() {
        assert_eq!(events_in(b"unique_users,7\nclicks,3\nimpressions,4\n"), Some(7));
        assert_eq!(events_in(b"unique_users,7\nclicks,3\n"), None);
    }
}
