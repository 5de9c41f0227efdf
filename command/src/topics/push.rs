//! Settings of push: read from a body, and shown.

use millrace_contracts::Refusal;
use millrace_contracts::topics::{PushPatch, PushSettings, Schedule};
use serde_json::{Value, json};

use super::fields::{Fields, duration_text, invalid};

/// The overlap of two signing keys, in ms: at most a week.
const OVERLAP_MS: std::ops::RangeInclusive<u64> = 0..=7 * 24 * 3_600_000;
const DEFAULT_OVERLAP_MS: u64 = 24 * 3_600_000;

/// The members `mode` and `push` of a body. The settings are checked where the subscription is coordinated.
pub(super) fn patch(fields: &mut Fields) -> Result<PushPatch, Refusal> {
    let push = match fields.text("mode")?.as_deref() {
        None => None,
        Some("pull") => Some(false),
        Some("push") => Some(true),
        Some(_) => return Err(invalid("mode", "must be \"pull\" or \"push\"".into())),
    };
    let settings = match fields.take("push") {
        None | Some(Value::Null) => None,
        Some(Value::Object(members)) => Some(Value::Object(members).to_string()),
        Some(_) => return Err(invalid("push", "must be an object".into())),
    };
    if settings.is_some() && push == Some(false) {
        return Err(invalid("push", "is for push subscriptions only".into()));
    }
    Ok(PushPatch { push, settings })
}

pub(super) fn overlap(fields: &mut Fields) -> Result<u64, Refusal> {
    Ok(fields.duration("overlap", OVERLAP_MS)?.unwrap_or(DEFAULT_OVERLAP_MS))
}

/// Requests a second.
fn per_second(per_minute: u32) -> Value {
    if per_minute.is_multiple_of(60) { json!(per_minute / 60) } else { json!(f64::from(per_minute) / 60.0) }
}

/// Settings of push, without secrets.
pub(super) fn settings(settings: &PushSettings) -> Value {
    let headers: serde_json::Map<String, Value> =
        settings.headers.keys().map(|name| (name.clone(), Value::Null)).collect();
    let mut shown = json!({
        "url": settings.url,
        "timeout": duration_text(settings.timeout_ms),
        "schedule": match &settings.schedule {
            Schedule::Exponential => json!("exponential"),
            Schedule::Webhook => json!("webhook"),
            Schedule::List(list) => list.iter().map(|ms| duration_text(*ms)).collect(),
        },
        "max_age": duration_text(settings.max_age_ms),
        "permanent_statuses": settings.permanent_statuses,
        "rate": settings.rate,
        "body": settings.body,
        "headers": headers,
        "signature": settings.signature,
        "consent": settings.consent,
    });
    if let Some(per_minute) = settings.allowed_rate {
        shown["allowed_rate"] = per_second(per_minute);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_can_be_sent_back_as_they_are_shown() {
        let given = json!({"url": "http://a/", "schedule": ["1s"], "rate": 2, "consent": true});
        let own = PushSettings::patched(None, given.as_object().unwrap()).unwrap();
        for (allowed_rate, expected) in
            [(None, Value::Null), (Some(60), json!(1)), (Some(90), json!(1.5)), (Some(600), json!(10))]
        {
            let own = PushSettings { allowed_rate, ..own.clone() };
            let shown = settings(&own);
            assert_eq!((&shown["rate"], &shown["allowed_rate"]), (&json!(2), &expected));
            assert_eq!(shown.as_object().unwrap().contains_key("allowed_rate"), allowed_rate.is_some());
            assert_eq!(PushSettings::patched(Some(&own), shown.as_object().unwrap()), Ok(own));
        }
    }
}
