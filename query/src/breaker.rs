//! A store behind its circuit breaker: a read is bounded in time, and a store that keeps failing is left alone for a while.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_contracts::Next;
use millrace_store::StoreError;
use recloser::{AsyncRecloser, Error, Recloser};

use crate::{Config, Tier, metrics};

/// Half of the last reads.
const ERROR_RATE: f32 = 0.5;

/// The breaker of one store.
pub(crate) struct Breaker {
    tier: Tier,
    recloser: AsyncRecloser,
    timeout: std::time::Duration,
    /// What was told last: to logs and metrics, on changes only.
    open: AtomicBool,
}

impl Breaker {
    pub(crate) fn new(tier: Tier, config: &Config) -> Self {
        let recloser = Recloser::custom()
            .error_rate(ERROR_RATE)
            .closed_len(config.breaker_calls)
            .half_open_len(1)
            .open_wait(config.breaker_pause.0)
            .build();
        metrics::breaker(tier, false);
        Self { tier, recloser: recloser.into(), timeout: config.store_timeout.0, open: AtomicBool::new(false) }
    }

    /// What the store answers; `None` when it fails, is late, or is not asked. Counted here.
    pub(crate) async fn ask<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        let bounded = async {
            match tokio::time::timeout(self.timeout, read).await {
                Ok(answer) => answer,
                Err(_) => Err(StoreError { next: Next::Retry, why: format!("no answer within {:?}", self.timeout) }),
            }
        };
        match self.recloser.call(bounded).await {
            Ok(answer) => {
                self.tell(false);
                Some(answer)
            }
            Err(Error::Rejected) => {
                self.tell(true);
                None
            }
            Err(Error::Inner(error)) => {
                metrics::store_error(self.tier);
                tracing::debug!(store = self.tier.as_str(), error = error.why, "a read model does not answer");
                None
            }
        }
    }

    fn tell(&self, open: bool) {
        if self.open.load(Ordering::Relaxed) == open || self.open.swap(open, Ordering::Relaxed) == open {
            return;
        }
        metrics::breaker(self.tier, open);
        let store = self.tier.as_str();
        if open {
            tracing::warn!(store, "a read model keeps failing and is left alone for a while");
        } else {
            tracing::info!(store, "a read model answers again");
        }
    }
}
