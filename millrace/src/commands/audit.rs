//! `millrace audit`: the records of the audit log, filtered, on either engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use millrace_contracts::Topic;
use serde_json::Value;

use crate::cli;
use crate::inspect::{From, Line, Source, TailRequest};
use crate::settings::Settings;
use crate::text::{plural, print_line};

/// Prints the records that fit, oldest first.
pub(crate) async fn run(options: cli::Audit, settings: Settings) -> anyhow::Result<()> {
    let key = options.key.key()?;
    let source = Source::find(&settings, &settings.names(), key.as_ref()).await?;
    let request = TailRequest { topic: Topic::AUDIT, partition: None, from: From::Beginning, max: None, follow: false };
    let print = move |line: Line| !fits(&options, &line.value) || print_line(&shown(&line.value, options.json));
    let unreadable = Arc::new(AtomicU64::new(0));
    let read = source.tail(request, counting(unreadable.clone(), print)).await;
    let unreadable = unreadable.load(Ordering::Relaxed);
    if unreadable > 0 {
        let left_out = plural(unreadable, "record");
        eprintln!("millrace: left out {left_out} that this version cannot read; see `millrace tail audit`");
    }
    Ok(read?)
}

/// Counts the records that cannot be read, and passes on the others.
fn counting(
    unreadable: Arc<AtomicU64>,
    mut print: impl FnMut(Line) -> bool + Send + 'static,
) -> impl FnMut(Line) -> bool + Send + 'static {
    move |line| {
        if line.value.is_null() {
            unreadable.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        print(line)
    }
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

#[cfg(test)]
mod tests {
    use millrace_log::Record;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_counted() {
        let unreadable = Arc::new(AtomicU64::new(0));
        let mut emit = counting(unreadable.clone(), |line| panic!("{line}"));
        for value in [Some(&b"another version's"[..]), None] {
            let record = Record { offset: 7, timestamp_ms: 1_763_712_000_123, key: b"key:alice", value };
            assert!(emit(Line::of(&Topic::AUDIT, 0, record)));
        }
        assert_eq!(unreadable.load(Ordering::Relaxed), 2);
    }
}
