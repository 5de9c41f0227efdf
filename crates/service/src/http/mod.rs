//! The HTTP server and what handlers share.
//!
//! A connection comes in through [`serve`], its guard watches it, and each of its requests goes through one exchange to
//! the service's router. Routes with a body read it with [`read_body`]. Every refusal leaves as a [`Problem`].
//!
//! Axum's own server has no timeout for a head that never ends, and no bound on connections; hence this one.

mod body;
mod connection;
mod content_coding;
mod exchange;
mod guard;
mod io;
mod limits;
mod metrics;
mod problem;
mod server;
mod status;

pub use body::{RequestBody, read_body};
pub use content_coding::accepts_coding;
pub use exchange::FinalBody;
pub use limits::HttpLimits;
pub(crate) use metrics::register as register_metrics;
pub(crate) use problem::{Document, MEDIA_TYPE, REQUEST_ID};
pub use problem::{Problem, spread_retry};
pub use server::serve;
pub use status::status_of;
