//! The sink against a store, without a log.

use millrace_contracts::{Exactness, Hour, HourlyCount, ProjectionPosition, ProjectionWrite, WriteOutcome};
use millrace_log::{Batch, Record, Sink};
use millrace_materializer::{ConfirmedPositions, HourlySink};
use millrace_store::{Archive, HourRead, Totals};

fn count(hour: Hour, partition: u32, next_offset: u64) -> HourlyCount {
    let exactness = Exactness::Exact;
    let (clicks, impressions, unique_users) = (next_offset, next_offset + 1, 1);
    HourlyCount { hour, partition, generation: 1, next_offset, clicks, impressions, unique_users, exactness }
}

fn batch(partition: u32, first: u64, values: &[Vec<u8>]) -> Batch {
    let mut batch = Batch::new(partition);
    for (offset, value) in (first..).zip(values) {
        batch.push(Record { offset, timestamp_ms: 0, key: b"key", value: Some(value) });
    }
    batch
}

fn bytes(count: &HourlyCount) -> Vec<u8> {
    let mut bytes = Vec::new();
    count.encode(&mut bytes);
    bytes
}

#[tokio::test]
async fn batches_become_counts_and_positions() {
    let folder = tempfile::tempdir().unwrap();
    let database = fjall::Database::builder(folder.path()).open().unwrap();
    let archive = Archive::embedded(&database, 2).unwrap();
    let sink = || HourlySink::new(archive.writer(), "archive", ConfirmedPositions::default());
    let mut a = sink();
    let hour: Hour = "2026-11-21T08Z".parse().unwrap();
    assert_eq!(a.position(0).await, Ok(None));

    // Out of order, with one invalid record: the sink skips it, and the position advances past it.
    let first = batch(0, 3, &[bytes(&count(hour, 0, 9)), b"junk".to_vec(), bytes(&count(hour, 0, 4))]);
    let nothing = Batch::new(1);
    let steps = [
        ProjectionWrite {
            partition: 0,
            items: &first,
            expected: None,
            next: 6,
            last_record: Some(u64::MAX),
            caught_up: false,
            counted: None,
        },
        ProjectionWrite {
            partition: 1,
            items: &nothing,
            expected: None,
            next: 0,
            last_record: None,
            caught_up: true,
            counted: None,
        },
    ];
    assert_eq!(a.write(&steps).await, Ok(vec![WriteOutcome::Applied, WriteOutcome::Applied]));
    assert_eq!(archive.hour(hour).await, Ok(HourRead::Rebuilding));
    let end = Batch::new(0);
    let end = ProjectionWrite {
        partition: 0,
        items: &end,
        expected: Some(6),
        next: 6,
        last_record: Some(u64::MAX),
        caught_up: true,
        counted: None,
    };
    assert_eq!(a.write(&[end]).await, Ok(vec![WriteOutcome::Applied]));
    let totals = Totals { clicks: 9, impressions: 10, unique_users: 1, exactness: Exactness::Exact };
    assert_eq!(archive.hour(hour).await, Ok(HourRead::Complete(totals)));

    // Another sink takes over, and the first one has not noticed.
    let mut b = sink();
    assert_eq!(b.position(0).await, Ok(Some(ProjectionPosition { next_offset: 6, last_record: Some(u64::MAX) })));
    let next = batch(0, 6, &[bytes(&count(hour, 0, 20))]);
    let step = || ProjectionWrite {
        partition: 0,
        items: &next,
        expected: Some(6),
        next: 7,
        last_record: Some(8),
        caught_up: true,
        counted: None,
    };
    assert_eq!(b.write(&[step()]).await, Ok(vec![WriteOutcome::Applied]));
    assert_eq!(a.write(&[step()]).await, Ok(vec![WriteOutcome::PositionMismatch(Some(7))]));
}
