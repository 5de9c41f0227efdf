//! Reads the read models without the product's code: Redis and PostgreSQL through their clients.

use std::collections::HashMap;
use std::time::Duration;

use redis::Commands as _;
use sqlx::{ConnectOptions as _, Row as _};
use tokio::runtime::Builder;

use crate::fold::{Counts, Hours};

const WITHIN: Duration = Duration::from_secs(10);

/// The counts of every hour in PostgreSQL, summed over partitions.
pub(crate) fn postgres(url: &str, schema: &str) -> Result<Hours, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let read = async {
        let options: sqlx::postgres::PgConnectOptions = url.parse()?;
        let mut connection = options.connect().await?;
        // The name is the harness's own, made of letters, digits and underscores.
        let text = format!(
            "SELECT (extract(epoch FROM hour) / 3600)::bigint AS hour, sum(unique_users)::bigint AS users, \
             sum(clicks)::bigint AS clicks, sum(impressions)::bigint AS impressions \
             FROM {schema}.hourly GROUP BY 1"
        );
        sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut connection).await
    };
    let rows = runtime.block_on(read).map_err(|error| error.to_string())?;
    let mut hours = Hours::new();
    for row in rows {
        let number = |name: &str| -> Result<u64, String> {
            let number: i64 = row.try_get(name).map_err(|error| error.to_string())?;
            u64::try_from(number).map_err(|_| format!("{name} is {number}"))
        };
        let counts = Counts { users: number("users")?, clicks: number("clicks")?, impressions: number("impressions")? };
        hours.insert(number("hour")?, counts);
    }
    Ok(hours)
}

/// The counts of every live hour in Redis in its partition's current build, summed over partitions.
pub(crate) fn redis(url: &str, stem: &str) -> Result<Hours, String> {
    type Found = (String, Option<String>, Option<String>);
    let read = || -> redis::RedisResult<Vec<Found>> {
        let mut connection = connect(url)?;
        let keys: Vec<String> = connection.keys(format!("{stem}a:*:hour:*"))?;
        let mut found = Vec::new();
        let mut builds: HashMap<String, Option<String>> = HashMap::new();
        for key in keys {
            let tag = key.split(":hour:").next().unwrap_or_default().to_owned();
            if !builds.contains_key(&tag) {
                builds.insert(tag.clone(), connection.hget(format!("{tag}:pos"), "build")?);
            }
            let value = connection.get(&key)?;
            found.push((key, value, builds[&tag].clone()));
        }
        Ok(found)
    };
    let mut hours = Hours::new();
    for (key, value, build) in read().map_err(|error| error.to_string())? {
        let Some(value) = value else { continue };
        let parts: Vec<&str> = value.split(':').collect();
        let [_, _, clicks, impressions, users, _, of] = parts[..] else { return Err(format!("{key}: {value}")) };
        if build.as_deref() != Some(of) {
            continue;
        }
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{key}: {value}"));
        let counts = Counts { users: number(users)?, clicks: number(clicks)?, impressions: number(impressions)? };
        *hours.entry(hour(&key).ok_or_else(|| format!("{key} names no hour"))?).or_default() += counts;
    }
    Ok(hours)
}

/// A connection with timeouts.
fn connect(url: &str) -> redis::RedisResult<redis::Connection> {
    let connection = redis::Client::open(url)?.get_connection_with_timeout(WITHIN)?;
    connection.set_read_timeout(Some(WITHIN))?;
    connection.set_write_timeout(Some(WITHIN))?;
    Ok(connection)
}

/// Runs one command on Redis.
pub(crate) fn redis_do(url: &str, command: &[&str]) -> Result<redis::Value, String> {
    let run = || {
        let mut connection = connect(url)?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    };
    run().map_err(|error: redis::RedisError| error.to_string())
}

/// The hour at the end of a key, `2026-11-21T08Z`.
fn hour(key: &str) -> Option<u64> {
    let text = key.rsplit_once(":hour:")?.1.strip_suffix('Z')?;
    let time: jiff::Timestamp = format!("{text}:00:00Z").parse().ok()?;
    u64::try_from(time.as_second() / 3_600).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn parses_the_hour_of_a_key() {
        assert_eq!(super::hour("x:a:{3}:hour:1970-01-02T01Z"), Some(25));
        assert_eq!(super::hour("x:a:{3}:hour:nonsense"), None);
    }
}
