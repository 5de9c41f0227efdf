//! The log behind the command services, as one of them identifies it.

use std::time::Duration;

use http_body_util::Full;
use millrace_base::Backoff;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::Stop;
use super::checkpoint::Destination;
use crate::client::Target;

/// Pauses between attempts.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Identified {
    id: String,
}

/// Asks one service after the other until one identifies the log, or the patience ends.
pub(super) async fn destination(
    services: &[Target],
    timeout: Duration,
    patience: Duration,
) -> Result<Destination, Stop> {
    let deadline = Instant::now() + patience;
    let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
    for service in services.iter().cycle() {
        let (why, after) = match identify(service, timeout).await? {
            Ok(log) => return Ok(Destination { log, service: service.to_string() }),
            Err(retry) => retry,
        };
        let pause = backoff.next_pause().max(after);
        if Instant::now() + pause > deadline {
            return Err(Stop::GaveUp(patience, why));
        }
        sleep(pause).await;
    }
    Err(Stop::Refused("there is none".into()))
}

/// The id of the log; inside it, why there is none yet, and the earliest time for another attempt.
async fn identify(service: &Target, timeout: Duration) -> Result<Result<String, (String, Duration)>, Stop> {
    let again = |why: String, after| Ok(Err((format!("{service}: {why}"), after)));
    let mut connection = match service.open(timeout).await {
        Ok(connection) => connection,
        Err(error) => return again(error.to_string(), Duration::ZERO),
    };
    let request = http::Request::get("/log").body(Full::default()).map_err(|e| Stop::Broken(e.to_string()))?;
    let response = match connection.exchange(request, timeout).await {
        Ok(response) => response,
        Err(error) => return again(error.to_string(), Duration::ZERO),
    };
    let answer = format!("status {}", response.summary());
    match response.status {
        200 => match serde_json::from_slice::<Identified>(&response.body) {
            Ok(Identified { id }) => Ok(Ok(id)),
            Err(_) => Err(Stop::Refused(format!("{service}: it does not identify its log"))),
        },
        429 | 503 => again(answer, response.retry_after.unwrap_or_default()),
        _ => Err(Stop::Refused(format!("{service}: {answer}"))),
    }
}
