//! Connecting to Redis, and whether it is one that can be used.

use millrace_contracts::StoreError;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, InfoDict, RedisResult};
use tracing::warn;

use super::RedisConfig;
use super::error::classify;

/// The oldest version that knows `SET .. PXAT`.
const OLDEST: (u32, u32) = (6, 2);

/// One multiplexed connection that connects, and connects again, by itself. While the server is away, commands fail at once:
/// whoever reads has another store to ask, and whoever writes pauses by itself.
pub(super) fn open(config: &RedisConfig) -> Result<ConnectionManager, StoreError> {
    let client = Client::open(config.url.expose()).map_err(classify)?;
    let manager = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(config.connect_timeout.0))
        .set_response_timeout(Some(config.response_timeout.0))
        .set_number_of_retries(0);
    ConnectionManager::new_lazy_with_config(client, manager).map_err(classify)
}

/// Refuses a Redis that would lose keys inside the window. What the server keeps to itself is warned about.
pub(super) async fn check(mut connection: ConnectionManager) -> Result<(), StoreError> {
    let info: InfoDict = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(classify)?;
    let version: String = info.get("redis_version").unwrap_or_default();
    match parse_version(&version) {
        Some(found) if found < OLDEST => {
            return Err(StoreError::stop(format!("redis: version {version} is too old, 6.2 or newer is needed")));
        }
        Some(_) => {}
        None => warn!("redis does not say its version; 6.2 or newer is needed"),
    }
    match setting(&mut connection, "maxmemory-policy").await? {
        Some(policy) if policy != "noeviction" => {
            return Err(StoreError::stop(format!(
                "redis: maxmemory-policy is {policy}, but only noeviction keeps the hours of the window"
            )));
        }
        Some(_) => {}
        None => warn!("redis does not let its configuration be read: make sure that maxmemory-policy is noeviction"),
    }
    let save = setting(&mut connection, "save").await?;
    let append_only = setting(&mut connection, "appendonly").await?;
    if save.as_deref() == Some("") && append_only.as_deref() == Some("no") {
        warn!("redis has no persistence: after its restart the live hours are rebuilt from the log");
    }
    Ok(())
}

/// A server setting; `None` when it may not be read, as managed services have it.
async fn setting(connection: &mut ConnectionManager, name: &str) -> Result<Option<String>, StoreError> {
    let reply: RedisResult<Vec<String>> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
    match reply {
        Ok(pair) => Ok(pair.into_iter().nth(1)),
        Err(error) if error.is_io_error() => Err(classify(error)),
        Err(_) => Ok(None),
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse_version("7.0.15"), Some((7, 0)));
        assert!(parse_version("6.0.16").unwrap() < OLDEST);
        assert!(parse_version("10.1").unwrap() > OLDEST);
        assert_eq!(parse_version(""), None);
    }
}
