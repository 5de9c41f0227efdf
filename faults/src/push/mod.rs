//! What row `push` needs: endpoints that break in every way an endpoint can, and the oracle of what reached them.

mod deliveries;
mod endpoints;
mod receiver;
mod request;
mod webhook;

pub(crate) use endpoints::{ENDPOINTS, SLOW_ENDPOINTS, headers, subscription};
pub(crate) use receiver::Receiver;

/// Most requests of a process in flight, as the row configures it.
pub(crate) const MAX_IN_FLIGHT: usize = 64;
/// Those of them that endpoints may have that fail or are slow.
pub(crate) const QUARTER: usize = MAX_IN_FLIGHT / 4;
