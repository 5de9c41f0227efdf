//! Values of options.

use std::time::Duration;

use jiff::Timestamp;
use millrace_base::Span;
use millrace_contracts::topics::{Name, NameError};
use millrace_contracts::{TIME_FORM, time_ms};

pub(super) fn span(text: &str) -> Result<Duration, String> {
    let span = Span::parse(text).filter(|span| !span.0.is_zero());
    span.map(|span| span.0).ok_or_else(|| "must be a duration above 0 with a unit, such as \"500ms\" or \"30s\"".into())
}

/// A time in ms since the epoch.
pub(super) fn time(text: &str) -> Result<i64, String> {
    time_ms(text).ok_or_else(|| format!("must be {TIME_FORM}"))
}

/// A time of the calendar library.
pub(super) fn timestamp(text: &str) -> Result<Timestamp, String> {
    Timestamp::from_millisecond(time(text)?).map_err(|error| error.to_string())
}

/// A percentage as hundredths of one.
pub(super) fn percent(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok((percent * 100.0).round() as u32),
        _ => Err("must be 0..=100".into()),
    }
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1e9).contains(rate));
    rate.ok_or_else(|| "must be 0..=1000000000".into())
}

/// A name of a topic or a subscription.
pub(super) fn name(text: &str) -> Result<Name, NameError> {
    Name::of_system(text)
}

/// A duration, which may be zero.
pub(super) fn duration(text: &str) -> Result<Span, String> {
    Span::parse(text).ok_or_else(|| "must be a duration with a unit, such as \"500ms\" or \"30s\"".into())
}
