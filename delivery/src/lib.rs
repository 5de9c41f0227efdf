//! Coordinators of topics and subscriptions: the stage of `topics.commands`, and the requests about its partitions.
//!
//! A request comes in through [`Coordinators::call`], from the same process or from the internal listener; a change goes
//! out as a command in `topics.commands` and counts once the fold has read it back. Messages come in from `messages`
//! through a ring of the newest ones. How a client's request arrives, and what it looks like, is `millrace-command`'s
//! concern.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod config;
mod coordinator;
mod lease;
mod listener;
mod push;
mod redriven;
mod ring;
mod run;
mod walk;

pub use config::{Config, SecretsError};
pub use coordinator::{CoordinatorConfig, Coordinators, StartError};
pub use listener::internal_router;
pub use push::{Keyring, KeyringError, Targets, VerifyingKey};
pub use run::run;
