//! The settings of push as a JSON merge patch: read strictly, each member refused by name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::push::{PushSettings, Schedule, Secret};

/// Most entries of a schedule, and most headers and permanent statuses.
const MAX_ITEMS: usize = 64;
/// Longest URL in bytes.
const MAX_URL: usize = 4_096;
/// Longest value of a header in bytes.
const MAX_HEADER: usize = 4_096;
/// Bounds of the pauses between two attempts, in ms.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=7 * DAY_MS;
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=60_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A member of `push` that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct PushError {
    /// The member, such as `push.url`.
    pub field: String,
    /// What it must be.
    pub detail: String,
}

fn wrong(member: &str, detail: impl Into<String>) -> PushError {
    PushError { field: format!("push.{member}"), detail: detail.into() }
}

impl PushSettings {
    /// Applies a merge patch (RFC 7396): absent members stay as in `base`, or have their defaults; `null` is the default.
    ///
    /// # Errors
    /// The first member that is unknown, missing or out of bounds.
    pub fn patched(base: Option<&Self>, patch: &Map<String, Value>) -> Result<Self, PushError> {
        const MEMBERS: [&str; 11] = [
            "url",
            "timeout",
            "schedule",
            "max_age",
            "permanent_statuses",
            "rate",
            "body",
            "headers",
            "signature",
            "consent",
            // As it is shown: the endpoint decides it.
            "allowed_rate",
        ];
        if let Some(unknown) = patch.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let shown: String = unknown.chars().take(64).collect();
            return Err(wrong(&shown, "unknown member"));
        }
        let given = |name: &str| patch.get(name);
        let url = match given("url") {
            Some(Value::String(url)) if !url.is_empty() && url.len() <= MAX_URL => url.clone(),
            None => base.map(|base| base.url.clone()).ok_or_else(|| wrong("url", "must be given"))?,
            Some(_) => return Err(wrong("url", format!("must be an http or https URL of at most {MAX_URL} bytes"))),
        };
        let schedule = match given("schedule") {
            None => base.map_or(Schedule::Exponential, |base| base.schedule.clone()),
            Some(Value::Null) => Schedule::Exponential,
            Some(value) => schedule(value)?,
        };
        let default_age = if schedule == Schedule::Webhook { 76 * HOUR_MS } else { 72 * HOUR_MS };
        let headers = match given("headers") {
            None => base.map(|base| base.headers.clone()).unwrap_or_default(),
            Some(value) => headers(base, value)?,
        };
        Ok(Self {
            url,
            timeout_ms: duration(given("timeout"), "timeout", TIMEOUT_MS)?
                .resolve(base.map(|base| base.timeout_ms), 15_000),
            max_age_ms: duration(given("max_age"), "max_age", 1_000..=30 * DAY_MS)?
                .resolve(base.map(|base| base.max_age_ms), default_age),
            schedule,
            permanent_statuses: match given("permanent_statuses") {
                None => base.map(|base| base.permanent_statuses.clone()).unwrap_or_default(),
                Some(Value::Null) => Vec::new(),
                Some(value) => statuses(value)?,
            },
            rate: match given("rate") {
                None => base.and_then(|base| base.rate),
                Some(Value::Null) => None,
                Some(value) => {
                    let rate = value.as_u64().and_then(|rate| u32::try_from(rate).ok());
                    let bounded = rate.filter(|rate| (1..=100_000).contains(rate));
                    Some(bounded.ok_or_else(|| wrong("rate", "must be a whole number in 1..=100000, or null"))?)
                }
            },
            body: named(given("body"), base.map(|base| base.body)).map_err(|()| {
                wrong("body", "must be \"raw\", \"cloudevents-binary\", \"cloudevents-structured\" or \"envelope\"")
            })?,
            signature: named(given("signature"), base.map(|base| base.signature))
                .map_err(|()| wrong("signature", "must be \"v1\" or \"v1a\""))?,
            headers,
            consent: match given("consent") {
                None => base.is_some_and(|base| base.consent),
                Some(Value::Null) => false,
                Some(value) => value.as_bool().ok_or_else(|| wrong("consent", "must be true or false"))?,
            },
            allowed_rate: base.and_then(|base| base.allowed_rate),
        })
    }
}

/// A member of a merge patch.
enum Member<T> {
    Absent,
    Default,
    Given(T),
}

impl<T> Member<T> {
    fn resolve(self, base: Option<T>, default: T) -> T {
        match self {
            Self::Absent => base.unwrap_or(default),
            Self::Default => default,
            Self::Given(value) => value,
        }
    }
}

fn named<T: Default + for<'a> Deserialize<'a>>(given: Option<&Value>, base: Option<T>) -> Result<T, ()> {
    match given {
        None => Ok(base.unwrap_or_default()),
        Some(Value::Null) => Ok(T::default()),
        Some(value) => T::deserialize(value).map_err(drop),
    }
}

fn duration(given: Option<&Value>, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Member<u64>, PushError> {
    match given {
        None => Ok(Member::Absent),
        Some(Value::Null) => Ok(Member::Default),
        Some(value) => milliseconds(value, &range).map(Member::Given).ok_or_else(|| {
            let (least, most) = (millrace_base::Span::from_millis(*range.start()), range.end() / 1_000);
            wrong(name, format!("must be a duration in \"{least}\"..=\"{most}s\""))
        }),
    }
}

fn milliseconds(value: &Value, range: &std::ops::RangeInclusive<u64>) -> Option<u64> {
    let ms = millrace_base::Span::parse(value.as_str()?)?.as_millis();
    range.contains(&ms).then_some(ms)
}

fn schedule(value: &Value) -> Result<Schedule, PushError> {
    let wanted = || {
        wrong(
            "schedule",
            format!(
                "must be \"exponential\", \"webhook\" or a list of 1..={MAX_ITEMS} durations in \"100ms\"..=\"7d\""
            ),
        )
    };
    match value {
        Value::String(text) if text == "exponential" => Ok(Schedule::Exponential),
        Value::String(text) if text == "webhook" => Ok(Schedule::Webhook),
        Value::Array(entries) if (1..=MAX_ITEMS).contains(&entries.len()) => {
            let list: Option<Vec<u64>> = entries.iter().map(|entry| milliseconds(entry, &PAUSE_MS)).collect();
            list.map(Schedule::List).ok_or_else(wanted)
        }
        _ => Err(wanted()),
    }
}

fn statuses(value: &Value) -> Result<Vec<u16>, PushError> {
    let wanted = || wrong("permanent_statuses", format!("must be a list of at most {MAX_ITEMS} statuses in 300..=599"));
    let Value::Array(entries) = value else { return Err(wanted()) };
    let status = |entry: &Value| {
        let status = entry.as_u64().and_then(|status| u16::try_from(status).ok());
        status.filter(|status| (300..=599).contains(status))
    };
    let mut statuses: Vec<u16> = entries.iter().map(status).collect::<Option<_>>().ok_or_else(wanted)?;
    statuses.sort_unstable();
    statuses.dedup();
    if statuses.len() > MAX_ITEMS { Err(wanted()) } else { Ok(statuses) }
}

/// Headers that belong to the delivery itself or to the connection.
fn is_reserved(name: &str) -> bool {
    const HOP_BY_HOP: [&str; 9] = [
        "connection",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    HOP_BY_HOP.contains(&name)
        || name == "x-key"
        || ["content-", "webhook-", "millrace-", "x-attr-", "ce-"].iter().any(|prefix| name.starts_with(prefix))
}

fn headers(base: Option<&PushSettings>, value: &Value) -> Result<BTreeMap<String, Secret>, PushError> {
    let wanted = || wrong("headers", format!("must be an object of at most {MAX_ITEMS} texts"));
    let entries = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(entries) => entries,
        _ => return Err(wanted()),
    };
    let mut headers = base.map(|base| base.headers.clone()).unwrap_or_default();
    for (name, value) in entries {
        let name = name.to_ascii_lowercase();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
            return Err(wrong("headers", "has a name that no header can have"));
        }
        if is_reserved(&name) {
            return Err(wrong("headers", format!("{} is set by the delivery itself", &name[..name.len().min(64)])));
        }
        match value {
            Value::Null => drop(headers.remove(&name)),
            Value::String(text)
                if text.len() <= MAX_HEADER && text.bytes().all(|byte| byte == b'\t' || (32..127).contains(&byte)) =>
            {
                headers.insert(name, Secret { text: text.clone(), sealed: false });
            }
            _ => return Err(wrong("headers", format!("values are printable ASCII of at most {MAX_HEADER} bytes"))),
        }
    }
    if headers.len() > MAX_ITEMS { Err(wanted()) } else { Ok(headers) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(base: Option<&PushSettings>, patch: &Value) -> Result<PushSettings, PushError> {
        PushSettings::patched(base, patch.as_object().unwrap())
    }

    #[test]
    fn a_patch_keeps_what_it_does_not_name() {
        let made =
            patched(None, &json!({"url": "https://a.example/x", "schedule": "webhook", "headers": {"X-Token": "t"}}));
        let made = made.unwrap();
        assert_eq!((made.timeout_ms, made.max_age_ms), (15_000, 76 * HOUR_MS));
        assert_eq!(made.headers["x-token"], Secret { text: "t".into(), sealed: false });
        let altered =
            patched(Some(&made), &json!({"timeout": "2s", "schedule": ["1s", "5s"], "headers": {"x-token": null}}));
        let altered = altered.unwrap();
        assert_eq!((&*altered.url, altered.timeout_ms, altered.max_age_ms), (&*made.url, 2_000, 76 * HOUR_MS));
        assert_eq!(altered.schedule, Schedule::List(vec![1_000, 5_000]));
        assert!(altered.headers.is_empty());
        assert_eq!(patched(Some(&altered), &json!({"timeout": null})).unwrap().timeout_ms, 15_000);
    }

    #[test]
    fn refusals_name_the_member() {
        for (patch, field) in [
            (json!({}), "push.url"),
            (json!({"url": "x", "timeout": "61s"}), "push.timeout"),
            (json!({"url": "x", "schedule": []}), "push.schedule"),
            (json!({"url": "x", "permanent_statuses": [200]}), "push.permanent_statuses"),
            (json!({"url": "x", "rate": 0}), "push.rate"),
            (json!({"url": "x", "body": "xml"}), "push.body"),
            (json!({"url": "x", "headers": {"Webhook-Id": "1"}}), "push.headers"),
            (json!({"url": "x", "headers": {"a": "b\r\nc: d"}}), "push.headers"),
            (json!({"url": "x", "signature": "v2"}), "push.signature"),
            (json!({"url": "x", "consent": "yes"}), "push.consent"),
            (json!({"url": "x", "colour": 1}), "push.colour"),
        ] {
            assert_eq!(patched(None, &patch).unwrap_err().field, field, "{patch}");
        }
    }
}
