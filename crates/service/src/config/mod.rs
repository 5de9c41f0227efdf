//! Configuration in layers: the annotated default text, one file, the environment, flags; a later layer wins. All
//! problems are found at once, each with its key, its place and what is allowed.
//!
//! The default text declares the keys. A key without a default is declared in a comment without a blank after the `#`
//! (`#url = "postgres://…"`), and an empty table (`[kafka.properties]`) is free: it takes any key, as text. Values are
//! never echoed, since some are secrets. What a setting means is its service's business.

mod declared;
mod layer;
mod problem;
mod units;

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use declared::Declared;
use layer::Entry;
pub use layer::{ENVIRONMENT_PREFIX, environment};
pub use problem::{ConfigProblem, Place};
pub use units::{Size, Span};

/// Loads a configuration that needs no check beyond its types; see [`load_checked`].
pub fn load<T: DeserializeOwned>(
    default_text: &str,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[String],
) -> Result<T, Vec<ConfigProblem>> {
    load_checked(default_text, file, env, flags, |_| Vec::new())
}

/// Loads a configuration from its layers: `default_text`, `file`, variables such as `MILLRACE_QUERY__LISTEN`, and flags
/// of the form `query.listen=127.0.0.1:8082`. `check` says what is wrong with the whole, as (key, what is allowed).
///
/// # Errors
/// Every problem of every layer and of the whole. A setting that is wrong by itself counts as its default in the check.
pub fn load_checked<T: DeserializeOwned>(
    default_text: &str,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[String],
    check: impl FnOnce(&T) -> Vec<(String, String)>,
) -> Result<T, Vec<ConfigProblem>> {
    let declared = Declared::of(default_text).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    let mut entries = file.map(|file| layer::of_file(file, &mut problems)).unwrap_or_default();
    entries.extend(layer::of_environment(env, &declared));
    entries.extend(layer::of_flags(flags, &declared, &mut problems));

    let mut settings: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in entries {
        match fault::<T>(&declared, &entry) {
            Some(problem) => problems.push(ConfigProblem { key: entry.key, place: entry.place, problem }),
            None => drop(settings.insert(entry.key.clone(), entry)),
        }
    }
    let mut whole = declared.defaults.clone();
    for entry in settings.values() {
        entry.put_into(&mut whole);
    }
    let loaded = Value::Table(whole).try_into::<T>();
    match loaded {
        Ok(config) => {
            for (key, problem) in check(&config) {
                // One that is wrong by itself is named already.
                if problems.iter().all(|known| known.key != key) {
                    let place = settings.get(&key).map_or(Place::Default, |entry| entry.place.clone());
                    problems.push(ConfigProblem { key, place, problem });
                }
            }
            if problems.is_empty() { Ok(config) } else { Err(problems) }
        }
        // A rejected setting may be just the one that is missing now.
        Err(error) if problems.is_empty() => {
            let key = missing_key(&error).unwrap_or("configuration").to_owned();
            Err(vec![ConfigProblem { key, place: Place::Default, problem: error.message().to_owned() }])
        }
        Err(_) => Err(problems),
    }
}

/// What is wrong with one setting by itself.
fn fault<T: DeserializeOwned>(declared: &Declared, entry: &Entry) -> Option<String> {
    if let Some(problem) = declared.fault(entry) {
        return Some(problem);
    }
    // Alone on top of the defaults, so that an error can only be about it. Defaults that are not complete by themselves
    // fail in the same way with it and without it.
    let mut alone = declared.defaults.clone();
    let before = Value::Table(alone.clone()).try_into::<T>().err();
    entry.put_into(&mut alone);
    let error = Value::Table(alone).try_into::<T>().err()?;
    let same = before.is_some_and(|before| before.message() == error.message());
    (!same && missing_key(&error).is_none()).then(|| error.message().to_owned())
}

fn missing_key(error: &toml::de::Error) -> Option<&str> {
    error.message().strip_prefix("missing field `")?.split('`').next()
}

/// Sets `key` (parts from the outside in) to a value, making tables on the way.
fn put(table: &mut Table, parts: &[String], value: Value) {
    let Some((first, rest)) = parts.split_first() else { return };
    if rest.is_empty() {
        table.insert(first.clone(), value);
    } else if let Value::Table(inner) = table.entry(first.clone()).or_insert_with(|| Value::Table(Table::new())) {
        put(inner, rest, value);
    }
}
