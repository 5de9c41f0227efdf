//! Reads each layer into single settings with their origins.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::declared::Declared;
use super::entry::Entry;
use super::{ConfigProblem, Origin};
use crate::shown;

/// Prefix of the variables that are settings.
pub const ENVIRONMENT_PREFIX: &str = "MILLRACE_";

/// The variables of this process's environment whose names begin with [`ENVIRONMENT_PREFIX`].
///
/// # Errors
/// One problem for each of them that is not UTF-8.
pub fn environment() -> Result<Vec<(String, String)>, Vec<ConfigProblem>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (name, value) in std::env::vars_os() {
        let shown_name = name.to_string_lossy().into_owned();
        if !shown_name.starts_with(ENVIRONMENT_PREFIX) {
            continue;
        }
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => good.push((name, value)),
            _ => bad.push(ConfigProblem {
                key: shown(&shown_name),
                origin: Origin::Environment(shown(&shown_name)),
                problem: "is not valid UTF-8".into(),
            }),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

pub(super) fn of_file(path: &Path, problems: &mut Vec<ConfigProblem>) -> Vec<Entry> {
    let origin = |line| Origin::File { path: path.to_owned(), line };
    let mut wrong = |line, problem: String| {
        problems.push(ConfigProblem { key: "file".into(), origin: origin(line), problem });
    };
    let text = match std::fs::read(path).map(String::from_utf8) {
        Err(error) => {
            wrong(0, format!("cannot be read: {error}"));
            return Vec::new();
        }
        Ok(Err(_)) => {
            wrong(0, "is not valid UTF-8".into());
            return Vec::new();
        }
        Ok(Ok(text)) => text,
    };
    let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1;
    let (root, errors) = DeTable::parse_recoverable(&text);
    for error in &errors {
        wrong(error.span().map_or(0, |span| line_of(span.start)), error.message().to_owned());
    }
    let mut leaves = Vec::new();
    flatten(root.get_ref(), &mut Vec::new(), &mut leaves);
    let entry = |(parts, at, value): (Vec<String>, usize, Value)| Entry {
        key: parts.join("."),
        parts,
        value,
        origin: origin(line_of(at)),
    };
    leaves.into_iter().map(entry).collect()
}

fn flatten(table: &DeTable<'_>, path: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, usize, Value)>) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(inner, path, leaves),
            leaf => leaves.push((path.clone(), key.span().start, plain(leaf))),
        }
        path.pop();
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        // Out of range stays text, and is refused as the wrong type.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(String::new()), Value::Integer),
        DeValue::Float(number) => number.as_str().parse().map_or_else(|_| Value::String(String::new()), Value::Float),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item: &Spanned<DeValue<'_>>| plain(item.get_ref())).collect())
        }
        DeValue::Table(inner) => {
            Value::Table(inner.iter().map(|(key, item)| (key.get_ref().to_string(), plain(item.get_ref()))).collect())
        }
    }
}

/// `MILLRACE_QUERY__LISTEN` is `query.listen`; in a free table the rest of the name has dots for its underscores:
/// `MILLRACE_KAFKA__PROPERTIES__LINGER_MS` is `linger.ms` there.
pub(super) fn of_environment(env: impl Iterator<Item = (String, String)>, declared: &Declared<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = env
        .filter_map(|(name, value)| {
            let rest = name.strip_prefix(ENVIRONMENT_PREFIX)?;
            let other = declared.is_reserved(rest) || is_service_link(rest);
            let key = rest.to_ascii_lowercase().replace("__", ".");
            (!other).then(|| textual(&key, &value, Origin::Environment(shown(&name)), declared, true))
        })
        .collect();
    // The environment has no order; problems should.
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries
}

/// Kubernetes sets variables for each service of the namespace: one called `millrace-query` has `MILLRACE_QUERY_SERVICE_HOST`,
/// `MILLRACE_QUERY_SERVICE_PORT_HTTP`, `MILLRACE_QUERY_PORT_8082_TCP_ADDR` and more. No setting has such a name.
fn is_service_link(name: &str) -> bool {
    !name.contains("__") && (name.ends_with("SERVICE_HOST") || name.split('_').any(|word| word == "PORT"))
}

pub(super) fn of_flags(flags: &[String], declared: &Declared<'_>, problems: &mut Vec<ConfigProblem>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for flag in flags {
        match flag.split_once('=') {
            Some((key, value)) => entries.push(textual(key.trim(), value, Origin::Flag, declared, false)),
            None => problems.push(ConfigProblem {
                key: shown(flag),
                origin: Origin::Flag,
                problem: "must have the form key=value, such as query.listen=127.0.0.1:8082".into(),
            }),
        }
    }
    entries
}

/// A setting whose value came as text: read as the type of its example.
fn textual(key: &str, text: &str, origin: Origin, declared: &Declared<'_>, from_variable: bool) -> Entry {
    if let Some((table, name)) = declared.free_table_of(key) {
        let name = if from_variable { name.replace('_', ".") } else { name.to_owned() };
        let mut parts: Vec<String> = table.split('.').map(str::to_owned).collect();
        parts.push(name);
        return Entry { key: parts.join("."), parts, value: Value::String(text.to_owned()), origin };
    }
    let value = match declared.example(key) {
        None | Some(Value::String(_)) => None,
        // Anything that is no value of its own stays text, and is refused as the wrong type.
        Some(_) => format!("v = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("v")),
    };
    let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
    Entry { key: key.to_owned(), parts: key.split('.').map(str::to_owned).collect(), value, origin }
}
