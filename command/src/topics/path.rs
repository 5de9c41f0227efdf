//! The path of a request: names, percent-decoded and checked, and the verb behind a colon.

use http::Uri;
use millrace_contracts::topics::Name;
use millrace_contracts::{Code, Refusal};
use millrace_service::http::query_string::decode_segment;

/// The segments behind `/v1/topics/`, decoded.
pub(super) struct Path<'a> {
    segments: std::str::Split<'a, char>,
}

impl<'a> Path<'a> {
    pub(super) fn of(uri: &'a Uri) -> Self {
        let path = uri.path().strip_prefix("/v1/topics/").unwrap_or_default();
        Self { segments: path.split('/') }
    }

    fn segment(&mut self, field: &'static str) -> Result<String, Refusal> {
        let text = decode_segment(self.segments.next().unwrap_or_default());
        text.map(std::borrow::Cow::into_owned).map_err(|error| invalid(field, error.to_string()))
    }

    pub(super) fn topic(&mut self) -> Result<Name, Refusal> {
        name(&self.segment("topic")?, "topic")
    }

    /// The name behind `subscriptions/`.
    pub(super) fn subscription(&mut self) -> Result<Name, Refusal> {
        self.segments.next();
        name(&self.segment("subscription")?, "subscription")
    }

    /// The name behind `subscriptions/`, and the verb behind its colon.
    pub(super) fn subscription_verb(&mut self) -> Result<(Name, String), Refusal> {
        self.segments.next();
        let text = self.segment("subscription")?;
        if let Some((text, verb)) = text.rsplit_once(':') {
            Ok((name(text, "subscription")?, verb.to_owned()))
        } else {
            name(&text, "subscription")?;
            Err(Refusal::new(Code::MethodNotAllowed, "POST needs a verb, such as :ack"))
        }
    }

    /// The principal behind `grants/`.
    pub(super) fn principal(&mut self) -> Result<String, Refusal> {
        self.segments.next();
        let text = self.segment("principal")?;
        if text.is_empty() || text.len() > 256 || text.contains(char::is_control) {
            return Err(invalid("principal", "must have 1..=256 bytes and no control characters".into()));
        }
        Ok(text)
    }
}

fn name(text: &str, field: &'static str) -> Result<Name, Refusal> {
    // Millrace's own topics can be read, so the reserved prefix is refused only where something is created.
    Name::of_system(text).map_err(|error| invalid(field, error.to_string()))
}

/// A name that a client may create.
pub(super) fn creatable(name: &Name, field: &'static str) -> Result<(), Refusal> {
    Name::parse(name.as_str()).map(drop).map_err(|error| invalid(field, error.to_string()))
}

fn invalid(field: &'static str, detail: String) -> Refusal {
    Refusal::new(Code::InvalidField, detail).field(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_verbs_split_off() {
        let uri: Uri = "/v1/topics/a%C3%A4/subscriptions/w%3Aack".parse().unwrap();
        let mut path = Path::of(&uri);
        assert_eq!(path.topic().unwrap().as_str(), "aä");
        let (name, verb) = path.subscription_verb().unwrap();
        assert_eq!((name.as_str(), verb.as_str()), ("w", "ack"));
        for (path, field) in [
            ("/v1/topics/a%2Fb", "topic"),
            ("/v1/topics/", "topic"),
            ("/v1/topics/%zz", "topic"),
            ("/v1/topics/a%00", "topic"),
        ] {
            let uri: Uri = path.parse().unwrap();
            let refusal = Path::of(&uri).topic().unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some(field), "{path}");
        }
    }
}
