//! What an answer says about the event: in the log, not in the log, or nobody knows.

use millrace_contracts::Code;

/// How sending one event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is in the log.
    Acknowledged,
    /// It is not in the log, and sending it again later may work.
    Later,
    /// It is not in the log, and never will be as it is.
    Rejected,
    /// It may or may not be in the log.
    Unknown,
}

/// Judges the answer to a single event, or the one answer to a whole batch that was not looked into.
///
/// Only an answer that Millrace itself wrote can say "not stored": a 502 or a bare 503 of a proxy in between may hide
/// an event that was.
pub(crate) fn of_request(status: u16, body: &[u8]) -> Verdict {
    match status {
        200..=299 => Verdict::Acknowledged,
        // Refused before anything was stored; these two are worth another try.
        408 | 429 => Verdict::Later,
        400..=499 => Verdict::Rejected,
        503 => code_in(body).map_or(Verdict::Unknown, of_code),
        _ => Verdict::Unknown,
    }
}

/// Judges one item of a batch's answer.
pub(crate) fn of_item(status: u16, code: Option<&str>) -> Verdict {
    match status {
        200..=299 => Verdict::Acknowledged,
        408 | 429 => Verdict::Later,
        400..=499 => Verdict::Rejected,
        _ => code.and_then(parse).map_or(Verdict::Unknown, of_code),
    }
}

/// The results of a batch in order, if the body is that.
pub(crate) fn of_batch(body: &[u8], items: usize) -> Option<Vec<Verdict>> {
    let results: Items = serde_json::from_slice(body).ok()?;
    let results = results.into_vec();
    let verdicts: Vec<_> = results.iter().map(|item| of_item(item.status, item.code.as_deref())).collect();
    (verdicts.len() == items).then_some(verdicts)
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Items {
    Bare(Vec<Item>),
    Named { results: Vec<Item> },
}

#[derive(serde::Deserialize)]
struct Item {
    status: u16,
    code: Option<String>,
}

#[derive(serde::Deserialize)]
struct Problem {
    code: String,
}

impl Items {
    fn into_vec(self) -> Vec<Item> {
        match self {
            Self::Bare(items) | Self::Named { results: items } => items,
        }
    }
}

fn code_in(body: &[u8]) -> Option<Code> {
    parse(&serde_json::from_slice::<Problem>(body).ok()?.code)
}

fn parse(word: &str) -> Option<Code> {
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
        | Code::ShuttingDown => Verdict::Later,
        Code::OutcomeUnknown | Code::Internal | Code::Rebuilding => Verdict::Unknown,
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
        | Code::Forbidden
        | Code::PreconditionFailed
        | Code::KeyReused
        | Code::StaleToken
        | Code::InvalidToken
        | Code::Suspended
        | Code::EmptyBatch => Verdict::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_millrace_can_say_that_nothing_was_stored() {
        for (status, body, verdict) in [
            (204, "", Verdict::Acknowledged),
            (202, "", Verdict::Acknowledged),
            (400, "", Verdict::Rejected),
            (429, "", Verdict::Later),
            (503, r#"{"code":"overloaded","x":1}"#, Verdict::Later),
            (503, r#"{"code":"shutting-down"}"#, Verdict::Later),
            (503, r#"{"code":"outcome-unknown"}"#, Verdict::Unknown),
            (503, "<html>upstream is away</html>", Verdict::Unknown),
            (503, r#"{"code":"of another server"}"#, Verdict::Unknown),
            (500, "", Verdict::Unknown),
            (502, "", Verdict::Unknown),
            (504, "", Verdict::Unknown),
        ] {
            assert_eq!(of_request(status, body.as_bytes()), verdict, "{status} {body}");
        }
    }

    #[test]
    fn a_batch_is_judged_item_by_item() {
        let body = br#"[{"status":204,"code":"accepted"},{"status":503,"code":"outcome-unknown"},{"status":503,"code":"overloaded"},{"status":400,"code":"invalid-field","field":"user"}]"#;
        let expected = vec![Verdict::Acknowledged, Verdict::Unknown, Verdict::Later, Verdict::Rejected];
        assert_eq!(of_batch(body, 4), Some(expected));
        assert_eq!(of_batch(body, 5), None, "another number of results than items is no answer");
        assert_eq!(of_batch(b"{", 1), None);
        assert_eq!(of_batch(br#"{"results":[{"status":204,"code":null}]}"#, 1), Some(vec![Verdict::Acknowledged]));
    }
}
