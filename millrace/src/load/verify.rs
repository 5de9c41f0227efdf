//! Reads the hours back and compares them with the oracle.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Target;
use super::client::Connection;
use super::oracle::{Expected, Numbers};

/// Between two looks at all hours.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Reads hours from the query service.
#[derive(Debug)]
pub(crate) struct Hours<'a> {
    target: &'a Target,
    timeout: Duration,
    connection: Option<Connection>,
}

/// The three numbers of some hours, each by its first ms; or why one could not be read.
pub(crate) type Reading = BTreeMap<u64, Result<Numbers, String>>;

impl<'a> Hours<'a> {
    /// A reader of one query service.
    pub(crate) fn new(target: &'a Target, timeout: Duration) -> Self {
        Self { target, timeout, connection: None }
    }

    /// What the hours hold before the load: two equal readings in a row, so that nothing of an earlier load is still on
    /// its way.
    pub(crate) async fn baseline(&mut self, hours: &[u64], within: Duration) -> Result<BTreeMap<u64, Numbers>, String> {
        let deadline = Instant::now() + within;
        let mut last: Option<BTreeMap<u64, Numbers>> = None;
        loop {
            let why = match self.all(hours).await.into_iter().map(|(hour, got)| Ok((hour, got?))).collect() {
                Ok(now) if last.as_ref() == Some(&now) => return Ok(now),
                Ok(now) => {
                    last = Some(now);
                    "the hours still change: something else is writing to them".to_owned()
                }
                Err(why) => why,
            };
            if Instant::now() + LOOK_EVERY > deadline {
                return Err(why);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Looks until every hour is as expected, twice in a row, so that an event counted twice has time to show; or until
    /// the time is over. Returns the last reading.
    pub(crate) async fn settle(&mut self, expected: &BTreeMap<u64, Expected>, within: Duration) -> Reading {
        let deadline = Instant::now() + within;
        let hours: Vec<u64> = expected.keys().copied().collect();
        let mut last_was_right = false;
        loop {
            let reading = self.all(&hours).await;
            let right = is_right(expected, &reading);
            if (right && last_was_right) || Instant::now() + LOOK_EVERY > deadline {
                return reading;
            }
            // The second look comes later than the services' own delays.
            sleep(if right { LOOK_EVERY * 4 } else { LOOK_EVERY }).await;
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
                // One failure is the news; hours that were not asked must not wait for a time-out each.
                break;
            }
        }
        reading
    }

    async fn hour(&mut self, start_ms: u64) -> Result<Numbers, String> {
        let authority = &self.target.authority;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(authority, self.timeout).await.map_err(|e| format!("http://{authority}: {e}"))?,
        };
        let request =
            format!("GET /analytics?timestamp={start_ms} HTTP/1.1\r\nhost: {authority}\r\naccept: text/plain\r\n\r\n");
        let answer = connection
            .exchange(request.as_bytes(), self.timeout)
            .await
            .map_err(|_| format!("http://{authority} gave no answer"))?;
        let numbers = match answer.status {
            200 => parse(answer.body).ok_or_else(|| format!("http://{authority} did not answer with three lines")),
            status => Err(format!("http://{authority} answered {status}{}", code_of(answer.body))),
        };
        if answer.reusable {
            self.connection = Some(connection);
        }
        numbers
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

fn code_of(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let code = problem.as_ref().and_then(|problem| problem.get("code")?.as_str());
    code.map_or_else(String::new, |code| format!(" ({})", code.chars().take(64).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_lines_are_read_strictly() {
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
    fn an_hour_that_could_not_be_read_is_not_right() {
        let expected = BTreeMap::from([(0, Expected::default())]);
        assert!(is_right(&expected, &Reading::from([(0, Ok(Numbers::default()))])));
        assert!(!is_right(&expected, &Reading::from([(0, Err("away".into()))])));
        assert!(!is_right(&expected, &Reading::new()));
        let one = Numbers { clicks: 1, ..Numbers::default() };
        assert!(!is_right(&expected, &Reading::from([(0, Ok(one))])));
    }
}
