//! Configuration in layers: the annotated default text, one file, the environment, flags; a later layer wins. Loading
//! reports all problems at once, each with its key, its origin and the allowed values.
//!
//! The default text declares the keys. A key without a default is declared in a comment without a blank after the `#`
//! (`#url = "postgres://…"`), and an empty table (`[kafka.properties]`) is free: it takes any key, as text. No message
//! repeats a value, since some are secrets. The meaning of a setting is its service's business.

mod declared;
mod entry;
mod layer;
mod problem;

use std::collections::BTreeMap;
use std::path::Path;

use millrace_base::Violation;
use serde::de::DeserializeOwned;
use toml::Value;

use declared::Declared;
use entry::Entry;
pub use layer::{ENVIRONMENT_PREFIX, environment};
pub use problem::{ConfigProblem, Origin};

/// The keys of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a> {
    /// The annotated default text, which declares every key.
    pub defaults: &'a str,
    /// Keys of earlier versions and what replaces them: a setting under the first is refused with the second.
    pub renamed: &'a [(&'a str, &'a str)],
    /// Keys of earlier versions that nothing replaces, and the reason.
    pub removed: &'a [(&'a str, &'a str)],
    /// Variables that are no settings although they begin with [`ENVIRONMENT_PREFIX`]: their names without it. A `*` at the end
    /// stands for the rest of a name.
    pub reserved: &'a [&'a str],
}

/// Loads a configuration from its layers: the defaults, `file`, variables such as `MILLRACE_QUERY__LISTEN`, and flags of the
/// form `query.listen=127.0.0.1:8082`. `check` returns the violations of the whole.
///
/// # Errors
/// Every problem of every layer and of the whole. In the check, a setting that is wrong by itself has its default.
pub fn load_checked<T: DeserializeOwned>(
    schema: &Schema<'_>,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[String],
    check: impl FnOnce(&T) -> Vec<Violation>,
) -> Result<T, Vec<ConfigProblem>> {
    let declared = Declared::of(schema).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    let mut entries = file.map(|file| layer::of_file(file, &mut problems)).unwrap_or_default();
    entries.extend(layer::of_environment(env, &declared));
    entries.extend(layer::of_flags(flags, &declared, &mut problems));

    let mut settings: BTreeMap<String, Entry> = BTreeMap::new();
    for entry in entries {
        match fault::<T>(&declared, &entry) {
            Some(problem) => problems.push(ConfigProblem { key: entry.key, origin: entry.origin, problem }),
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
            for Violation { key, allowed } in check(&config) {
                // One problem per key is enough.
                if problems.iter().all(|reported| reported.key != key) {
                    let origin = settings.get(&key).map_or(Origin::Default, |entry| entry.origin.clone());
                    problems.push(ConfigProblem { key, origin, problem: format!("must be {allowed}") });
                }
            }
            if problems.is_empty() { Ok(config) } else { Err(problems) }
        }
        // A rejected setting may be just the one that is missing now.
        Err(error) if problems.is_empty() => {
            let key = missing_key(&error).unwrap_or("configuration").to_owned();
            Err(vec![ConfigProblem { key, origin: Origin::Default, problem: error.message().to_owned() }])
        }
        Err(_) => Err(problems),
    }
}

/// The problem of one setting by itself.
fn fault<T: DeserializeOwned>(declared: &Declared, entry: &Entry) -> Option<String> {
    if let Some(problem) = declared.fault(entry) {
        return Some(problem);
    }
    // Alone on top of the defaults, so that it must be the cause of an error. Defaults that are incomplete by themselves
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
