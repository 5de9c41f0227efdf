//! Validation of events: one set of rules for single requests, batches and the pixel.

use millrace_base::limits::MAX_USER_BYTES;
use millrace_contracts::{Code, EventRef, Kind, Refusal};
use millrace_service::shown;

use super::event_fields::EventFields;
use super::event_id;
use super::field::{invalid, missing};
use crate::Config;

const DAY_MS: i64 = 86_400_000;

/// The window of accepted timestamps, in ms since the epoch, both ends inclusive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) now: i64,
    from: i64,
    to: i64,
}

impl Window {
    pub(crate) fn new(config: &Config, now: i64) -> Self {
        let (from, to) = config.event_window.at(now).into_inner();
        Self { now, from, to }
    }

    /// A timestamp as text: an unsigned decimal integer of ms within the window.
    pub(crate) fn timestamp(self, text: &str) -> Result<i64, Refusal> {
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i64>());
        let Some(Ok(ms)) = number else {
            let detail = format!("timestamp is not an unsigned decimal integer of milliseconds: \"{}\"", shown(text));
            return Err(invalid("timestamp", detail));
        };
        if ms < self.from || ms > self.to { Err(self.outside(ms)) } else { Ok(ms) }
    }

    #[cold]
    fn outside(self, number: i64) -> Refusal {
        let hint = self.unit_of(number).map(|unit| format!("; it looks like {unit}, and the unit is milliseconds"));
        let detail = format!(
            "timestamp {number} is outside the accepted window {} to {}{}",
            self.from,
            self.to,
            hint.unwrap_or_default()
        );
        Refusal::new(Code::OutsideWindow, detail).field("timestamp")
    }

    /// The unit in which a number is a time of the window and of the last ten years.
    fn unit_of(self, number: i64) -> Option<&'static str> {
        let recent = self.from.max(self.now - 10 * 366 * DAY_MS)..=self.to;
        [
            ("seconds", number.checked_mul(1_000)),
            ("microseconds", Some(number / 1_000)),
            ("nanoseconds", Some(number / 1_000_000)),
        ]
        .into_iter()
        .find_map(|(unit, ms)| ms.is_some_and(|ms| recent.contains(&ms)).then_some(unit))
    }

    /// Validates the fields of an event, except its id.
    pub(crate) fn event<'a>(self, given: &'a EventFields<'_>) -> Result<EventRef<'a>, Refusal> {
        let timestamp = given.timestamp.as_deref().ok_or_else(|| missing("timestamp"))?;
        let user = given.user.as_deref().ok_or_else(|| missing("user"))?;
        let kind = match (given.flag, given.event.as_deref()) {
            (Some(kind), None) => kind,
            (None, Some(word)) => kind_of(word)?,
            (None, None) => {
                let detail = "the kind of event is missing: click, impression, or event=click|impression";
                return Err(Refusal::new(Code::MissingField, detail).field("event"));
            }
            (Some(_), Some(_)) => {
                return Err(Refusal::new(Code::DuplicateField, "the kind of event is given twice").field("event"));
            }
        };
        let timestamp_ms = self.timestamp(timestamp)?;
        check_user(user)?;
        Ok(EventRef { event_id: None, timestamp_ms, user, kind, received_at_ms: self.now })
    }

    /// Validates the fields of a single event and the id in its request's header.
    pub(crate) fn single<'a>(self, given: &'a EventFields<'_>, key: Option<&'a str>) -> Result<EventRef<'a>, Refusal> {
        let event = self.event(given)?;
        Ok(EventRef { event_id: event_id::one_of(given.event_id.as_deref(), key)?, ..event })
    }
}

/// Parses a kind.
fn kind_of(word: &str) -> Result<Kind, Refusal> {
    Kind::parse(word).ok_or_else(|| invalid("event", format!("event is click or impression, not \"{}\"", shown(word))))
}

/// Validates a user id: 1 to 256 bytes, no control characters.
pub(crate) fn check_user(user: &str) -> Result<(), Refusal> {
    if user.is_empty() || user.len() > MAX_USER_BYTES {
        return Err(invalid("user", format!("user has {} bytes; 1 to {MAX_USER_BYTES} are allowed", user.len())));
    }
    if user.chars().any(char::is_control) {
        return Err(invalid("user", "user has a control character".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use millrace_contracts::EventWindow;

    use super::*;

    #[test]
    fn the_window_includes_its_edges() {
        let event_window = EventWindow { accept_from_ms: 10, ..EventWindow::default() };
        let config = Config { event_window, ..Config::default() };
        let window = Window::new(&config, 1_000_000);
        assert_eq!(window.timestamp("10"), Ok(10));
        assert_eq!(window.timestamp("1300000"), Ok(1_300_000));
        for outside in ["9", "1300001", "9223372036854775807"] {
            assert_eq!(window.timestamp(outside).unwrap_err().code, Code::OutsideWindow, "{outside}");
        }
        for bad in ["", "9223372036854775808", "-1", "+5", " 5", "1.5", "1e3", "0x10", "٣"] {
            assert_eq!(window.timestamp(bad).unwrap_err().code, Code::InvalidField, "{bad}");
        }
    }

    #[test]
    fn a_timestamp_in_another_unit_is_refused_with_the_unit() {
        let now = 1_795_248_000_123;
        let window = |from| {
            let event_window = EventWindow { accept_from_ms: from, ..EventWindow::default() };
            Window::new(&Config { event_window, ..Config::default() }, now)
        };
        let later = window(1_577_836_800_000);
        for (text, unit) in [
            ("1795248000", Some("seconds")),
            ("1577836800", Some("seconds")),
            ("1577836799", None),
            ("1795248000123456", Some("microseconds")),
            ("1795248000123456789", Some("nanoseconds")),
            ("123", None),
            ("1795249000123", None),
            ("9223372036854775807", None),
        ] {
            let detail = later.timestamp(text).unwrap_err().detail.into_owned();
            let hint = detail.split_once("; it looks like ").map(|(_, hint)| hint);
            assert_eq!(hint, unit.map(|unit| format!("{unit}, and the unit is milliseconds")).as_deref(), "{text}");
        }
        // By default every time from 1970 on is accepted, and seconds are such a time.
        assert_eq!(window(0).timestamp("1795248000"), Ok(1_795_248_000));
        assert!(window(0).timestamp("1795248000123456").unwrap_err().detail.contains("microseconds"));
    }

    #[test]
    fn users_are_short_and_printable() {
        for good in ["k", "näme", &"x".repeat(MAX_USER_BYTES), "a b"] {
            assert_eq!(check_user(good), Ok(()), "{good}");
        }
        for bad in ["", &"x".repeat(257), "a\0b", "a\nb", "a\u{7f}", "a\u{85}b"] {
            assert_eq!(check_user(bad).unwrap_err().field.as_deref(), Some("user"), "{bad:?}");
        }
    }
}
