//! The HTTP server and what handlers share.
//!
//! A connection comes in through [`serve`], its guard watches it, and each of its requests goes through one exchange to
//! the service's router. Routes with a body read it with [`read_body`]. Every refusal leaves as a [`Problem`].
//!
//! Axum's own server has no timeout for a head that never ends, and no bound on connections; hence this one.

mod answer_body;
mod assets;
mod batch_body;
mod batch_result;
mod body;
mod charset;
mod connection;
mod content_coding;
mod etag;
mod exchange;
mod forwarding;
mod guard;
mod host;
mod idempotency;
mod inflate;
mod io;
mod legacy_error;
mod limits;
mod linger;
mod media_types;
mod metrics;
mod negotiate;
mod other_side;
pub mod page;
mod prefer;
mod problem;
pub mod query_string;
mod server;
mod status;
mod stream;

pub use assets::{Asset, REVALIDATE};
pub use batch_body::{BatchFormat, json_text, malformed_json, too_many_items};
pub use batch_result::{ItemResult, batch_response};
pub use body::{RequestBody, read_body, read_text};
pub use charset::Charset;
pub use content_coding::accepts_coding;
pub use etag::EntityTag;
pub use exchange::{Endless, FinalBody, Peer};
pub use host::Hosts;
pub use idempotency::{IDEMPOTENCY_KEY, idempotency_key};
pub use legacy_error::legacy_error;
pub use limits::HttpLimits;
pub use media_types::{ACCEPT_POST, MediaTypes};
pub(crate) use metrics::register as register_metrics;
pub use negotiate::negotiate;
pub use other_side::OtherSide;
pub use prefer::{PREFER, PREFERENCE_APPLIED, RESPOND_ASYNC, prefers};
pub(crate) use problem::{Document, MEDIA_TYPE, REQUEST_ID, RefusalCode, example};
pub use problem::{Problem, spread_retry};
pub(crate) use server::{Edge, serve_with};
pub use server::{serve, serve_encrypted, serve_hosts};
pub use status::status_of;
