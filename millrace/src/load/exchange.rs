//! One request with some events, and the verdict of its response on each of them.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Connection, ExchangeError, Request, Response, Verdict, verdict};

/// Longest Retry-After that a sender follows.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Pause without a Retry-After, and between attempts to connect.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The result of one request.
pub(crate) struct Exchange {
    verdicts: Verdicts,
    /// How long to wait before the next request.
    pub(crate) pause: Duration,
    /// When the response arrived, if it did.
    pub(crate) answered: Option<Instant>,
}

enum Verdicts {
    All(Verdict),
    Each(Vec<Verdict>),
}

impl Exchange {
    /// The verdict on the event with this index in the request.
    pub(crate) fn verdict(&self, index: usize) -> Verdict {
        match &self.verdicts {
            Verdicts::All(verdict) => *verdict,
            Verdicts::Each(verdicts) => verdicts[index],
        }
    }

    fn without_response(verdict: Verdict) -> Self {
        Self { verdicts: Verdicts::All(verdict), pause: PAUSE, answered: None }
    }
}

/// Sends a request with `events` events, as a batch or a single one. Drops a connection that accepts no further request.
pub(crate) async fn exchange(
    connection: &mut Option<Connection>,
    request: Option<Request>,
    events: usize,
    batch: bool,
    within: Duration,
) -> Exchange {
    let (Some(mut open), Some(request)) = (connection.take(), request) else {
        return Exchange::without_response(Verdict::Retriable);
    };
    match open.exchange(request, within).await {
        Err(ExchangeError::Unsent) => Exchange::without_response(Verdict::Retriable),
        Err(_) => Exchange::without_response(Verdict::Unknown),
        Ok(response) => {
            *connection = Some(open).filter(Connection::is_reusable);
            let pause = response.retry_after.unwrap_or(PAUSE).min(MAX_PAUSE);
            Exchange { verdicts: verdicts(&response, events, batch), pause, answered: Some(Instant::now()) }
        }
    }
}

fn verdicts(response: &Response, events: usize, batch: bool) -> Verdicts {
    let listed = batch && (matches!(response.status, 200 | 202 | 207) || response.status >= 400);
    match listed.then(|| verdict::items(&response.body, events)).flatten() {
        Some(items) => Verdicts::Each(items.iter().map(verdict::Item::verdict).collect()),
        // Some events of a 207 are not stored; without the list, the outcome of each is unknown.
        None if response.status == 207 => Verdicts::All(Verdict::Unknown),
        None => Verdicts::All(verdict::of_request(response.status, &response.body)),
    }
}
