//! The keys that a schema declares, and the types of their values.

use std::collections::{BTreeMap, BTreeSet};

use millrace_base::{Size, Span};
use toml::{Table, Value};

use super::entry::{Entry, put};
use super::{ConfigProblem, Origin, Schema};
use crate::shown;

/// The declared keys.
pub(super) struct Declared<'a> {
    schema: Schema<'a>,
    pub(super) defaults: Table,
    /// A value of the right type for every key, defaults or not.
    examples: BTreeMap<String, Value>,
    /// Tables that accept any key.
    free: BTreeSet<String>,
}

impl<'s> Declared<'s> {
    pub(super) fn of(schema: &Schema<'s>) -> Result<Self, ConfigProblem> {
        let text = schema.defaults;
        let broken = |error: toml::de::Error| ConfigProblem {
            key: "defaults".into(),
            origin: Origin::Default,
            problem: error.message().into(),
        };
        let defaults: Table = text.parse().map_err(broken)?;
        let mut declared =
            Self { schema: *schema, defaults: defaults.clone(), examples: BTreeMap::new(), free: BTreeSet::new() };
        let mut all = defaults;
        let mut section: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = name.split('.').map(|part| part.trim().to_owned()).collect();
            }
            let commented = line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '#']));
            let Some(Ok(optional)) = commented.map(str::parse::<Table>) else { continue };
            for (key, value) in optional {
                put(&mut all, &[section.as_slice(), &[key]].concat(), value);
            }
        }
        declared.walk(&mut Vec::new(), &all);
        Ok(declared)
    }

    fn walk(&mut self, path: &mut Vec<String>, table: &Table) {
        if table.is_empty() && !path.is_empty() {
            self.free.insert(path.join("."));
        }
        for (key, value) in table {
            path.push(key.clone());
            match value {
                Value::Table(inner) => self.walk(path, inner),
                leaf => drop(self.examples.insert(path.join("."), leaf.clone())),
            }
            path.pop();
        }
    }

    /// The free table of a key, and the rest of the key.
    pub(super) fn free_table_of<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let mut cuts = key.match_indices('.').map(|(at, _)| (&key[..at], &key[at + 1..]));
        cuts.find(|(table, _)| self.free.contains(*table))
    }

    pub(super) fn example(&self, key: &str) -> Option<&Value> {
        self.examples.get(key)
    }

    /// The problem of a setting's key or type.
    pub(super) fn fault(&self, entry: &Entry) -> Option<String> {
        if self.free_table_of(&entry.key).is_some() {
            return (!entry.value.is_str()).then(|| "must be text in quotes".into());
        }
        let Some(example) = self.example(&entry.key) else { return Some(self.unknown(&entry.key)) };
        let fits = example.same_type(&entry.value) || (example.is_float() && entry.value.is_integer());
        (!fits).then(|| format!("must be {}, not {}", kind(example), kind(&entry.value)))
    }

    /// Whether a variable, named without its prefix, is no setting.
    pub(super) fn is_reserved(&self, name: &str) -> bool {
        self.schema.reserved.iter().any(|reserved| match reserved.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *reserved,
        })
    }

    fn unknown(&self, key: &str) -> String {
        if let Some((_, new)) = self.schema.renamed.iter().find(|(old, _)| *old == key) {
            return format!("is now {new}{}", self.example(new).map(form).unwrap_or_default());
        }
        if let Some((_, why)) = self.schema.removed.iter().find(|(old, _)| *old == key) {
            return format!("no longer exists: {why}");
        }
        let section = format!("{key}.");
        if self.examples.keys().any(|key| key.starts_with(&section)) || self.free.contains(key) {
            return "is a section, not a setting".into();
        }
        match self.nearest(key) {
            Some(nearest) => format!("unknown key \"{}\"; the nearest key is \"{nearest}\"", shown(key)),
            None => format!("unknown key \"{}\"", shown(key)),
        }
    }

    /// The declared key nearest to another.
    fn nearest(&self, key: &str) -> Option<&str> {
        // Keys from outside may be of any length; beyond this nothing is near.
        let key: String = key.chars().take(128).collect();
        self.examples.keys().map(String::as_str).min_by_key(|name| strsim::damerau_levenshtein(name, &key))
    }
}

/// How a value of a renamed key is written, where that may have changed with the name.
fn form(example: &Value) -> String {
    match example.as_str() {
        Some(text) if Span::parse(text).is_some() => format!(", a duration such as \"{text}\""),
        Some(text) if Size::parse(text).is_some() => format!(", a size such as \"{text}\""),
        Some(text) if !text.is_empty() => format!(", text such as \"{text}\""),
        _ => String::new(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}
