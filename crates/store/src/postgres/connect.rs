//! The connection pool of PostgreSQL, and the migration of its schema.

use millrace_contracts::StoreError;
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgPool, SqlSafeStr as _};

use super::PostgresConfig;
use super::config::is_identifier;
use super::error::{classify, classify_migration};

/// The migrations by version. The checksum of one that has run must not change.
const MIGRATIONS: [(i64, &str, &str); 4] = [
    (1, "hourly", include_str!("../../migrations/0001_hourly.sql")),
    (2, "last_record", include_str!("../../migrations/0002_last_record.sql")),
    (3, "counted", include_str!("../../migrations/0003_counted.sql")),
    (4, "message_index", include_str!("../../migrations/0004_message_index.sql")),
];

/// A connection that was idle for this long is tested before use.
const TEST_AFTER_IDLE: Duration = Duration::from_secs(1);
/// Timeout of the wait for another process's migration, and of the migration itself.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(5);

/// A pool that connects on first use.
pub(super) fn pool(config: &PostgresConfig) -> Result<PgPool, StoreError> {
    if !is_identifier(&config.schema) {
        return Err(StoreError::stop("postgres: the schema is not a plain identifier"));
    }
    let limits = [
        ("statement_timeout", config.statement_timeout.as_millis()),
        ("lock_timeout", config.lock_timeout.as_millis()),
    ];
    // A worker that stopped within a transaction must not hold its locks forever.
    let limits =
        limits.into_iter().chain([("idle_in_transaction_session_timeout", config.statement_timeout.as_millis())]);
    // The server of an idle connection may be gone; testing a busy connection would double the round trips.
    let pool = PgPoolOptions::new().max_connections(config.max_connections).acquire_timeout(config.acquire_timeout.0);
    let pool = pool.test_before_acquire(false).before_acquire(|connection, meta| {
        Box::pin(async move {
            if meta.idle_for >= TEST_AFTER_IDLE {
                connection.ping().await?;
            }
            Ok(true)
        })
    });
    Ok(pool.connect_lazy_with(options(config)?.options(limits)))
}

fn options(config: &PostgresConfig) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(config.url.expose()).map_err(classify)?;
    Ok(options.application_name("millrace").options([("search_path", &config.schema)]))
}

// Built here and not by sqlx's macro: it would have sqlx, tokio and rustls compiled a second time, for the compiler.
fn migrator() -> Migrator {
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
}

/// Runs the pending migrations. An advisory lock serializes processes that start together.
pub(super) async fn migrate(config: &PostgresConfig) -> Result<(), StoreError> {
    let work = async {
        // A pool of one connection: it has a connect timeout, and its settings differ from those of normal work. A change of
        // a table waits for whoever reads it, and everybody after it waits for the change: so it does not wait for long.
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(config.acquire_timeout.0);
        let options = options(config)?.options([("lock_timeout", config.lock_timeout.as_millis())]);
        let pool = pool.connect_with(options).await.map_err(classify)?;
        let schema = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        let exists: bool = sqlx::query_scalar(schema).bind(&config.schema).fetch_one(&pool).await.map_err(classify)?;
        // Checked first: CREATE SCHEMA needs a privilege on the database even if the schema exists.
        let mut migrator = migrator();
        if !exists {
            migrator.create_schema(format!("\"{}\"", config.schema));
        }
        migrator.run(&pool).await.map_err(classify_migration)?;
        pool.close().await;
        Ok(())
    };
    let timeout = || StoreError::retry("postgres: the migrations took too long, or another process holds their lock");
    tokio::time::timeout(MIGRATION_TIMEOUT, work).await.map_err(|_| timeout())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_migration() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), MIGRATIONS.len());
        assert_eq!(migrator().iter().map(|migration| migration.version).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}
