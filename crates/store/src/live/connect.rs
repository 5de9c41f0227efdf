//! The connection to Redis, and the check of its version and configuration.

use millrace_contracts::StoreError;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, InfoDict, RedisResult, TlsCertificates};
use tracing::warn;

use super::RedisConfig;
use super::error::classify;

/// The oldest version with `SET .. PXAT`.
const MIN_VERSION: (u32, u32) = (6, 2);

/// One multiplexed connection that connects and reconnects by itself. While the server is unreachable, commands fail at
/// once: a reader falls back to another store, and a writer has its own backoff.
pub(super) fn open(config: &RedisConfig) -> Result<ConnectionManager, StoreError> {
    let client = client(config)?;
    let manager = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(config.connect_timeout.0))
        .set_response_timeout(Some(config.response_timeout.0))
        .set_number_of_retries(0);
    ConnectionManager::new_lazy_with_config(client, manager).map_err(classify)
}

fn client(config: &RedisConfig) -> Result<Client, StoreError> {
    let (url, file) = (config.url.expose(), &config.ca_file);
    if file.as_os_str().is_empty() {
        return Client::open(url).map_err(classify);
    }
    let unusable = |why: String| StoreError::stop(format!("redis.ca_file {}: {why}", file.display()));
    let root_cert = std::fs::read(file).map_err(|error| unusable(error.to_string()).because(error))?;
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
    Client::build_with_tls(url, certificates).map_err(|error| unusable(error.to_string()).because(error))
}

/// Refuses a Redis that would lose keys inside the window. Logs a warning if the server does not reveal its settings.
pub(super) async fn check(mut connection: ConnectionManager) -> Result<(), StoreError> {
    let info: InfoDict = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(classify)?;
    let version: String = info.get("redis_version").unwrap_or_default();
    match parse_version(&version) {
        Some(found) if found < MIN_VERSION => {
            return Err(StoreError::stop(format!("redis: version {version} is too old; 6.2 or newer is required")));
        }
        Some(_) => {}
        None => warn!("redis does not report its version; 6.2 or newer is required"),
    }
    match setting(&mut connection, "maxmemory-policy").await? {
        Some(policy) if policy != "noeviction" => {
            return Err(StoreError::stop(format!(
                "redis: maxmemory-policy is {policy}, but only noeviction keeps the hours of the window"
            )));
        }
        Some(_) => {}
        None => warn!("cannot read the configuration of redis: make sure that maxmemory-policy is noeviction"),
    }
    let save = setting(&mut connection, "save").await?;
    let append_only = setting(&mut connection, "appendonly").await?;
    if save.as_deref() == Some("") && append_only.as_deref() == Some("no") {
        warn!("redis has no persistence: each restart of it causes a rebuild of the live hours from the log");
    }
    Ok(())
}

/// A server setting; `None` if the server does not permit reading it, as with managed services.
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
        assert!(parse_version("6.0.16").unwrap() < MIN_VERSION);
        assert!(parse_version("10.1").unwrap() > MIN_VERSION);
        assert_eq!(parse_version(""), None);
    }
}
