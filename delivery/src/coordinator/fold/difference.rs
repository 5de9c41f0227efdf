//! In what settings differ, by the names of the API.

use millrace_contracts::topics::{SubscriptionSettings, TopicSettings};

/// The first setting in which two topics differ, in the order of the API.
pub(super) fn first_difference(a: &TopicSettings, b: &TopicSettings) -> Option<&'static str> {
    [
        (a.retention_ms != b.retention_ms, "retention"),
        (a.delay_ms != b.delay_ms, "delay"),
        (a.max_message_bytes != b.max_message_bytes, "max_message_bytes"),
        (a.description != b.description, "description"),
    ]
    .into_iter()
    .find_map(|(differs, field)| differs.then_some(field))
}

/// The first setting in which two subscriptions differ.
pub(super) fn subscription_difference(a: &SubscriptionSettings, b: &SubscriptionSettings) -> &'static str {
    if a.filter != b.filter {
        "filter"
    } else if a.ack_deadline_ms != b.ack_deadline_ms {
        "ack_deadline"
    } else if a.order != b.order {
        "order"
    } else if a.push.is_some() != b.push.is_some() {
        "mode"
    } else if a.max_attempts != b.max_attempts {
        "max_attempts"
    } else {
        "push"
    }
}
