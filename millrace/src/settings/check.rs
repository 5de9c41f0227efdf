//! The rules of the settings beyond their types: each section's own, and those between sections.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use millrace_base::{Bounds, Span, Violation};
use millrace_contracts::Names;
use millrace_service::auth::AuthMode;
use millrace_service::net::is_loopback;

use super::{Engine, Settings};

/// Longest shutdowns that make sense.
const GRACE: RangeInclusive<Span> = Span::from_millis(100)..=Span::from_secs(600);

/// The first violation of each key.
pub(super) fn violations(settings: &Settings) -> Vec<Violation> {
    let mut bounds = Bounds::new();
    let prefix = Names::new(&settings.prefix).is_ok();
    bounds
        .check(prefix, "prefix", "1..=64 characters of a-z A-Z 0-9 . _ - with . or - at the end")
        .check(is_instance(&settings.instance), "instance", "0..=128 characters of a-z A-Z 0-9 . _ -")
        .range("shutdown_grace", &settings.shutdown_grace, &GRACE);
    sections(settings, &mut bounds);
    listeners(settings, &mut bounds);
    authentication(settings, &mut bounds);
    calls(settings, &mut bounds);
    watched(settings, &mut bounds);
    proxies(settings, &mut bounds);
    timeouts(settings, &mut bounds);
    let mut violations = bounds.into_violations();
    let mut keys = HashSet::new();
    violations.retain(|violation| keys.insert(violation.key.clone()));
    violations
}

fn is_instance(text: &str) -> bool {
    text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The sections that the engine uses; the others have no effect.
fn sections(settings: &Settings, bounds: &mut Bounds) {
    match settings.engine {
        Engine::Embedded => {
            bounds.section("embedded", settings.embedded.validate());
        }
        Engine::Kafka => {
            bounds
                .section("kafka", settings.kafka.validate())
                .section("redis", settings.redis.validate())
                .section("postgres", settings.postgres.validate());
        }
    }
    bounds
        .section("auth", settings.auth.validate())
        .section("tls", settings.tls.validate())
        .section("proxies", settings.proxies.validate())
        .section("cors", settings.cors.validate())
        .section("analytics", settings.analytics.validate())
        .section("topics", settings.topics.validate())
        .section("command", settings.command.validate())
        .section("delivery", settings.delivery.validate())
        .section("processor", settings.processor.validate())
        .section("materializer", settings.materializer.validate())
        .section("query", settings.query.validate())
        .section("journal", settings.journal.validate())
        .section("telemetry", settings.telemetry.validate());
}

/// The listeners that encrypt if there is a certificate.
const ENCRYPTED: [&str; 4] = ["command.listen", "query.listen", "command.tcp.listen", "delivery.listen"];

fn listeners(settings: &Settings, bounds: &mut Bounds) {
    let mut listeners = vec![
        ("command.listen", settings.command.listen),
        ("query.listen", settings.query.listen),
        ("command.admin", settings.command.admin),
        ("query.admin", settings.query.admin),
        ("processor.admin", settings.processor.admin),
        ("materializer.admin", settings.materializer.admin),
        ("delivery.listen", settings.delivery.listen),
        ("delivery.admin", settings.delivery.admin),
    ];
    listeners.extend(settings.command.tcp.enabled.then_some(("command.tcp.listen", settings.command.tcp.listen)));
    for (index, &(key, address)) in listeners.iter().enumerate() {
        bounds.check(address.port() != 0, key, "an address with a port in 1..=65535");
        let encrypts = settings.tls.is_on() && ENCRYPTED.contains(&key);
        let (allowed, else_allowed) = beyond_loopback(settings, encrypts);
        bounds.check(address.ip().is_loopback() || allowed, key, else_allowed);
        let taken = listeners[..index].iter().find(|(_, other)| address.port() != 0 && collide(*other, address));
        if let Some((other, _)) = taken {
            bounds.check(false, key, format_args!("an address of its own: {address} is that of {other}"));
        }
    }
}

/// Whether listeners may have other addresses than loopback, and the rule for those that may not.
fn beyond_loopback(settings: &Settings, encrypts: bool) -> (bool, &'static str) {
    match settings.auth.mode {
        AuthMode::Off => (
            settings.auth.allow_off_beyond_loopback,
            "a loopback address, since anyone who reaches another one could read and write; set auth.mode = \"keys\", or \
             auth.allow_off_beyond_loopback = true",
        ),
        AuthMode::Keys => (
            encrypts || settings.tls.terminated_upstream,
            "a loopback address, since keys would cross the network in clear; tls.certificate_file encrypts all \
             but admin listeners, tls.terminated_upstream = true is for a proxy in front that does",
        ),
    }
}

fn authentication(settings: &Settings, bounds: &mut Bounds) {
    let on = settings.auth.mode != AuthMode::Off;
    let process_key = !settings.auth.process_key_file.as_os_str().is_empty();
    bounds.check(
        !on || settings.engine == Engine::Embedded || process_key,
        "auth.process_key_file",
        "a file with a key of scope admin: with engine = \"kafka\" processes call each other",
    );
    bounds.check(
        on || !settings.tls.takes_certificates(),
        "tls.client_ca_file",
        "empty with auth.mode = \"off\", which lets everybody in without a certificate",
    );
}

/// The query service shows its key to the admin listeners that it watches, and those do not encrypt.
fn watched(settings: &Settings, bounds: &mut Bounds) {
    let shows_key = settings.auth.mode != AuthMode::Off && !settings.auth.process_key_file.as_os_str().is_empty();
    let is_own = |address: &String| address.rsplit_once(':').is_some_and(|(host, _)| is_loopback(host));
    bounds.check(
        !shows_key || settings.tls.terminated_upstream || settings.query.watch.iter().all(is_own),
        "query.watch",
        "loopback addresses, since the key in auth.process_key_file would cross the network in clear; \
         tls.terminated_upstream = true is for a proxy that encrypts",
    );
}

/// Other processes call coordinators by `delivery.url`: one in clear would bring them their key in clear, whatever the listener
/// makes of it.
fn calls(settings: &Settings, bounds: &mut Bounds) {
    let url = &settings.delivery.url;
    let encrypts =
        if url.is_empty() { !settings.delivery.listen.ip().is_unspecified() } else { url.starts_with("https://") };
    bounds.check(
        encrypts || settings.engine == Engine::Embedded || !settings.encrypts_calls(),
        "delivery.url",
        "https://NAME:PORT with a name of the certificate in tls.certificate_file, since delivery.listen encrypts",
    );
}

/// A listener that expects PROXY headers takes connections from proxies alone.
fn proxies(settings: &Settings, bounds: &mut Bounds) {
    let listeners = [
        ("command.proxy_protocol", settings.command.proxy_protocol),
        ("command.tcp.proxy_protocol", settings.command.tcp.proxy_protocol),
        ("query.proxy_protocol", settings.query.proxy_protocol),
    ];
    let none = settings.proxies.trusted_networks.is_empty();
    for (key, expected) in listeners {
        bounds.check(
            !(expected && none),
            key,
            "false without proxies.trusted_networks, from where alone connections come then",
        );
    }
}

/// Whether only one of two listeners can be bound.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

fn timeouts(settings: &Settings, bounds: &mut Bounds) {
    let grace = settings.shutdown_grace;
    // One that is out of bounds itself is reported once.
    if GRACE.contains(&grace) {
        drains(settings, grace, bounds);
    }
    outcomes(settings, bounds);
}

/// Requests in flight must end before the process is cut off.
fn drains(settings: &Settings, grace: Span, bounds: &mut Bounds) {
    let drains = [
        ("command.limits.drain_timeout", settings.command.limits.drain_timeout),
        ("command.tcp.limits.drain_timeout", settings.command.tcp.limits.drain_timeout),
        ("delivery.limits.drain_timeout", settings.delivery.limits.drain_timeout),
        ("query.limits.drain_timeout", settings.query.limits.drain_timeout),
    ];
    for (key, drain) in drains {
        bounds.check(drain < grace, key, format_args!("shorter than shutdown_grace ({grace})"));
    }
}

/// A request must outlast its record's outcome; otherwise its response reports an unknown outcome for nothing.
fn outcomes(settings: &Settings, bounds: &mut Bounds) {
    let record = settings.kafka.message_timeout;
    let outlasts = settings.engine != Engine::Kafka || settings.command.limits.handler_timeout > record;
    let allowed = format_args!("longer than kafka.message_timeout ({record})");
    bounds.check(outlasts, "command.limits.handler_timeout", allowed);
}
