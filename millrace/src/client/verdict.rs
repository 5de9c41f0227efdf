//! What a response means for an event: it is in the log, it is not, or its outcome is unknown.

use millrace_contracts::Code;
use serde::Deserialize;

/// The outcome of sending one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In the log.
    Acknowledged,
    /// Not in the log; another try may succeed.
    Retriable,
    /// Not in the log; every other try fails, too.
    Rejected,
    /// In the log or not.
    Unknown,
}

/// One item of the response to a batch.
#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    pub(crate) status: u16,
    pub(crate) code: Option<String>,
    pub(crate) field: Option<String>,
    pub(crate) detail: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

/// The verdict of the response to a single event, or of the one response to a whole batch.
///
/// Only a response that Millrace itself wrote can mean "not stored": a 502 or a bare 503 of a proxy in between may hide an
/// event in the log.
pub(crate) fn of_request(status: u16, body: &[u8]) -> Verdict {
    match status {
        503 => code_in(body).map_or(Verdict::Unknown, of_code),
        status => of_status(status).unwrap_or(Verdict::Unknown),
    }
}

/// The items of the response to a batch of `events` events, in order; `None` if the body is anything else.
pub(crate) fn items(body: &[u8], events: usize) -> Option<Vec<Item>> {
    let items: Vec<Item> = serde_json::from_slice(body).ok()?;
    (items.len() == events).then_some(items)
}

impl Item {
    /// The verdict of this item.
    pub(crate) fn verdict(&self) -> Verdict {
        let of_word = || self.code.as_deref().and_then(parse).map_or(Verdict::Unknown, of_code);
        of_status(self.status).unwrap_or_else(of_word)
    }
}

/// A status that decides by itself.
fn of_status(status: u16) -> Option<Verdict> {
    match status {
        200..=299 => Some(Verdict::Acknowledged),
        // Refused before anything was stored; these two are worth another try.
        408 | 429 => Some(Verdict::Retriable),
        400..=499 => Some(Verdict::Rejected),
        _ => None,
    }
}

fn code_in(body: &[u8]) -> Option<Code> {
    parse(&serde_json::from_slice::<Problem>(body).ok()?.code)
}

/// The code with this word.
pub(crate) fn parse(word: &str) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| code.as_str() == word)
}

fn of_code(code: Code) -> Verdict {
    match code {
        Code::Accepted => Verdict::Acknowledged,
        Code::RequestTimeout
        | Code::RateLimited
        | Code::TooManyDelayed
        | Code::Overloaded
        | Code::Unavailable
        | Code::DiskFull
        | Code::ShuttingDown => Verdict::Retriable,
        Code::OutcomeUnknown | Code::Internal | Code::Rebuilding | Code::NotYetVisible => Verdict::Unknown,
        Code::MissingField
        | Code::DuplicateField
        | Code::UnknownField
        | Code::InvalidField
        | Code::InvalidEncoding
        | Code::MalformedBody
        | Code::BadRequest
        | Code::OutsideWindow
        | Code::NotFound
        | Code::MethodNotAllowed
        | Code::NotAcceptable
        | Code::TooLarge
        | Code::TooManyItems
        | Code::UriTooLong
        | Code::UnsupportedMediaType
        | Code::UnsupportedEncoding
        | Code::HeadersTooLarge
        | Code::Exists
        | Code::NameResting
        | Code::Unauthenticated
        | Code::Forbidden
        | Code::CrossSite
        | Code::PreconditionFailed
        | Code::KeyReused
        | Code::StaleToken
        | Code::InvalidToken
        | Code::Suspended
        | Code::WrongMode
        | Code::BlockedTarget
        | Code::ConsentRefused
        | Code::EmptyBatch => Verdict::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_millrace_can_report_that_nothing_was_stored() {
        for (status, body, verdict) in [
            (204, "", Verdict::Acknowledged),
            (202, "", Verdict::Acknowledged),
            (400, "", Verdict::Rejected),
            (429, "", Verdict::Retriable),
            (503, r#"{"code":"overloaded","x":1}"#, Verdict::Retriable),
            (503, r#"{"code":"shutting-down"}"#, Verdict::Retriable),
            (503, r#"{"code":"outcome-unknown"}"#, Verdict::Unknown),
            (503, "<html>bad gateway</html>", Verdict::Unknown),
            (503, r#"{"code":"of another server"}"#, Verdict::Unknown),
            (500, "", Verdict::Unknown),
            (502, "", Verdict::Unknown),
            (504, "", Verdict::Unknown),
        ] {
            assert_eq!(of_request(status, body.as_bytes()), verdict, "{status} {body}");
        }
    }

    #[test]
    fn each_item_of_a_batch_has_its_own_verdict() {
        let body = br#"[{"status":204,"code":"accepted"},{"status":503,"code":"outcome-unknown"},{"status":503,"code":"overloaded"},{"status":400,"code":"invalid-field","field":"user"}]"#;
        let verdicts: Vec<Verdict> = items(body, 4).unwrap().iter().map(Item::verdict).collect();
        assert_eq!(verdicts, [Verdict::Acknowledged, Verdict::Unknown, Verdict::Retriable, Verdict::Rejected]);
        assert!(items(body, 5).is_none(), "the number of results differs from that of the events");
        assert!(items(b"{", 1).is_none());
    }
}
