//! Paths of the API.

use millrace_contracts::topics::Name;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as part of a path or a query string.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The path of a topic or a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(String);

impl Path {
    pub(crate) fn topic(topic: &Name) -> Self {
        Self(format!("/v1/topics/{}", encoded(topic.as_str())))
    }

    pub(crate) fn subscription(topic: &Name, subscription: &Name) -> Self {
        Self(format!("{}/subscriptions/{}", Self::topic(topic).0, encoded(subscription.as_str())))
    }

    /// The path itself, or what is below or behind it: `/messages`, `:ack`.
    pub(crate) fn with(&self, rest: &str) -> String {
        format!("{}{rest}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_percent_encoded() {
        let name = |text| Name::of_system(text).unwrap();
        let path = Path::subscription(&name("käse%2f"), &name("a-b_c~"));
        assert_eq!(path.with(":ack"), "/v1/topics/k%C3%A4se%252f/subscriptions/a-b_c~:ack");
    }
}
