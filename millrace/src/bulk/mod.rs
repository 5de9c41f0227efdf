//! Bulk transfer: `millrace import` sends the events of a file through the batch API, `millrace export` writes hours to a file.
//!
//! Both are clients of the public HTTP API and depend on nothing else of the services.

pub(crate) mod export;
pub(crate) mod import;
