//! Listeners and their bounds, for any protocol over TCP: addresses, the accept loop, encryption, connection limits, rate
//! limits, and memory budgets. Nothing here depends on HTTP.
//!
//! A protocol implements [`Protocol`]; [`serve`] accepts its connections, keeps their number within
//! [`ConnectionLimits`], and drains them at shutdown.

mod bind;
mod client_certificate;
mod connections;
mod files;
mod listener;
mod loopback;
mod memory;
mod proxies;
mod rate;
mod socket;
mod tls;
mod tls_client;

pub use bind::{BindError, Reserved, reserve};
pub use client_certificate::ClientCertificate;
pub(crate) use client_certificate::is_certificate_name;
pub use connections::{Connection, ConnectionLimits, Order, OrderCell, Rejection};
pub use listener::{ListenerMetrics, Protocol, serve};
pub use loopback::is_loopback;
pub use memory::{MemoryBudget, MemoryPermit};
pub use proxies::{ForwardingHeader, Proxies, ProxyConfig};
pub(crate) use rate::spread;
pub use rate::{RateLimit, RateLimited};
pub use socket::Socket;
pub use tls::{Tls, TlsConfig};
pub use tls_client::{TlsClient, client_config};
