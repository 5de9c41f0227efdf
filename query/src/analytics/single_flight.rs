//! Single flight: concurrent reads of the same hour share one.

use std::future::Future;
use std::sync::Arc;

use millrace_contracts::Hour;
use quick_cache::sync::Cache;

use super::current::HourResult;

/// Bound of the results that are held for requests to pick up. Reads in flight are bounded by the requests in flight.
const CAPACITY: usize = 1_024;

/// The reads in flight, by hour.
///
/// A result, a failure included, is removed once its read has ended: caching is left to `stores`, which guarantees monotonic
/// reads.
pub(crate) struct SingleFlight(Cache<Hour, Arc<HourResult>>);

impl Default for SingleFlight {
    fn default() -> Self {
        Self(Cache::new(CAPACITY))
    }
}

impl SingleFlight {
    /// The result of the read of `hour` that is in flight, else of `read`. When the client whose request reads
    /// disconnects, the next request that waits reads.
    pub(crate) async fn join(&self, hour: Hour, read: impl Future<Output = HourResult>) -> Arc<HourResult> {
        let guard = match self.0.get_value_or_guard_async(&hour).await {
            Ok(result) => return result,
            Err(guard) => guard,
        };
        let result = Arc::new(read.await);
        // Fails only if another request replaced the flight, and then that one serves its own result.
        let _ = guard.insert(Arc::clone(&result));
        self.0.remove_if(&hour, |landed| Arc::ptr_eq(landed, &result));
        result
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::stores::port::ReadError;

    const HOUR: Hour = Hour::from_index(7);

    fn rebuilding() -> std::future::Ready<HourResult> {
        std::future::ready(Err(ReadError::Rebuilding))
    }

    #[test]
    fn a_waiting_request_takes_over_from_one_that_is_dropped() {
        let flights = SingleFlight::default();
        let mut first = Box::pin(flights.join(HOUR, std::future::pending()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(flights.join(HOUR, rebuilding()));
        assert!(second.as_mut().now_or_never().is_none(), "the first reads");
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[test]
    fn a_result_is_not_cached() {
        let flights = SingleFlight::default();
        for _ in 0..2 {
            let mut reads = 0;
            let read = async {
                reads += 1;
                rebuilding().await
            };
            assert!(flights.join(HOUR, read).now_or_never().is_some());
            assert_eq!(reads, 1);
            assert!(flights.0.is_empty());
        }
    }
}
