//! `millrace keys`: changes the file of API keys.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use jiff::{Timestamp, ToSpan as _};
use millrace_base::Span;
use millrace_service::auth::{ApiKey, KeyEntry, KeyFile, Scope};

use crate::settings::Settings;
use crate::text::print_line;

/// The subcommands of `keys`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Keys {
    /// Create a key and print it, this once; adds its entry to the keys file
    Create(Create),
    /// List the keys without their secrets
    List(List),
    /// Remove a key; who uses it gets 401 within two seconds
    Revoke(Revoke),
}

/// Options of `keys create`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Prints the key alone on standard output; the keys file has its SHA-256 only. The principal is key:NAME. To rotate a key, create
another of the same name, and revoke the old one by its id once nobody uses it.

Scopes: events:write, counts:read, topics:manage, topics:publish, topics:subscribe, intake:write, admin (everything), and
pixel:write, the only one that a key on a public page should have, and that goes with no other.")]
pub(crate) struct Create {
    /// Who the key is for: 1 to 64 of A-Z a-z 0-9 . _ -
    name: String,
    /// What the key allows; repeatable, or separated by commas
    #[arg(long = "scope", required = true, value_delimiter = ',', value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// End of the key: a duration from now, such as 90d, or a time in RFC 3339
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Timestamp>,
    #[command(flatten)]
    file: KeysFile,
}

/// Options of `keys list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct List {
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: KeysFile,
}

/// Options of `keys revoke`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Revoke {
    /// The id of the key, or its name if no other key has it
    #[arg(value_name = "ID|NAME")]
    key: String,
    #[command(flatten)]
    file: KeysFile,
}

/// The file of API keys.
#[derive(Debug, Clone, Args)]
struct KeysFile {
    /// The keys file; default: the one of the settings
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl KeysFile {
    fn path(self, settings: &Settings) -> PathBuf {
        self.file.unwrap_or_else(|| settings.auth.keys_file.clone())
    }
}

/// Changes or lists the keys.
pub(crate) fn run(command: Keys, settings: &Settings) -> anyhow::Result<()> {
    match command {
        Keys::Create(options) => create(options, settings),
        Keys::List(options) => list(options, settings),
        Keys::Revoke(options) => revoke(options, settings),
    }
}

fn create(options: Create, settings: &Settings) -> anyhow::Result<()> {
    let Create { name, scopes, expires, file } = options;
    let path = file.path(settings);
    let key = ApiKey::generate().context("the operating system has no random bytes")?;
    let entry = KeyEntry::new(&key, &name, &scopes, Timestamp::now(), expires).map_err(anyhow::Error::msg)?;
    KeyFile::change(&path, |file| {
        file.keys.push(entry);
        Ok(())
    })?;
    eprintln!("millrace: added the key {} of {name} to {}; it is printed this once", key.id(), path.display());
    print_line(key.expose());
    Ok(())
}

fn list(options: List, settings: &Settings) -> anyhow::Result<()> {
    let file = KeyFile::read(&options.file.path(settings))?;
    if options.json {
        print_line(&serde_json::to_string(&file.keys)?);
        return Ok(());
    }
    let now_ms = Timestamp::now().as_millisecond();
    let mut table = Table::new();
    table.set_header(["id", "name", "scopes", "created", "expires"]);
    for key in &file.keys {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let expires = match (&key.expires, key.expires_ms()) {
            (Some(time), Some(end)) if end <= now_ms => format!("{time} (expired)"),
            (time, _) => time.clone().unwrap_or_else(|| "never".into()),
        };
        table.add_row([&key.id, &key.name, &scopes.join(","), key.created.as_deref().unwrap_or("-"), &expires]);
    }
    print_line(&table.to_string());
    Ok(())
}

fn revoke(options: Revoke, settings: &Settings) -> anyhow::Result<()> {
    let path = options.file.path(settings);
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

fn expiry(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let time = match Span::parse(text) {
        Some(span) => {
            let ms = i64::try_from(span.as_millis()).map_err(|_| "is too far away")?;
            now.checked_add(ms.milliseconds()).map_err(|_| "is too far away")?
        }
        None => text.parse().map_err(|_| "must be a duration such as 90d, or a time such as 2027-01-31T00:00:00Z")?,
    };
    if time <= now { Err("must be in the future".into()) } else { Ok(time) }
}
