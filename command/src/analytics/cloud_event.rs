//! CloudEvents 1.0 as events: in JSON (structured mode and batches), or as headers and data (binary mode).
//!
//! The data is a JSON object with the fields of an event. What it lacks comes from the attributes: the timestamp from `time` or
//! else the arrival, the kind from the last part of `type`, the id from `source` and `id`, which together are unique.

use std::borrow::Cow;

use http::HeaderMap;
use jiff::Timestamp;
use millrace_base::limits::MAX_EVENT_ID_BYTES;
use millrace_contracts::{Code, Refusal};
use millrace_service::http::query_string::{Unknown, decode_segment};
use millrace_service::shown;
use serde_json::value::RawValue;

use super::event_fields::EventFields;
use super::field::{invalid, missing};
use super::json;

/// The attributes that matter here.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a> {
    specversion: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
}

/// Reads a CloudEvent of the JSON format. Extensions and other attributes are ignored, as the specification requires.
pub(super) fn structured(json: &str, now: i64) -> Result<EventFields<'_>, Refusal> {
    const NAMES: [&str; 8] = ["specversion", "id", "source", "type", "time", "datacontenttype", "data", "data_base64"];
    let [specversion, id, source, kind, time, content_type, data, base64] =
        json::members(json, NAMES, Unknown::Ignore)?;
    if let Some(content_type) = attribute(content_type, "datacontenttype")?
        && !is_json(&content_type)
    {
        let detail = format!("datacontenttype is application/json, not \"{}\"", shown(&content_type));
        return Err(invalid("datacontenttype", detail));
    }
    if base64.is_some() {
        return Err(invalid("data_base64", "data_base64 is not supported; data is".into()));
    }
    let attributes = Attributes {
        specversion: attribute(specversion, "specversion")?,
        id: attribute(id, "id")?,
        source: attribute(source, "source")?,
        kind: attribute(kind, "type")?,
        time: attribute(time, "time")?,
    };
    attributes.fields(data.ok_or_else(|| missing("data"))?.get(), now)
}

impl Attributes<'static> {
    /// The attributes of binary mode; `None` if the request has none. Its data must be JSON.
    pub(super) fn of_headers(headers: &HeaderMap, is_json: bool) -> Result<Option<Self>, Refusal> {
        if !headers.contains_key("ce-specversion") {
            return Ok(None);
        }
        if !is_json {
            let detail = "the data of a CloudEvent is application/json";
            return Err(Refusal::new(Code::UnsupportedMediaType, detail).field("content-type"));
        }
        Ok(Some(Self {
            specversion: header(headers, "specversion", "ce-specversion")?,
            id: header(headers, "id", "ce-id")?,
            source: header(headers, "source", "ce-source")?,
            kind: header(headers, "type", "ce-type")?,
            time: header(headers, "time", "ce-time")?,
        }))
    }
}

impl Attributes<'_> {
    /// The fields of the event with this data.
    pub(super) fn fields<'d>(&self, data: &'d str, now: i64) -> Result<EventFields<'d>, Refusal> {
        let version = required(self.specversion.as_deref(), "specversion")?;
        if version != "1.0" {
            return Err(invalid("specversion", format!("specversion is 1.0, not \"{}\"", shown(version))));
        }
        let id = required(self.id.as_deref(), "id")?;
        let source = required(self.source.as_deref(), "source")?;
        let kind = required(self.kind.as_deref(), "type")?;
        let mut fields = json::fields(data)?;
        if fields.timestamp.is_none() {
            let ms = self.time.as_deref().map_or(Ok(now), time_of)?;
            fields.timestamp = Some(ms.to_string().into());
        }
        if fields.event.is_none() {
            fields.event = Some(kind.rsplit('.').next().unwrap_or_default().to_owned().into());
        }
        if fields.event_id.is_none() {
            fields.event_id = Some(event_id(source, id)?.into());
        }
        Ok(fields)
    }
}

fn attribute<'a>(raw: Option<&'a RawValue>, name: &'static str) -> Result<Option<Cow<'a, str>>, Refusal> {
    raw.filter(|raw| raw.get() != "null").map(|raw| json::text(raw, name)).transpose()
}

fn required<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, Refusal> {
    match value {
        None => Err(missing(name)),
        Some("") => Err(invalid(name, format!("{name} is empty"))),
        Some(text) => Ok(text),
    }
}

fn header(headers: &HeaderMap, name: &'static str, header: &'static str) -> Result<Option<Cow<'static, str>>, Refusal> {
    let mut lines = headers.get_all(header).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Refusal::new(Code::DuplicateField, format!("{header} is given twice")).field(name));
    }
    let line = line.to_str().map_err(|_| invalid(name, format!("{header} is not printable ASCII")))?;
    let quoted = line.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = quoted.map_or(Cow::Borrowed(line), |text| text.replace("\\\"", "\"").replace("\\\\", "\\").into());
    match decode_segment(&text) {
        Ok(text) => Ok(Some(text.into_owned().into())),
        Err(error) => Err(Refusal::new(Code::InvalidEncoding, format!("{header}: {error}")).field(name)),
    }
}

fn time_of(text: &str) -> Result<i64, Refusal> {
    let time = text.parse::<Timestamp>().map(Timestamp::as_millisecond);
    time.map_err(|_| invalid("time", format!("time is not a time of RFC 3339: \"{}\"", shown(text))))
}

/// A source is a URI reference and has no space, so the two cannot be confused.
fn event_id(source: &str, id: &str) -> Result<String, Refusal> {
    if source.contains(char::is_whitespace) {
        return Err(invalid("source", "source is not a URI reference: it has a space".into()));
    }
    let event_id = format!("{source} {id}");
    if event_id.len() > MAX_EVENT_ID_BYTES {
        let detail = format!(
            "source and id together have {} bytes; up to {} are allowed, or an event_id in the data",
            event_id.len() - 1,
            MAX_EVENT_ID_BYTES - 1
        );
        return Err(invalid("id", detail));
    }
    Ok(event_id)
}

fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
