//! A circuit breaker around calls to something that may be unavailable: each call is bounded in time, and while too many
//! of the last ones failed, no call is made.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge};
use recloser::{AsyncRecloser, Recloser};

/// Share of failed calls at which the circuit opens.
const ERROR_RATE: f32 = 0.5;

/// When a circuit opens and closes.
#[derive(Debug, Clone, Copy)]
pub struct BreakerConfig {
    /// Number of calls whose outcomes decide: the circuit opens when half of them failed.
    pub window: usize,
    /// How long the circuit stays open before one call tries again.
    pub reset_timeout: Duration,
    /// Longest duration of a call; a longer one fails.
    pub call_timeout: Duration,
}

/// Where a breaker reports its state.
pub struct BreakerMetrics {
    /// 1 while the circuit is open.
    pub open: Gauge,
    /// Calls that failed or timed out.
    pub errors: Counter,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError<E> {
    /// The circuit is open; no call was made.
    #[error("the circuit is open")]
    Open,
    /// No result within the call timeout.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The call failed.
    #[error("{0}")]
    Failed(E),
}

/// The circuit breaker of one target.
pub struct Breaker {
    target: &'static str,
    circuit: AsyncRecloser,
    call_timeout: Duration,
    metrics: BreakerMetrics,
    /// The state that was last logged and reported.
    open: AtomicBool,
}

impl Breaker {
    /// A closed circuit. `target` names what is called in log messages.
    pub fn new(target: &'static str, config: BreakerConfig, metrics: BreakerMetrics) -> Self {
        let circuit = Recloser::custom()
            .error_rate(ERROR_RATE)
            .closed_len(config.window)
            .half_open_len(1)
            .open_wait(config.reset_timeout)
            .build();
        metrics.open.set(0.0);
        Self {
            target,
            circuit: circuit.into(),
            call_timeout: config.call_timeout,
            metrics,
            open: AtomicBool::new(false),
        }
    }

    /// Makes a call unless the circuit is open.
    ///
    /// # Errors
    /// When the call fails, exceeds the call timeout, or is not made. Counted and logged here.
    pub async fn call<T, E: Display>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, CallError<E>> {
        let bounded = async {
            match tokio::time::timeout(self.call_timeout, call).await {
                Ok(result) => result.map_err(CallError::Failed),
                Err(_) => Err(CallError::Timeout(self.call_timeout)),
            }
        };
        match self.circuit.call(bounded).await {
            Ok(value) => {
                self.report(false);
                Ok(value)
            }
            Err(recloser::Error::Rejected) => {
                self.report(true);
                Err(CallError::Open)
            }
            Err(recloser::Error::Inner(error)) => {
                self.metrics.errors.increment(1);
                tracing::debug!(target = self.target, %error, "call failed");
                Err(error)
            }
        }
    }

    /// Reports a change of state.
    fn report(&self, open: bool) {
        // The load alone is enough for nearly every call.
        if self.open.load(Ordering::Relaxed) == open || self.open.swap(open, Ordering::Relaxed) == open {
            return;
        }
        self.metrics.open.set(if open { 1.0 } else { 0.0 });
        if open {
            tracing::warn!(target = self.target, "circuit opened: too many calls fail");
        } else {
            tracing::info!(target = self.target, "circuit closed: calls succeed again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        let config =
            BreakerConfig { window: 2, reset_timeout: Duration::from_mins(1), call_timeout: Duration::from_millis(20) };
        Breaker::new("test", config, BreakerMetrics { open: Gauge::noop(), errors: Counter::noop() })
    }

    #[tokio::test]
    async fn opens_when_calls_fail_and_makes_no_call_while_open() {
        let breaker = breaker();
        assert_eq!(breaker.call(async { Ok::<_, String>(1) }).await, Ok(1));
        let fail = || breaker.call(async { Err::<(), _>("broken".to_owned()) });
        while fail().await == Err(CallError::Failed("broken".into())) {}
        assert_eq!(fail().await, Err(CallError::Open));
        assert!(breaker.open.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn fails_a_call_that_takes_too_long() {
        let never = breaker().call(std::future::pending::<Result<(), String>>()).await;
        assert_eq!(never, Err(CallError::Timeout(Duration::from_millis(20))));
    }
}
