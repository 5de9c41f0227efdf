//! The keys that the default text declares, and the types of their values.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::layer::Entry;
use super::{ConfigProblem, Place, put};
use crate::shown;

pub(super) struct Declared {
    pub(super) defaults: Table,
    /// A value of the right type for every key, defaults or not.
    examples: BTreeMap<String, Value>,
    /// Tables that take any key.
    free: BTreeSet<String>,
}

impl Declared {
    pub(super) fn of(text: &str) -> Result<Self, ConfigProblem> {
        let broken = |error: toml::de::Error| ConfigProblem {
            key: "defaults".into(),
            place: Place::Default,
            problem: error.message().into(),
        };
        let defaults: Table = text.parse().map_err(broken)?;
        let mut declared = Self { defaults: defaults.clone(), examples: BTreeMap::new(), free: BTreeSet::new() };
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

    /// The free table that a key stands in.
    pub(super) fn free_table_of<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let mut cuts = key.match_indices('.').map(|(at, _)| (&key[..at], &key[at + 1..]));
        cuts.find(|(table, _)| self.free.contains(*table))
    }

    pub(super) fn example(&self, key: &str) -> Option<&Value> {
        self.examples.get(key)
    }

    /// What is wrong with a setting's key or type.
    pub(super) fn fault(&self, entry: &Entry) -> Option<String> {
        if self.free_table_of(&entry.key).is_some() {
            return (!entry.value.is_str()).then(|| "must be text in quotes".into());
        }
        let Some(example) = self.example(&entry.key) else { return Some(self.unknown(&entry.key)) };
        let fits = example.same_type(&entry.value) || (example.is_float() && entry.value.is_integer());
        (!fits).then(|| format!("must be {}, not {}", kind(example), kind(&entry.value)))
    }

    fn unknown(&self, key: &str) -> String {
        let section = format!("{key}.");
        if self.examples.keys().any(|known| known.starts_with(&section)) || self.free.contains(key) {
            return "is a section, not a setting".into();
        }
        match self.nearest(key) {
            Some((known, _)) => format!("unknown key \"{}\"; the nearest known is \"{known}\"", shown(key)),
            None => format!("unknown key \"{}\"", shown(key)),
        }
    }

    /// The known key most like another, and by how many edits they differ.
    pub(super) fn nearest(&self, key: &str) -> Option<(&str, usize)> {
        // Keys from outside may be of any length; beyond this nothing is near.
        let key: String = key.chars().take(128).collect();
        let distances = self.examples.keys().map(|known| (known.as_str(), strsim::damerau_levenshtein(known, &key)));
        distances.min_by_key(|(_, distance)| *distance)
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
