//! The path of a request: names, percent-decoded and checked, and the verb behind a colon.

use http::Uri;
use millrace_contracts::topics::Name;
use millrace_contracts::{Code, Refusal};
use millrace_service::http::query_string::decode_segment;

use super::fields::invalid;

/// Most characters of a principal's name.
pub(super) const MAX_PRINCIPAL: usize = 256;

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

    /// The name behind `subscriptions/`, without the verb if the path ends with it.
    pub(super) fn subscription_of_verb(&mut self) -> Result<Name, Refusal> {
        self.segments.next();
        let text = self.segment("subscription")?;
        let is_last = self.segments.clone().next().is_none();
        name(text.rsplit_once(':').filter(|_| is_last).map_or(&*text, |(text, _)| text), "subscription")
    }

    /// The redrive behind `redrives/`; what is no id is the id of none.
    pub(super) fn redrive(&mut self) -> Result<u64, Refusal> {
        self.segments.next();
        let text = self.segment("redrive")?;
        let id = Some(&text).filter(|text| text.len() == 16).and_then(|text| u64::from_str_radix(text, 16).ok());
        id.ok_or_else(|| Refusal::new(Code::NotFound, "no such redrive").field("redrive"))
    }

    /// The principal behind `grants/`.
    pub(super) fn principal(&mut self) -> Result<String, Refusal> {
        self.segments.next();
        let text = self.segment("principal")?;
        if text.is_empty() || text.chars().count() > MAX_PRINCIPAL || text.contains(char::is_control) {
            let detail = format!("must have 1..={MAX_PRINCIPAL} characters, none of them a control character");
            return Err(invalid("principal", detail));
        }
        Ok(text)
    }
}

/// The verb of a path: what stands behind the last colon of its last segment.
pub(super) fn verb(uri: &Uri) -> Option<String> {
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let decoded = decode_segment(last).ok()?;
    decoded.rsplit_once(':').map(|(_, verb)| verb.to_owned())
}

fn name(text: &str, field: &'static str) -> Result<Name, Refusal> {
    // Millrace's own topics can be read, so the reserved prefix is refused only where something is created.
    Name::of_system(text).map_err(|error| invalid(field, error.to_string()))
}

/// A name that a client may create.
pub(super) fn creatable(name: &Name, field: &'static str) -> Result<(), Refusal> {
    Name::parse(name.as_str()).map(drop).map_err(|error| invalid(field, error.to_string()))
}

/// The id of a redrive, as paths have it.
pub(super) fn redrive_id(id: u64) -> String {
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_verbs_split_off() {
        let uri: Uri = "/v1/topics/a%C3%A4/subscriptions/w%3Aack".parse().unwrap();
        let mut path = Path::of(&uri);
        assert_eq!(path.topic().unwrap().as_str(), "aä");
        assert_eq!(path.subscription_of_verb().unwrap().as_str(), "w");
        assert_eq!(verb(&uri).as_deref(), Some("ack"));
        for (path, expected) in [("/v1/topics/a/subscriptions/w", None), ("/x:y/z", None), ("/a:b:ack", Some("ack"))] {
            assert_eq!(verb(&path.parse().unwrap()).as_deref(), expected, "{path}");
        }
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
