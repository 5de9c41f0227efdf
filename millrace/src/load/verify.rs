//! Reads the hours from the query service and compares them with the oracle.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::ACCEPT;
use http_body_util::Full;
use tokio::time::{Instant, sleep};

use super::oracle::{Expected, Numbers};
use crate::client::{Connection, Target};

/// Pause between two readings of all hours.
const READ_INTERVAL: Duration = Duration::from_millis(250);

/// Reads hours from the query service.
#[derive(Debug)]
pub(crate) struct Hours<'a> {
    target: &'a Target,
    timeout: Duration,
    connection: Option<Connection>,
}

/// The numbers of some hours, each by its first ms, or the reason why one is missing.
pub(crate) type Reading = BTreeMap<u64, Result<Numbers, String>>;

impl<'a> Hours<'a> {
    /// A reader of one query service.
    pub(crate) fn new(target: &'a Target, timeout: Duration) -> Self {
        Self { target, timeout, connection: None }
    }

    /// The numbers before the load: two equal readings in a row, so that no event of an earlier load is still in flight.
    pub(crate) async fn baseline(&mut self, hours: &[u64], within: Duration) -> Result<BTreeMap<u64, Numbers>, String> {
        let deadline = Instant::now() + within;
        let mut last: Option<BTreeMap<u64, Numbers>> = None;
        loop {
            let why = match self.all(hours).await.into_iter().map(|(hour, got)| Ok((hour, got?))).collect() {
                Ok(now) if last.as_ref() == Some(&now) => return Ok(now),
                Ok(now) => {
                    last = Some(now);
                    "the hours still change: another writer is active".to_owned()
                }
                Err(why) => why,
            };
            if Instant::now() + READ_INTERVAL > deadline {
                return Err(why);
            }
            sleep(READ_INTERVAL).await;
        }
    }

    /// Reads until every hour is as expected, twice in a row, so that an event counted twice has time to appear; or until the
    /// time is over. Returns the last reading.
    pub(crate) async fn settle(&mut self, expected: &BTreeMap<u64, Expected>, within: Duration) -> Reading {
        let deadline = Instant::now() + within;
        let hours: Vec<u64> = expected.keys().copied().collect();
        let mut last_was_right = false;
        loop {
            let reading = self.all(&hours).await;
            let right = is_right(expected, &reading);
            if (right && last_was_right) || Instant::now() + READ_INTERVAL > deadline {
                return reading;
            }
            // The second reading comes later than the services' own delays.
            sleep(if right { READ_INTERVAL * 4 } else { READ_INTERVAL }).await;
            last_was_right = right;
        }
    }

    async fn all(&mut self, hours: &[u64]) -> Reading {
        let mut reading = Reading::new();
        for &hour in hours {
            let got = self.hour(hour).await;
            let failed = got.is_err();
            reading.insert(hour, got);
            if failed {
                // One failure is enough; the other hours must not wait for a timeout each.
                break;
            }
        }
        reading
    }

    async fn hour(&mut self, start_ms: u64) -> Result<Numbers, String> {
        let target = self.target;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.open(self.timeout).await.map_err(|e| format!("{target}: {e}"))?,
        };
        let request = http::Request::get(format!("/analytics?timestamp={start_ms}")).header(ACCEPT, "text/plain");
        let request = request.body(Full::default()).map_err(|e| e.to_string())?;
        let response = connection.exchange(request, self.timeout).await;
        let response = response.map_err(|e| format!("{target}: {e}"))?;
        self.connection = Some(connection).filter(Connection::is_reusable);
        match response.status {
            200 => parse(&response.body).ok_or_else(|| format!("{target}: the body is not three lines")),
            _ => Err(format!("{target}: status {}", response.summary())),
        }
    }
}

/// Whether every expected hour was read and is right.
pub(crate) fn is_right(expected: &BTreeMap<u64, Expected>, reading: &Reading) -> bool {
    expected.iter().all(|(hour, expected)| matches!(reading.get(hour), Some(Ok(got)) if expected.allows(*got)))
}

fn parse(body: &[u8]) -> Option<Numbers> {
    let mut lines = std::str::from_utf8(body).ok()?.lines();
    let mut number = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(',')?.parse().ok();
    let (unique_users, clicks, impressions) = (number("unique_users")?, number("clicks")?, number("impressions")?);
    Some(Numbers { unique_users, clicks, impressions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_three_lines_strictly() {
        let numbers = Numbers { unique_users: 1, clicks: 2, impressions: 3 };
        assert_eq!(parse(b"unique_users,1\nclicks,2\nimpressions,3\n"), Some(numbers));
        for bad in [
            "",
            "unique_users,1\n",
            "clicks,2\nunique_users,1\nimpressions,3\n",
            "unique_users,x\nclicks,2\nimpressions,3",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_hour_without_a_reading_is_not_right() {
        let expected = BTreeMap::from([(0, Expected::default())]);
        assert!(is_right(&expected, &Reading::from([(0, Ok(Numbers::default()))])));
        assert!(!is_right(&expected, &Reading::from([(0, Err("unavailable".into()))])));
        assert!(!is_right(&expected, &Reading::new()));
        let one = Numbers { clicks: 1, ..Numbers::default() };
        assert!(!is_right(&expected, &Reading::from([(0, Ok(one))])));
    }
}
