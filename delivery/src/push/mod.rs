//! Push: what an endpoint can take, how requests are made, signed and sent, and where they may go. Pure but for
//! [`Sender`]; `coordinator/courier.rs` reads the messages and settles them.

mod attempt;
mod attempt_history;
mod consent;
mod endpoint;
mod keyring;
mod metrics;
#[cfg(test)]
mod namespace_tests;
mod request;
mod signature;
mod target;
mod verification;

pub(crate) use attempt::{Attempted, Sender};
pub(crate) use endpoint::{Ended, Endpoint, SLOW_MS};
pub use keyring::{Keyring, KeyringError};
pub(crate) use keyring::{Owner, random};
pub(crate) use metrics::PushMetrics;
pub(crate) use request::{Envelope, build};
pub(crate) use signature::Key;
pub use target::Targets;
pub use verification::VerifyingKey;
