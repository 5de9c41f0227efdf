//! The client's own id of an event, by which a retry counts once: the parameter or field `event_id`, or the header
//! `Idempotency-Key`. The processor decides whether an id is a duplicate.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::HeaderMap;
use millrace_base::limits::MAX_EVENT_ID_BYTES;
use millrace_contracts::{Code, Refusal};
use millrace_service::http::idempotency_key;

use super::field::invalid;

/// Longest key of a batch: it leaves space for a slash and the largest index of an item.
pub(crate) const MAX_BATCH_KEY_BYTES: usize = MAX_EVENT_ID_BYTES - "/99999".len();

/// The id in the header of a single request.
pub(crate) fn of_header(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refusal> {
    key_of_at_most(headers, MAX_EVENT_ID_BYTES)
}

/// The key of a batch: the prefix of its items' ids.
pub(crate) fn of_batch(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refusal> {
    key_of_at_most(headers, MAX_BATCH_KEY_BYTES)
}

fn key_of_at_most(headers: &HeaderMap, max_bytes: usize) -> Result<Option<Cow<'_, str>>, Refusal> {
    let key = idempotency_key(headers)?;
    key.iter().try_for_each(|key| check(key, "idempotency-key", max_bytes))?;
    Ok(key)
}

/// The event's id: from the request itself, from the header, or from both if they are equal.
pub(crate) fn one_of<'a>(given: Option<&'a str>, header: Option<&'a str>) -> Result<Option<&'a str>, Refusal> {
    let Some(id) = given else { return Ok(header) };
    check(id, "event_id", MAX_EVENT_ID_BYTES)?;
    if header.is_some_and(|header| header != id) {
        let detail = "event_id and Idempotency-Key are both given and differ";
        return Err(Refusal::new(Code::DuplicateField, detail).field("event_id"));
    }
    Ok(Some(id))
}

/// The id of a batch's item: its own, or the batch's key with the item's index, written into `scratch`.
pub(crate) fn of_item<'a>(
    given: Option<&'a str>,
    key: Option<&str>,
    index: usize,
    scratch: &'a mut String,
) -> Result<Option<&'a str>, Refusal> {
    if let (None, Some(key)) = (given, key) {
        scratch.clear();
        let _ = write!(scratch, "{key}/{index}");
        return Ok(Some(scratch));
    }
    one_of(given, None)
}

fn check(id: &str, field: &'static str, max_bytes: usize) -> Result<(), Refusal> {
    if id.is_empty() || id.len() > max_bytes {
        return Err(invalid(field, format!("{field} has {} bytes; 1 to {max_bytes} are allowed", id.len())));
    }
    if id.chars().any(char::is_control) {
        return Err(invalid(field, format!("{field} has a control character")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_without_an_id_takes_the_key_and_its_index() {
        let mut scratch = String::new();
        assert_eq!(of_item(None, Some("k"), 0, &mut scratch), Ok(Some("k/0")));
        assert_eq!(of_item(None, Some("k"), 12, &mut scratch), Ok(Some("k/12")));
        assert_eq!(of_item(Some("own"), Some("k"), 3, &mut scratch), Ok(Some("own")));
        assert_eq!(of_item(None, None, 3, &mut scratch), Ok(None));
        let longest = "k".repeat(MAX_BATCH_KEY_BYTES);
        assert_eq!(
            of_item(None, Some(&longest), 99_999, &mut scratch).unwrap().map(str::len),
            Some(MAX_EVENT_ID_BYTES)
        );
    }
}
