//! A budget of bytes that everything under way shares.

use std::fmt;
use std::sync::Arc;

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget of bytes. Cheap to clone; every clone is the same budget.
#[derive(Clone)]
pub struct MemoryBudget {
    semaphore: Arc<Semaphore>,
    in_use: Gauge,
}

/// Bytes taken from a budget; dropping it gives them back.
pub struct MemoryPermit {
    /// Empty once merged into another one.
    permit: Option<OwnedSemaphorePermit>,
    in_use: Gauge,
}

impl MemoryBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(permits)), in_use: Gauge::noop() }
    }

    /// Reports the bytes in use.
    #[must_use]
    pub fn with_gauge(self, in_use: Gauge) -> Self {
        in_use.set(0.0);
        Self { in_use, ..self }
    }

    /// Takes `bytes` at once, or returns `None` if fewer are left: nobody waits for memory.
    pub fn try_acquire(&self, bytes: usize) -> Option<MemoryPermit> {
        let permits = u32::try_from(bytes).ok()?;
        let permit = self.semaphore.clone().try_acquire_many_owned(permits).ok()?;
        self.in_use.increment(f64::from(permits));
        Some(MemoryPermit { permit: Some(permit), in_use: self.in_use.clone() })
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget").field("available", &self.semaphore.available_permits()).finish_non_exhaustive()
    }
}

impl MemoryPermit {
    /// Adds the bytes of another permit of the same budget.
    pub fn merge(&mut self, mut other: Self) {
        match (&mut self.permit, other.permit.take()) {
            (Some(permit), Some(more)) => permit.merge(more),
            (permit, more) => *permit = permit.take().or(more),
        }
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        if let Some(permit) = &self.permit {
            self.in_use.decrement(permit.num_permits() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_share_the_budget_and_return_their_bytes() {
        let budget = MemoryBudget::new(10);
        let mut permit = budget.try_acquire(4).unwrap();
        permit.merge(budget.try_acquire(5).unwrap());
        assert!(budget.try_acquire(2).is_none());
        drop(permit);
        assert!(budget.try_acquire(10).is_some());
    }
}
