//! Frames that were handed to the log together.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use millrace_log::{Outcome, Receipts, RefusalCause};

use super::replies::Settled;
use super::reply::Nack;

/// Frames whose outcome is to come, in order.
pub(crate) enum Round {
    Appended { receipts: Receipts, frames: usize },
    Refused { frames: usize, cause: RefusalCause },
}

/// How the frames of the oldest round ended.
pub(crate) async fn next_outcomes(rounds: &mut VecDeque<Round>) -> Vec<Settled> {
    let outcomes = poll_fn(|cx| match rounds.front_mut() {
        None => Poll::Pending,
        Some(Round::Refused { frames, cause }) => Poll::Ready(vec![settled(Outcome::Refused(*cause)); *frames]),
        Some(Round::Appended { receipts, frames }) => {
            Pin::new(receipts).poll(cx).map(|outcomes| outcomes.into_iter().take(*frames).map(settled).collect())
        }
    })
    .await;
    rounds.pop_front();
    outcomes
}

fn settled(outcome: Outcome) -> Settled {
    match outcome {
        Outcome::Acknowledged(_) => Settled::Stored,
        Outcome::Unknown => Settled::Unknown,
        Outcome::Refused(cause) => Settled::Refused(match cause {
            RefusalCause::TooLarge => Nack::TooLarge,
            RefusalCause::DiskFull => Nack::DiskFull,
            RefusalCause::Full | RefusalCause::ShuttingDown | RefusalCause::Unavailable => Nack::Unavailable,
        }),
    }
}
