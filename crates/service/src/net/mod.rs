//! Listeners and their bounds, for any protocol over TCP: addresses, the accept loop, connection limits, rate limits, and
//! memory budgets. Nothing here depends on HTTP.
//!
//! A protocol implements [`Protocol`]; [`serve`] accepts its connections, keeps their number within
//! [`ConnectionLimits`], and drains them at shutdown.

mod bind;
mod connections;
mod files;
mod listener;
mod memory;
mod rate;
mod tls;

pub use bind::{BindError, Reserved, reserve};
pub use connections::{Connection, ConnectionLimits, Order, OrderCell, Rejection};
pub use listener::{ListenerMetrics, Protocol, serve};
pub use memory::{MemoryBudget, MemoryPermit};
pub use rate::{RateLimit, RateLimited};
pub use tls::TlsConfig;
