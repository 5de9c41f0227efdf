//! One request of some events, and what its answer says of each of them.

use std::time::Duration;

use tokio::time::Instant;

use super::answer::{self, Verdict};
use super::client::{Connection, Lost};

/// The longest pause that a server's Retry-After is followed for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause when the server names none, and between attempts to connect.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// How one request ended.
pub(crate) struct Ended {
    verdicts: Verdicts,
    /// How long to wait before the next.
    pub(crate) pause: Duration,
    /// When the answer was there, if one came.
    pub(crate) answered: Option<Instant>,
}

enum Verdicts {
    All(Verdict),
    Each(Vec<Verdict>),
}

impl Ended {
    /// What the answer says of the event with this index in the request.
    pub(crate) fn verdict(&self, index: usize) -> Verdict {
        match &self.verdicts {
            Verdicts::All(verdict) => *verdict,
            Verdicts::Each(verdicts) => verdicts[index],
        }
    }
}

/// Sends a request of so many events, as a batch or as a single one, and takes the answer. The connection is gone after it
/// if it takes no other.
pub(crate) async fn exchange(
    connection: &mut Option<Connection>,
    request: &[u8],
    events: usize,
    batch: bool,
    within: Duration,
) -> Ended {
    let all = |verdict, pause| Ended { verdicts: Verdicts::All(verdict), pause, answered: None };
    let Some(mut open) = connection.take() else { return all(Verdict::Later, PAUSE) };
    let ended = match open.exchange(request, within).await {
        Err(Lost::Unsent) => return all(Verdict::Later, PAUSE),
        Err(Lost::Unanswered) => return all(Verdict::Unknown, PAUSE),
        Ok(answer) => {
            let listed = batch && (matches!(answer.status, 200 | 202 | 207) || answer.status >= 400);
            let verdicts = match listed.then(|| answer::of_batch(answer.body, events)).flatten() {
                Some(verdicts) => Verdicts::Each(verdicts),
                // Some of a 207 is not stored, and without its list nobody knows what.
                None if answer.status == 207 => Verdicts::All(Verdict::Unknown),
                None => Verdicts::All(answer::of_request(answer.status, answer.body)),
            };
            let pause = answer.retry_after.map_or(PAUSE, Duration::from_secs).min(LONGEST_PAUSE);
            (Ended { verdicts, pause, answered: Some(Instant::now()) }, answer.reusable)
        }
    };
    *connection = Some(open).filter(|_| ended.1);
    ended.0
}
