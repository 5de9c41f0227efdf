//! The embedded archive: conformance, and restarts.

use millrace_contracts::WriteOutcome;
use millrace_store::{Archive, HourRead};

use crate::conformance::{conforms, folds_to_the_newest};
use crate::reference::equals_the_reference;
use crate::support::{PARTITIONS, complete, count, hour_read, now, position, put};

/// An archive with its own temporary directory.
struct TempArchive(Archive, #[expect(dead_code, reason = "lives as long as the archive")] tempfile::TempDir);

impl crate::support::Subject for TempArchive {
    type Writer = millrace_store::ArchiveWriter;
    fn writer(&self) -> Self::Writer {
        self.0.writer()
    }
    async fn read(
        &self,
        hour: millrace_contracts::Hour,
    ) -> Result<millrace_store::HourRead, millrace_contracts::StoreError> {
        self.0.hour(hour).await
    }
    async fn counted(
        &self,
    ) -> Result<Vec<Option<millrace_contracts::CountedPosition>>, millrace_contracts::StoreError> {
        self.0.counted().await
    }
    async fn reset(&self) -> Result<(), millrace_contracts::StoreError> {
        self.0.reset().await
    }
}

fn open(folder: &std::path::Path) -> Archive {
    let database = fjall::Database::builder(folder).open().unwrap();
    Archive::embedded(&database, PARTITIONS).unwrap()
}

fn fresh() -> TempArchive {
    let folder = tempfile::tempdir().unwrap();
    TempArchive(open(folder.path()), folder)
}

#[tokio::test]
async fn embedded_conforms() {
    conforms(async || fresh()).await;
}

#[test]
fn embedded_folds_to_the_newest() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    folds_to_the_newest(&runtime, 12, async || fresh());
    equals_the_reference(&runtime, 48, async || fresh());
}

#[tokio::test]
async fn counts_and_positions_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    complete(&mut open(folder.path()).writer(), [1, 2, 3]).await;
    let archive = open(folder.path());
    assert_eq!(archive.hour(now()).await, Ok(hour_read([3, 6, 9])));
    let mut writer = archive.writer();
    assert_eq!(position(&mut writer, 2).await, Ok(Some(1)));
    assert_eq!(
        put(&mut writer, 2, (Some(1), 2), false, &[count(now(), 2, 7, [4, 4, 4])]).await,
        Ok(WriteOutcome::Applied)
    );
    assert_eq!(archive.hour(now()).await, Ok(hour_read([6, 8, 10])));
}

/// The database drops a keyspace whose files are incomplete. It comes back empty, and must not answer zeros.
#[tokio::test]
async fn a_lost_keyspace_is_rebuilt() {
    for lost in ["view.hourly", "view.position"] {
        let folder = tempfile::tempdir().unwrap();
        complete(&mut open(folder.path()).writer(), [1, 2, 3]).await;
        let database = fjall::Database::builder(folder.path()).open().unwrap();
        let keyspace = database.keyspace(lost, Default::default).unwrap();
        std::fs::remove_file(keyspace.path().join("current")).unwrap();
        drop((keyspace, database));
        for _ in 0..2 {
            let archive = open(folder.path());
            assert_eq!(archive.hour(now()).await, Ok(HourRead::Rebuilding), "{lost}");
            assert_eq!(position(&mut archive.writer(), 0).await, Ok(None), "{lost}");
        }
        complete(&mut open(folder.path()).writer(), [4, 5, 6]).await;
        assert_eq!(open(folder.path()).hour(now()).await, Ok(hour_read([12, 15, 18])), "{lost}");
    }
}

#[tokio::test]
async fn an_archive_from_before_builds_had_ids_remains() {
    let folder = tempfile::tempdir().unwrap();
    complete(&mut open(folder.path()).writer(), [1, 2, 3]).await;
    let database = fjall::Database::builder(folder.path()).open().unwrap();
    for name in ["view.hourly", "view.position"] {
        database.keyspace(name, Default::default).unwrap().remove("build").unwrap();
    }
    drop(database);
    assert_eq!(open(folder.path()).hour(now()).await, Ok(hour_read([3, 6, 9])));
}
