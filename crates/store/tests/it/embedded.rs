//! The embedded engine: the promises of every store, and what a restart keeps.

use millrace_contracts::WriteOutcome;
use millrace_store::{Archive, HourlyStore};

use crate::conformance::{conforms, folds_to_the_newest};
use crate::reference::is_the_reference;
use crate::support::{PARTITIONS, complete, count, known, now, put};

/// An archive in a folder that goes with it.
struct Housed(Archive, #[expect(dead_code, reason = "held until the archive is gone")] tempfile::TempDir);

impl crate::support::Subject for Housed {
    type Writer = millrace_store::ArchiveWriter;
    fn writer(&self) -> Self::Writer {
        self.0.writer()
    }
    async fn answer(
        &self,
        hour: millrace_contracts::Hour,
    ) -> Result<millrace_store::Answer, millrace_contracts::StoreError> {
        self.0.hour(hour).await
    }
    async fn reset(&self) -> Result<(), millrace_contracts::StoreError> {
        self.0.reset().await
    }
}

fn open(folder: &std::path::Path) -> Archive {
    let database = fjall::Database::builder(folder).open().unwrap();
    Archive::embedded(&database, PARTITIONS).unwrap()
}

fn fresh() -> Housed {
    let folder = tempfile::tempdir().unwrap();
    Housed(open(folder.path()), folder)
}

#[tokio::test]
async fn embedded_conforms() {
    conforms(async || fresh()).await;
}

#[test]
fn embedded_folds_to_the_newest() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    folds_to_the_newest(&runtime, 12, async || fresh());
    is_the_reference(&runtime, 48, async || fresh());
}

#[tokio::test]
async fn a_restart_keeps_counts_and_positions() {
    let folder = tempfile::tempdir().unwrap();
    complete(&mut open(folder.path()).writer(), [1, 2, 3]).await;
    let archive = open(folder.path());
    assert_eq!(archive.hour(now()).await, Ok(known([3, 6, 9])));
    let mut writer = archive.writer();
    assert_eq!(writer.position(2).await, Ok(Some(1)));
    assert_eq!(
        put(&mut writer, 2, (Some(1), 2), false, &[count(now(), 2, 7, [4, 4, 4])]).await,
        Ok(WriteOutcome::Applied)
    );
    assert_eq!(archive.hour(now()).await, Ok(known([6, 8, 10])));
}
