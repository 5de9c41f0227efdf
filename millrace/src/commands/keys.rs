//! `millrace keys`: changes the file of API keys and of clients' certificates.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use comfy_table::Table;
use jiff::Timestamp;
use millrace_service::auth::{ApiKey, KeyEntry, KeyFile, KeyLimits};

use crate::cli::{CreateKey, Keys, KeysFile, ListKeys, RevokeKey};
use crate::settings::Settings;
use crate::text::print_line;

/// Changes or lists the keys.
pub(crate) fn run(command: Keys, settings: &Settings) -> anyhow::Result<()> {
    match command {
        Keys::Create(options) => create(options, settings),
        Keys::List(options) => list(options, settings),
        Keys::Revoke(options) => revoke(options, settings),
    }
}

fn path_of(file: KeysFile, settings: &Settings) -> PathBuf {
    file.file.unwrap_or_else(|| settings.auth.keys_file.clone())
}

fn create(options: CreateKey, settings: &Settings) -> anyhow::Result<()> {
    let CreateKey { name, scopes, san, expires, limits, file } = options;
    let path = path_of(file, settings);
    let add = |entry: Result<KeyEntry, String>| {
        let entry = entry.and_then(|entry| entry.with_limits(limits.into())).map_err(anyhow::Error::msg)?;
        let id = entry.id.clone();
        KeyFile::change(&path, |file| {
            if let Some(other) = file.keys.iter().find(|other| entry.san.is_some() && other.san == entry.san) {
                return Err(format!("the entry {} of {} has this san already", other.id, other.name));
            }
            file.keys.push(entry);
            Ok(())
        })?;
        anyhow::Ok(id)
    };
    let (now, to) = (Timestamp::now(), path.display());
    if let Some(san) = san {
        let id = add(KeyEntry::of_certificate(&san, &name, &scopes, now, expires))?;
        eprintln!("millrace: added the entry {id} of {name} to {to}, for certificates of {san}");
        return Ok(());
    }
    let key = ApiKey::generate().context("the operating system has no random bytes")?;
    let id = add(KeyEntry::new(&key, &name, &scopes, now, expires))?;
    eprintln!("millrace: added the key {id} of {name} to {to}; it is printed this once");
    print_line(key.expose());
    Ok(())
}

fn list(options: ListKeys, settings: &Settings) -> anyhow::Result<()> {
    let file = KeyFile::read(&path_of(options.file, settings))?;
    if options.json {
        print_line(&serde_json::to_string(&file.keys)?);
        return Ok(());
    }
    let now_ms = Timestamp::now().as_millisecond();
    let mut table = Table::new();
    table.set_header(["id", "name", "principal", "scopes", "created", "expires", "limits per second"]);
    for key in &file.keys {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let expires = match (&key.expires, key.expires_ms()) {
            (Some(time), Some(end)) if end <= now_ms => format!("{time} (expired)"),
            (time, _) => time.clone().unwrap_or_else(|| "never".into()),
        };
        let created = key.created.as_deref().unwrap_or("-");
        let (principal, scopes, limits) = (key.principal(), scopes.join(","), limits_of(&key.limits));
        table.add_row([&key.id, &key.name, &principal, &scopes, created, &expires, &limits]);
    }
    print_line(&table.to_string());
    Ok(())
}

/// The limits that are not the configured ones.
fn limits_of(limits: &KeyLimits) -> String {
    let KeyLimits { max_request_rate, max_event_rate, max_byte_rate } = limits;
    let rates = [
        max_request_rate.map(|rate| format!("{rate} requests")),
        max_event_rate.map(|rate| format!("{rate} events")),
        max_byte_rate.map(|rate| rate.to_string()),
    ];
    let rates: Vec<String> = rates.into_iter().flatten().collect();
    if rates.is_empty() { "default".into() } else { rates.join(", ") }
}

fn revoke(options: RevokeKey, settings: &Settings) -> anyhow::Result<()> {
    let path = path_of(options.file, settings);
    if !path.exists() {
        bail!("{}: there is no such file", path.display());
    }
    let wanted = options.key;
    let removed = KeyFile::change(&path, |file| {
        let of_id = file.keys.iter().position(|key| key.id == wanted);
        let named: Vec<usize> = (0..file.keys.len()).filter(|&at| file.keys[at].name == wanted).collect();
        let at = match (of_id, &named[..]) {
            (Some(at), _) | (None, &[at]) => at,
            (None, []) => return Err(format!("no key has the id or the name {}", millrace_service::shown(&wanted))),
            (None, several) => {
                let ids: Vec<&str> = several.iter().map(|&at| &*file.keys[at].id).collect();
                return Err(format!("several keys have this name; name one by its id: {}", ids.join(", ")));
            }
        };
        Ok(file.keys.remove(at))
    })?;
    eprintln!("millrace: revoked the key {} of {}; services refuse it within two seconds", removed.id, removed.name);
    Ok(())
}
