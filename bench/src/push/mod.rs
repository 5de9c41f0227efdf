//! Push: an endpoint, what Millrace delivers to it, and a bare client that posts the same.

pub(crate) mod bare;
pub(crate) mod deliver;
mod endpoint;
pub(crate) mod latency;
pub(crate) mod many;

use std::net::SocketAddr;

use crate::topics::Topics;

/// The paths of one push subscription of each topic.
fn subscriptions(topics: &Topics) -> Vec<String> {
    (0..topics.count()).map(|number| format!("{}/subscriptions/hook", topics.path(number))).collect()
}

/// Settings of a push subscription to this endpoint.
fn settings(endpoint: SocketAddr, start: &str) -> String {
    format!(r#"{{"mode":"push","start":"{start}","push":{{"url":"http://{endpoint}/hook"}}}}"#)
}
