//! `/registry`: the schemas of the log in the read API of Confluent's schema registry.

pub(crate) mod openapi;
mod schemas;

pub(crate) use schemas::router;
