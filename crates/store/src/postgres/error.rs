//! Classification of PostgreSQL errors: retry or stop.

use millrace_contracts::StoreError;
use sqlx::Error;
use sqlx::migrate::MigrateError;

/// Classifies an error. A lost COMMIT is retried like any other lost connection: the position row decides whether it
/// succeeded.
pub(super) fn classify(error: Error) -> StoreError {
    let detail = format!("postgres: {error}");
    let classified = match &error {
        Error::Database(database) if !is_temporary(database.code().as_deref()) => StoreError::stop(detail),
        Error::Database(_)
        | Error::Io(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed => StoreError::retry(detail),
        _ => StoreError::stop(detail),
    };
    classified.because(error)
}

pub(super) fn classify_migration(error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => classify(error),
        MigrateError::VersionMissing(version) => {
            let detail =
                format!("postgres: a newer version of Millrace wrote the schema: migration {version} is unknown");
            StoreError::stop(detail).because(error)
        }
        other => StoreError::stop(format!("postgres: {other}")).because(other),
    }
}

/// Whether an SQLSTATE is temporary: conflicts, restarts, timeouts, exhausted resources, a standby. Syntax, privileges,
/// missing tables and violated constraints are not.
fn is_temporary(state: Option<&str>) -> bool {
    let state = state.unwrap_or_default();
    match state.get(..2).unwrap_or_default() {
        // Connection, transaction rollback (40001 serialization, 40P01 deadlock), resources, object in use (55P03 lock
        // timeout), operator intervention (57014 statement timeout, 57P01 shutdown), system error.
        "08" | "40" | "53" | "55" | "57" | "58" => true,
        // 25006: connected to a standby. 25P03: idle in transaction for too long.
        _ => matches!(state, "25006" | "25P03"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_states_are_classified() {
        for state in ["08006", "40001", "40P01", "53300", "55P03", "57014", "57P01", "58030", "25006"] {
            assert!(is_temporary(Some(state)), "{state}");
        }
        for state in ["28P01", "3D000", "42501", "42P01", "42601", "22003", "23514", "25P02", ""] {
            assert!(!is_temporary(Some(state)), "{state}");
        }
        assert!(!is_temporary(None));
    }
}
