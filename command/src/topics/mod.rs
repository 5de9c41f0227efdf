//! The routes of topics and subscriptions (`/v1/topics`).
//!
//! A handler reads its request strictly, brings a call to the topic's coordinator through the [`Directory`] and renders the
//! reply. A plain publish is appended here, by any instance; everything else is the coordinator's to decide.

mod batch;
mod deliveries;
mod diagnosis;
pub(crate) mod directory;
mod exchange;
mod fields;
mod forward;
mod legacy;
mod message;
mod openapi;
mod path;
mod publish;
mod pull;
mod push;
mod render;
mod routes;
mod settle;
mod subscription;
mod topic;

pub use directory::{NoCoordinator, TopicsConfig};
pub use forward::Forwarder;
pub use legacy::config::LegacyConfig;
pub(crate) use routes::routes;
