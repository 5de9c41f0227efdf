//! `millrace audit`: the records of the audit log, filtered, on either engine.

use jiff::Timestamp;
use millrace_contracts::Topic;
use serde_json::Value;

use crate::cli;
use crate::inspect::{From, Line, Source, TailRequest};
use crate::settings::Settings;
use crate::text::print_line;

/// Prints the records that fit, oldest first.
pub(crate) async fn run(options: cli::Audit, settings: Settings) -> anyhow::Result<()> {
    let key = options.key.key()?;
    let source = Source::find(&settings, &settings.names(), key.as_ref()).await?;
    let request = TailRequest { topic: Topic::AUDIT, partition: None, from: From::Beginning, max: None, follow: false };
    let print = move |line: Line| !fits(&options, &line.value) || print_line(&shown(&line.value, options.json));
    Ok(source.tail(request, print).await?)
}

fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_default()
}

fn fits(options: &cli::Audit, record: &Value) -> bool {
    let Ok(time) = text(record, "time").parse::<Timestamp>() else { return false };
    options.principal.as_ref().is_none_or(|principal| text(record, "principal") == principal)
        && options.action.as_ref().is_none_or(|action| text(record, "action").starts_with(&**action))
        && options.since.is_none_or(|since| time >= since)
        && options.until.is_none_or(|until| time < until)
}

fn shown(record: &Value, json: bool) -> String {
    if json {
        return record.to_string();
    }
    let fields = ["time", "principal", "action", "object", "outcome", "code", "source", "credential", "request_id"];
    let shown = fields.map(|field| match text(record, field) {
        "" => "-".to_owned(),
        // A principal or an object is the client's text.
        text => text.escape_debug().to_string(),
    });
    shown.join("  ")
}
