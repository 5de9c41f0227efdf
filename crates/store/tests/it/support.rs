//! What all tests share: a store as they see it, and short ways to write to it.

use std::sync::OnceLock;

use millrace_contracts::{Exactness, Hour, HourlyCount, ProjectionWrite, StoreError, WriteOutcome};
use millrace_store::{Answer, Archive, Clock, HourlyStore, LiveHours, Totals, Window};

/// Partitions of every store under test.
pub(crate) const PARTITIONS: u32 = 3;

/// The time of every test: in the middle of this hour. It is the one in which the run began, since Redis drops keys by its
/// own clock, and it stays, whatever hour the run ends in.
pub(crate) fn now() -> Hour {
    static NOW: OnceLock<Hour> = OnceLock::new();
    *NOW.get_or_init(|| Clock::system().hour())
}

pub(crate) fn clock() -> Clock {
    Clock::of(|| now().start_ms() + 1_800_000)
}

pub(crate) fn window() -> Window {
    Window::new(24, clock())
}

/// A store under test.
pub(crate) trait Subject {
    type Writer: HourlyStore;
    fn writer(&self) -> Self::Writer;
    async fn answer(&self, hour: Hour) -> Result<Answer, StoreError>;
    async fn reset(&self) -> Result<(), StoreError>;
}

impl Subject for LiveHours {
    type Writer = millrace_store::LiveHoursWriter;
    fn writer(&self) -> Self::Writer {
        LiveHours::writer(self)
    }
    async fn answer(&self, hour: Hour) -> Result<Answer, StoreError> {
        self.hour(hour).await
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
    async fn answer(&self, hour: Hour) -> Result<Answer, StoreError> {
        self.hour(hour).await
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

pub(crate) fn known(numbers: [u64; 3]) -> Answer {
    let [clicks, impressions, unique_users] = numbers;
    Answer::Known(Totals { clicks, impressions, unique_users, exactness: Exactness::Exact })
}

/// Writes one partition.
pub(crate) async fn put(
    writer: &mut impl HourlyStore,
    partition: u32,
    (expected, next): (Option<u64>, u64),
    caught_up: bool,
    counts: &[HourlyCount],
) -> Result<WriteOutcome, StoreError> {
    let write = ProjectionWrite { partition, expected, next, caught_up, items: counts };
    Ok(writer.write(&[write]).await?[0])
}

/// Makes every partition complete at position 1, each with these numbers in the current hour.
pub(crate) async fn complete(writer: &mut impl HourlyStore, numbers: [u64; 3]) {
    for partition in 0..PARTITIONS {
        let counts = [count(now(), partition, 1, numbers)];
        assert_eq!(put(writer, partition, (None, 1), true, &counts).await, Ok(WriteOutcome::Applied));
    }
}
