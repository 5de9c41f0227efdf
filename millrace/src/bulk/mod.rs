//! Bulk, in and out: `millrace import` sends a file's events through the batch API, `millrace export` writes hours to a file.
//!
//! Both are clients of the public HTTP API and know nothing else of the services: what an event is worth is decided by the
//! command service, what an hour counts by the query service.

pub(crate) mod export;
pub(crate) mod import;
