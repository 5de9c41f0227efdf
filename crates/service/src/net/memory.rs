//! A budget of bytes that everything under way shares.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A budget of bytes. Cheap to clone; every clone is the same budget.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Semaphore>);

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct MemoryPermit(OwnedSemaphorePermit);

impl MemoryBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let permits = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(permits)))
    }

    /// Takes `bytes` at once, or returns `None` if fewer are left: nobody waits for memory.
    pub fn try_acquire(&self, bytes: usize) -> Option<MemoryPermit> {
        let permits = u32::try_from(bytes).ok()?;
        self.0.clone().try_acquire_many_owned(permits).ok().map(MemoryPermit)
    }
}

impl MemoryPermit {
    /// Adds the bytes of another permit of the same budget.
    pub fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
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
