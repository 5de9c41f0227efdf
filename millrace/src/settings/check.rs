//! What must hold of the settings beyond their types: each section's own rules, and those between sections.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_contracts::Names;

use super::{Engine, Settings};

/// Every problem as (key, what is allowed).
pub(super) fn problems(settings: &Settings) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    if let Err(e) = Names::new(&settings.prefix) {
        problems.push(("prefix".to_owned(), e.to_string()));
    }
    if !is_instance(&settings.instance) {
        problems.push(("instance".to_owned(), "0 to 128 of the characters a-z A-Z 0-9 . _ -".to_owned()));
    }
    let grace = Duration::from_millis(100)..=Duration::from_mins(10);
    if !grace.contains(&settings.grace.0) {
        problems.push(("grace".to_owned(), "100ms to 10m".to_owned()));
    }
    for (section, found) in sections(settings) {
        problems.extend(found.into_iter().map(|(key, allowed)| (format!("{section}.{key}"), allowed)));
    }
    listeners(settings, &mut problems);
    timeouts(settings, &mut problems);
    // Two rules may say the same of a key; one line is enough.
    let mut seen = std::collections::HashSet::new();
    problems.retain(|(key, _)| seen.insert(key.clone()));
    problems
}

fn is_instance(text: &str) -> bool {
    text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The sections that the engine uses; the others may be as they like.
fn sections(settings: &Settings) -> Vec<(&'static str, Vec<(String, String)>)> {
    let mut sections = match settings.engine {
        Engine::Embedded => vec![("embedded", settings.embedded.validate())],
        Engine::Kafka => vec![
            ("kafka", settings.kafka.validate()),
            ("redis", settings.redis.validate()),
            ("postgres", settings.postgres.validate()),
        ],
    };
    sections.extend([
        ("command", settings.command.validate()),
        ("processor", settings.processor.validate()),
        ("materializer", settings.materializer.validate()),
        ("query", settings.query.validate()),
        ("query.limits", settings.query.limits.validate()),
        ("telemetry", settings.telemetry.validate()),
    ]);
    sections
}

fn listeners(settings: &Settings, problems: &mut Vec<(String, String)>) {
    let listeners = [
        ("command.listen", settings.command.listen),
        ("query.listen", settings.query.listen),
        ("command.admin", settings.command.admin),
        ("query.admin", settings.query.admin),
        ("processor.admin", settings.processor.admin),
        ("materializer.admin", settings.materializer.admin),
    ];
    for (index, (key, address)) in listeners.into_iter().enumerate() {
        if address.port() == 0 {
            problems.push((key.to_owned(), "a port from 1 to 65535".to_owned()));
        }
        if !address.ip().is_loopback() && !settings.insecure_listen {
            let why = "a loopback address: there is no authentication yet, so anyone who reaches another one may write \
                       and read; insecure_listen = true allows it";
            problems.push((key.to_owned(), why.to_owned()));
        }
        let taken = listeners[..index].iter().find(|(_, other)| address.port() != 0 && meet(*other, address));
        if let Some((other, _)) = taken {
            problems.push((key.to_owned(), format!("an address of its own: {address} is that of {other}")));
        }
    }
}

/// Whether two listeners cannot both be bound.
fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// A request must still be waiting when its record's outcome is known: otherwise an answer is unknown for nothing.
fn timeouts(settings: &Settings, problems: &mut Vec<(String, String)>) {
    for (key, limits) in [("command", &settings.command.limits), ("query", &settings.query.limits)] {
        if limits.drain_timeout.0 >= settings.grace.0 {
            problems
                .push((format!("{key}.limits.drain_timeout"), format!("shorter than grace ({:?})", settings.grace.0)));
        }
    }
    let record = Duration::from_millis(u64::from(settings.kafka.message_timeout_ms));
    if settings.engine == Engine::Kafka && settings.command.limits.handler_timeout.0 <= record {
        problems.push((
            "command.limits.handler_timeout".to_owned(),
            format!("longer than kafka.message_timeout_ms ({record:?})"),
        ));
    }
}
