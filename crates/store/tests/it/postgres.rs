//! The archive in PostgreSQL: conformance, migrations, and failures of the server.

use std::time::Duration;

use millrace_contracts::{Next, ProjectionPosition, WriteOutcome};
use millrace_store::{Archive, HourRead, HourlyStore as _, PostgresConfig, SecretUrl};
use millrace_testkit::Postgres;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::conformance::{conforms, folds_to_the_newest};
use crate::reference::equals_the_reference;
use crate::support::{PARTITIONS, complete, count, hour_read, now, position, put};

pub(crate) fn config(url: &str) -> PostgresConfig {
    let schema = millrace_testkit::unique("store").replace('-', "_");
    PostgresConfig {
        url: SecretUrl::from(url),
        schema,
        lock_timeout: millrace_base::Span::from_millis(200),
        ..PostgresConfig::default()
    }
}

async fn archive(config: &PostgresConfig) -> Archive {
    Archive::postgres(config, PARTITIONS).await.unwrap()
}

pub(crate) async fn raw(url: &str, config: &PostgresConfig) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(format!("SET search_path = {}", config.schema))).await.unwrap();
    connection
}

#[tokio::test]
async fn postgres_conforms() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    conforms(async || archive(&config(url)).await).await;
}

#[test]
fn postgres_folds_to_the_newest() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    folds_to_the_newest(&runtime, 12, async || archive(&config(url)).await);
    equals_the_reference(&runtime, 24, async || archive(&config(url)).await);
}

#[tokio::test]
async fn concurrent_processes_migrate_once() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let config = config(url);
    let (a, b, c) = tokio::join!(archive(&config), archive(&config), archive(&config));
    complete(&mut a.writer(), [1, 1, 1]).await;
    for archive in [b, c, archive(&config).await] {
        assert_eq!(archive.hour(now()).await, Ok(hour_read([3, 3, 3])));
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let config = config(url);
    archive(&config).await;
    let newer =
        "INSERT INTO _sqlx_migrations SELECT 9999, 'newer', now(), true, checksum, 0 FROM _sqlx_migrations LIMIT 1";
    raw(url, &config).await.execute(newer).await.unwrap();
    let error = Archive::postgres(&config, PARTITIONS).await.unwrap_err();
    assert_eq!(error.next, Next::Stop);
    assert!(error.detail.contains("newer"), "{error}");
}

/// A migration behind a long reader makes everybody after it wait.
#[tokio::test]
async fn a_migration_does_not_wait_for_long_readers() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let config = config(url);
    complete(&mut archive(&config).await.writer(), [1, 1, 1]).await;
    // As version 1 left it.
    let mut connection = raw(url, &config).await;
    let added = ["last_record", "last_record_of", "counted", "counted_at"];
    for column in added {
        connection.execute(sqlx::AssertSqlSafe(format!("ALTER TABLE projection DROP COLUMN {column}"))).await.unwrap();
    }
    connection.execute("DROP TABLE message_index, message_index_day, message_index_position").await.unwrap();
    connection.execute("DELETE FROM _sqlx_migrations WHERE version >= 2").await.unwrap();
    let mut reader = connection.begin().await.unwrap();
    reader.execute("SELECT * FROM projection").await.unwrap();
    let upgrading = tokio::time::timeout(Duration::from_mins(1), archive(&config)).await.expect("it goes on without");
    let error = upgrading.hour(now()).await.unwrap_err();
    assert_eq!(error.next, Next::Retry, "{error}");
    assert!(error.detail.contains("lock timeout"), "{error}");
    raw(url, &config).await.execute("SELECT * FROM projection").await.unwrap();
    reader.rollback().await.unwrap();
    assert_eq!(upgrading.hour(now()).await, Ok(hour_read([3, 3, 3])));
}

#[tokio::test]
async fn hours_long_ago_and_before_the_epoch_are_stored() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let archive = archive(&config(url)).await;
    let mut writer = archive.writer();
    complete(&mut writer, [1, 1, 1]).await;
    for hour in [millrace_contracts::Hour::of_ms(123), millrace_contracts::Hour::MAX] {
        let stored = position(&mut writer, 0).await.unwrap();
        let moved = put(&mut writer, 0, (stored, 9), false, &[count(hour, 0, 5, [4, 5, 6])]).await;
        assert_eq!(moved, Ok(WriteOutcome::Applied));
        assert_eq!(archive.hour(hour).await, Ok(hour_read([4, 5, 6])));
    }
}

#[tokio::test]
async fn rows_of_an_earlier_build_do_not_count() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let config = config(url);
    let archive = archive(&config).await;
    let mut writer = archive.writer();
    complete(&mut writer, [100, 100, 100]).await;
    let forget = "UPDATE projection SET position = NULL WHERE partition = 1";
    raw(url, &config).await.execute(forget).await.unwrap();
    assert_eq!(archive.hour(now()).await, Ok(HourRead::Rebuilding));
    assert_eq!(put(&mut writer, 1, (Some(1), 2), true, &[]).await, Ok(WriteOutcome::PositionMismatch(None)));
    assert_eq!(put(&mut writer, 1, (None, 2), false, &[]).await, Ok(WriteOutcome::Applied));
    assert_eq!(archive.hour(now()).await, Ok(HourRead::Rebuilding), "the new build is not complete");
    assert_eq!(put(&mut writer, 1, (Some(2), 2), true, &[]).await, Ok(WriteOutcome::Applied));
    assert_eq!(archive.hour(now()).await, Ok(hour_read([200, 200, 200])));
}

/// During an upgrade, for example.
#[tokio::test]
async fn a_position_that_an_earlier_version_moved_has_no_identity() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let config = config(url);
    let archive = archive(&config).await;
    complete(&mut archive.writer(), [1, 1, 1]).await;
    raw(url, &config).await.execute("UPDATE projection SET position = 9 WHERE partition = 1").await.unwrap();
    let position = ProjectionPosition { next_offset: 9, last_record: None };
    assert_eq!(archive.writer().position(1).await, Ok(Some(position)));
}

#[tokio::test]
async fn a_lock_timeout_is_retried() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let config = config(url);
    let archive = archive(&config).await;
    let mut writer = archive.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let mut connection = raw(url, &config).await;
    let mut holder = connection.begin().await.unwrap();
    holder.execute("SELECT * FROM projection FOR UPDATE").await.unwrap();
    let counts = [count(now(), 0, 9, [9, 9, 9])];
    let error = put(&mut writer, 0, (Some(1), 2), false, &counts).await.unwrap_err();
    assert_eq!(error.next, Next::Retry, "{error}");
    holder.rollback().await.unwrap();
    assert_eq!(archive.hour(now()).await, Ok(hour_read([3, 3, 3])), "no partial write");
    assert_eq!(put(&mut writer, 0, (Some(1), 2), false, &counts).await, Ok(WriteOutcome::Applied));
}

#[tokio::test]
async fn a_broken_table_stops_and_rolls_back() {
    let Some(url) = millrace_testkit::postgres("store: postgres") else { return };
    let config = config(url);
    let archive = archive(&config).await;
    let mut writer = archive.writer();
    complete(&mut writer, [1, 1, 1]).await;
    let mut connection = raw(url, &config).await;
    connection.execute("ALTER TABLE projection RENAME COLUMN complete TO other").await.unwrap();
    let counts = [count(now(), 0, 9, [9, 9, 9])];
    let error = put(&mut writer, 0, (Some(1), 2), false, &counts).await.unwrap_err();
    assert_eq!(error.next, Next::Stop, "{error}");
    connection.execute("ALTER TABLE projection RENAME COLUMN other TO complete").await.unwrap();
    assert_eq!(archive.hour(now()).await, Ok(hour_read([3, 3, 3])), "counts and position were rolled back");
}

#[tokio::test]
async fn a_dead_server_is_retried() {
    let started = Postgres::start();
    let Ok(mut server) = started.map_err(|why| millrace_testkit::not_run("store: postgres", "PostgreSQL", &why)) else {
        return;
    };
    let config = PostgresConfig { acquire_timeout: millrace_base::Span::from_millis(500), ..config(&server.url()) };
    let archive = archive(&config).await;
    let mut writer = archive.writer();
    complete(&mut writer, [1, 1, 1]).await;
    server.kill();
    let counts = [count(now(), 0, 9, [9, 9, 9])];
    let error = put(&mut writer, 0, (Some(1), 2), false, &counts).await.unwrap_err();
    assert_eq!(error.next, Next::Retry, "{error}");
    assert_eq!(archive.hour(now()).await.unwrap_err().next, Next::Retry);
    let early = Archive::postgres(&config, PARTITIONS).await.unwrap();
    assert_eq!(early.hour(now()).await.unwrap_err().next, Next::Retry);
    server.restart().unwrap();
    let back = tokio::time::timeout(Duration::from_secs(20), async {
        while put(&mut writer, 0, (Some(1), 2), false, &counts).await != Ok(WriteOutcome::Applied) {
            tokio::task::yield_now().await;
        }
    });
    back.await.unwrap();
    for archive in [archive, early] {
        assert_eq!(archive.hour(now()).await, Ok(hour_read([11, 11, 11])));
    }
}
