//! Shared fixtures: the store under test, and helpers to write to it.

use std::sync::OnceLock;

use millrace_base::Clock;
use millrace_contracts::{CountedPosition, Exactness, Hour, HourlyCount, ProjectionWrite, StoreError, WriteOutcome};
use millrace_store::{Archive, HourRead, HourlyStore, LiveHours, LiveWindow, Totals};

/// Partitions of every store under test.
pub(crate) const PARTITIONS: u32 = 3;

/// The hour of every test, whose clock is in the middle of it. It is the hour in which the run started, since Redis expires
/// keys by its own clock, and it stays the same for the whole run.
pub(crate) fn now() -> Hour {
    static NOW: OnceLock<Hour> = OnceLock::new();
    *NOW.get_or_init(|| Hour::current(&Clock::system()))
}

pub(crate) fn clock() -> Clock {
    Clock::new(|| now().start_ms() + 1_800_000)
}

pub(crate) fn window() -> LiveWindow {
    LiveWindow::new(24, clock())
}

/// A store under test.
pub(crate) trait Subject {
    type Writer: HourlyStore;
    fn writer(&self) -> Self::Writer;
    async fn read(&self, hour: Hour) -> Result<HourRead, StoreError>;
    async fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError>;
    async fn reset(&self) -> Result<(), StoreError>;
}

impl Subject for LiveHours {
    type Writer = millrace_store::LiveHoursWriter;
    fn writer(&self) -> Self::Writer {
        LiveHours::writer(self)
    }
    async fn read(&self, hour: Hour) -> Result<HourRead, StoreError> {
        self.hour(hour).await
    }
    async fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError> {
        LiveHours::counted(self).await
    }
    async fn reset(&self) -> Result<(), StoreError> {
        LiveHours::reset(self).await
    }
}

impl Subject for Archive {
    type Writer = millrace_store::ArchiveWriter;
    fn writer(&self) -> Self::Writer {
        Archive::writer(self)
    }
    async fn read(&self, hour: Hour) -> Result<HourRead, StoreError> {
        self.hour(hour).await
    }
    async fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError> {
        Archive::counted(self).await
    }
    async fn reset(&self) -> Result<(), StoreError> {
        Archive::reset(self).await
    }
}

pub(crate) fn count(hour: Hour, partition: u32, next_offset: u64, numbers: [u64; 3]) -> HourlyCount {
    let [clicks, impressions, unique_users] = numbers;
    let exactness = Exactness::Exact;
    HourlyCount { hour, partition, generation: 1, next_offset, clicks, impressions, unique_users, exactness }
}

pub(crate) fn hour_read(numbers: [u64; 3]) -> HourRead {
    let [clicks, impressions, unique_users] = numbers;
    HourRead::Complete(Totals { clicks, impressions, unique_users, exactness: Exactness::Exact })
}

/// Writes one partition.
pub(crate) async fn put(
    writer: &mut impl HourlyStore,
    partition: u32,
    (expected, next): (Option<u64>, u64),
    caught_up: bool,
    counts: &[HourlyCount],
) -> Result<WriteOutcome, StoreError> {
    let (last_record, counted) = (Some(!next), None);
    let write = ProjectionWrite { partition, expected, next, last_record, caught_up, counted, items: counts };
    Ok(writer.write(&[write]).await?[0])
}

/// The stored offset of a partition; checks that the identity that [`put`] wrote came with it.
pub(crate) async fn position(writer: &mut impl HourlyStore, partition: u32) -> Result<Option<u64>, StoreError> {
    let stored = writer.position(partition).await?;
    assert!(stored.is_none_or(|stored| stored.last_record == Some(!stored.next_offset)), "{stored:?}");
    Ok(stored.map(|stored| stored.next_offset))
}

/// Makes every partition complete at position 1, each with these numbers in the current hour.
pub(crate) async fn complete(writer: &mut impl HourlyStore, numbers: [u64; 3]) {
    for partition in 0..PARTITIONS {
        let counts = [count(now(), partition, 1, numbers)];
        assert_eq!(put(writer, partition, (None, 1), true, &counts).await, Ok(WriteOutcome::Applied));
    }
}
