//! The HTTP server: an accept loop of our own, because the framework's has no time-out for a head that never ends.
//!
//! A connection comes in through [`serve`], is watched by its guard, and each of its requests goes through one exchange
//! to the service's router. Bodies are read with [`read_body`] by the routes that have one.

mod accept;
mod bind;
mod body;
mod coding;
mod connection;
mod connections;
mod exchange;
mod files;
mod guard;
mod io;
mod limits;
mod metrics;
mod rate;

pub use accept::serve;
pub use bind::{BindError, Reserved, reserve};
pub use body::{BodyMemory, HeldBody, read_body};
pub use coding::takes;
pub use limits::HttpLimits;
pub(crate) use metrics::register as register_metrics;

/// When those come back who are refused because too much is under way: then, or a little later.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Marks a response with an error status whose body is not to be replaced by a problem document: put it into the
/// response's extensions.
#[derive(Debug, Clone, Copy)]
pub struct OwnForm;
