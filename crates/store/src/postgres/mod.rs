//! PostgreSQL: the schema's connections, for every read model in it.

mod config;
mod connect;
mod error;
mod positions;

use std::sync::Arc;

use millrace_contracts::{Next, StoreError};
use sqlx::PgPool;
use tokio::sync::OnceCell;

pub use config::PostgresConfig;

pub(crate) use positions::lock;

use error::classify;

/// A pool of connections to one schema. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Postgres(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: PostgresConfig,
    pool: PgPool,
    /// Set once the schema is migrated.
    migrated: OnceCell<()>,
}

impl Postgres {
    /// Connects and migrates the schema. An unreachable server is not an error: the first use migrates.
    pub(crate) async fn connect(config: &PostgresConfig) -> Result<Self, StoreError> {
        let (config, migrated) = (config.clone(), OnceCell::new());
        let postgres = Self(Arc::new(Inner { pool: connect::pool(&config)?, config, migrated }));
        match postgres.pool().await {
            Err(error) if error.next == Next::Retry => {
                tracing::warn!(%error, "PostgreSQL is unreachable: retrying at the next use");
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(postgres)
    }

    /// The pool, once the schema is migrated.
    pub(crate) async fn pool(&self) -> Result<&PgPool, StoreError> {
        self.0.migrated.get_or_try_init(|| connect::migrate(&self.0.config)).await?;
        Ok(&self.0.pool)
    }

    /// Adds a timeout on the client, since the server's timeouts do not help if it vanished without closing the connection.
    pub(crate) async fn bounded<T>(
        &self,
        statements: u32,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        let config = &self.0.config;
        // The statements follow the wait for a connection.
        let longest = config.acquire_timeout.0 + statements * config.statement_timeout.0;
        match tokio::time::timeout(longest, work).await {
            Ok(done) => done.map_err(classify),
            Err(_) => Err(StoreError::retry(format!("postgres: no response within {longest:?}"))),
        }
    }
}
