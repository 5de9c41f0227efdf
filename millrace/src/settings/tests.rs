//! The catalogue of bad settings that are detected before anything starts.

use std::time::Duration;

use clap::CommandFactory as _;
use millrace_base::Size;
use millrace_log::EmbeddedConfig;
use millrace_service::telemetry::TelemetryConfig;
use millrace_store::{PostgresConfig, RedisConfig};

use super::*;
use crate::cli::Cli;

pub(super) fn load(set: &[&str]) -> Result<Settings, Vec<String>> {
    let layers = Layers { config: None, set: set.iter().map(|&setting| setting.to_owned()).collect() };
    Settings::load(&layers, Vec::new()).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn default_file_equals_the_defaults_of_the_code() {
    let settings = load(&[]).unwrap();
    assert_eq!(settings.engine, Engine::Embedded);
    assert_eq!(settings.names(), Names::default());
    assert_eq!(settings.embedded, EmbeddedConfig::default());
    assert_eq!(settings.redis, RedisConfig::default());
    assert_eq!(settings.postgres, PostgresConfig::default());
    assert_eq!(settings.telemetry.format, TelemetryConfig::default().format);
    assert_eq!(settings.command.limits, millrace_command::Config::default().limits);
    let ports = [settings.command.listen, settings.query.listen, settings.command.admin, settings.query.admin];
    assert_eq!(ports.map(|address| address.port()), [8081, 8082, 9081, 9082]);
    assert_eq!((settings.processor.admin.port(), settings.materializer.admin.port()), (9083, 9084));
    assert_eq!(settings.shutdown_grace.0, Duration::from_secs(30));
}

#[test]
fn every_key_of_the_default_file_has_a_comment() {
    let mut commented = false;
    for line in DEFAULT.lines() {
        if line.starts_with('#') {
            commented = true;
        } else if line.is_empty() {
            commented = false;
        } else {
            assert!(commented, "no comment above: {line}");
            commented = false;
        }
    }
}

#[test]
fn refuses_each_bad_setting_by_its_key() {
    for (setting, key) in [
        ("query.lisen=127.0.0.1:1", "query.lisen"),
        ("query.listen=nowhere", "query.listen"),
        ("query.listen=127.0.0.1:65536", "query.listen"),
        ("query.listen=127.0.0.1:0", "query.listen"),
        ("query.refresh_interval=0s", "query.refresh_interval"),
        ("query.refresh_interval=-1s", "query.refresh_interval"),
        ("query.refresh_interval=50", "query.refresh_interval"),
        ("query.refresh_interval=99999999999999999999s", "query.refresh_interval"),
        ("command.limits.max_body_bytes=1MB", "command.limits.max_body_bytes"),
        ("command.max_batch_items=many", "command.max_batch_items"),
        ("engine=redpanda", "engine"),
        ("prefix=no end", "prefix"),
        ("prefix=", "prefix"),
        ("instance=a b", "instance"),
        ("shutdown_grace=1h", "shutdown_grace"),
        ("embedded.partitions=1025", "embedded.partitions"),
        ("processor.workers=0", "processor.workers"),
        ("telemetry.level=a=b=c", "telemetry.level"),
        ("telemetry.format=xml", "telemetry.format"),
        ("command.listen=0.0.0.0:8081", "command.listen"),
        ("processor.admin=192.0.2.1:9083", "processor.admin"),
        ("materializer.admin=127.0.0.1:8082", "materializer.admin"),
    ] {
        let problems = load(&[setting]).unwrap_err();
        assert_eq!(problems.len(), 1, "{setting}: {problems:?}");
        assert!(problems[0].starts_with(&format!("{key} (flag): ")), "{setting}: {problems:?}");
        assert!(!problems[0].contains('\n'), "{problems:?}");
    }
    assert!(
        load(&["query.lisen=127.0.0.1:1"]).unwrap_err()[0].contains("listen"),
        "the message contains the nearest key"
    );
}

#[test]
fn refuses_properties_that_carry_a_guarantee_by_name() {
    for (property, bad) in [
        ("acks", "1"),
        ("enable.auto.commit", "true"),
        ("isolation.level", "read_uncommitted"),
        ("auto.offset.reset", "latest"),
        ("enable.idempotence", "false"),
        ("transactional.id", "x"),
    ] {
        let set = format!("kafka.properties.{property}={bad}");
        let problems = load(&["engine=kafka", &set]).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].starts_with(&format!("kafka.properties.{property} ")),
            "{problems:?}"
        );
    }
    let settings = load(&["engine=kafka", "kafka.properties.socket.keepalive.enable=false"]).unwrap();
    assert_eq!(settings.kafka.properties.0["socket.keepalive.enable"], "false");
}

#[test]
fn checks_rules_between_sections() {
    let problems = load(&["engine=kafka", "kafka.message_timeout=40s"]).unwrap_err();
    assert!(problems[0].contains("command.limits.handler_timeout") && problems[0].contains("40s"), "{problems:?}");
    let problems = load(&["engine=kafka", "kafka.min_insync_replicas=2"]).unwrap_err();
    assert!(problems[0].starts_with("kafka.min_insync_replicas (flag)"), "{problems:?}");
    assert!(load(&["kafka.min_insync_replicas=2"]).is_ok(), "an unused section has no effect");
    assert!(load(&["auth.allow_off_beyond_loopback=true", "command.listen=0.0.0.0:8081"]).is_ok());
    let problems = load(&["auth.allow_off_beyond_loopback=true", "command.listen=0.0.0.0:8082"]).unwrap_err();
    assert!(problems[0].contains("command.listen"), "0.0.0.0 occupies the port on every address: {problems:?}");
}

#[test]
fn coordinators_that_encrypt_have_a_url_that_does() {
    let with = |more: &[&str]| {
        let encrypts = ["tls.certificate_file=c", "tls.key_file=k", "auth.allow_off_beyond_loopback=true"];
        load(&[&["engine=kafka"][..], &encrypts, more].concat())
    };
    let (every, one) = ("delivery.listen=0.0.0.0:8085", "delivery.listen=192.0.2.1:8085");
    let clear = "delivery.url=http://delivery-1:8085";
    for bad in [&[every][..], &[every, clear], &[one, clear]] {
        let problems = with(bad).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with("delivery.url "), "{bad:?}: {problems:?}");
    }
    for good in [
        &[one][..],
        &[every, "delivery.url=https://delivery-1:8085"],
        &[clear],
        &[every, clear, "tls.terminated_upstream=true"],
    ] {
        assert!(with(good).is_ok(), "{good:?}");
    }
}

#[test]
fn the_key_of_a_process_is_shown_to_watched_listeners_of_this_machine() {
    let with = |more: &[&str]| {
        let keys = ["auth.mode=keys", "auth.keys_file=k", "auth.process_key_file=p", "engine=kafka"];
        load(&[&keys[..], more].concat())
    };
    let (own, other) = ("query.watch=[\"127.0.0.1:9083\", \"[::1]:9084\"]", "query.watch=[\"processor:9083\"]");
    let problems = with(&[other]).unwrap_err();
    assert!(problems.len() == 1 && problems[0].starts_with("query.watch "), "{problems:?}");
    assert!(with(&[own]).is_ok() && with(&[other, "tls.terminated_upstream=true"]).is_ok());
    assert!(load(&["engine=kafka", other]).is_ok(), "without authentication there is no key");
}

#[test]
fn reports_all_problems_at_once_with_their_origins() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "prefix = \"x\"\n\n[query]\nlisten = \"0.0.0.0:8082\"\n").unwrap();
    let layers = Layers { config: Some(file.path().to_owned()), set: vec!["shutdown_grace=11m".into()] };
    let environment = [
        "CONFIG=ignored",
        "KEY=k",
        "KEY_FILE=f",
        "CA_FILE=f",
        "BIN=b",
        "KAFKA_HOME=k",
        "TEST_KAFKA=k",
        "COMMAND__ADMIN=127.0.0.1:0",
    ];
    let environment = environment.iter().filter_map(|pair| pair.split_once('='));
    let environment = environment.map(|(name, value)| (format!("MILLRACE_{name}"), value.to_owned())).collect();
    let problems = Settings::load(&layers, environment).unwrap_err();
    let path = file.path().display();
    let starts = [
        format!("prefix ({path}:1): "),
        "shutdown_grace (flag): ".to_owned(),
        format!("query.listen ({path}:4): "),
        "command.admin (environment MILLRACE_COMMAND__ADMIN): ".to_owned(),
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.to_string().starts_with(&start), "{problem}");
    }
}

#[test]
fn variables_of_options_are_no_settings() {
    fn variables(command: &clap::Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|option| Some(option.get_env()?.to_str()?.to_owned()));
        own.chain(command.get_subcommands().flat_map(variables)).collect()
    }
    let names = variables(&Cli::command());
    for known in ["MILLRACE_CONFIG", "MILLRACE_ALLOW_CLEAR_KEY"] {
        assert!(names.iter().any(|name| name == known), "{known} in {names:?}");
    }
    for name in names {
        let loaded = Settings::load(&Layers::default(), vec![(name.clone(), "true".into())]);
        assert!(loaded.is_ok(), "{name}: {loaded:?}");
    }
}

#[test]
fn messages_contain_no_secrets() {
    let stores = ["engine=kafka", "redis.url=redis://:canary@h/", "postgres.url=postgres://u:canary@h/d"];
    let brokers = ["kafka.properties.sasl.password=canary", "kafka.properties.ssl.key.pem=canary"];
    let settings = load(&[stores.as_slice(), &brokers].concat()).unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
    for bad in ["redis.url=http://:canary@h/", "postgres.url=http://[canary"] {
        let problems = load(&["engine=kafka", bad]).unwrap_err();
        assert!(!problems.concat().contains("canary"), "{problems:?}");
    }
}

/// Every duration and size of the default file, by its key.
fn with_units() -> Vec<(String, &'static str)> {
    fn walk(prefix: &str, table: &toml::Table, found: &mut Vec<(String, &'static str)>) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                toml::Value::Table(inner) => walk(&key, inner, found),
                toml::Value::String(text) if Span::parse(text).is_some() => found.push((key, "0s")),
                toml::Value::String(text) if Size::parse(text).is_some() => found.push((key, "0B")),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk("", &DEFAULT.parse().unwrap(), &mut found);
    found
}

#[test]
fn refuses_zero_for_every_duration_and_size_but_those_that_allow_it() {
    let zero_allowed = [
        "kafka.linger",
        "embedded.min_free_disk",
        "embedded.retention_bytes",
        "journal.rotate_every",
        "auth.jwt.leeway",
        "auth.limits.max_byte_rate",
    ];
    let keys = with_units();
    assert!(keys.len() > 40, "{keys:?}");
    for (key, zero) in keys {
        let setting = format!("{key}={zero}");
        let of_kafka = ["kafka.", "redis.", "postgres."].iter().any(|section| key.starts_with(section));
        let engine = if of_kafka { "engine=kafka" } else { "engine=embedded" };
        // Its settings are not checked while it is off.
        let jwt = ["auth.jwt.jwks_file=keys.json", "auth.jwt.issuer=login", "auth.jwt.audience=millrace"];
        let jwt = if key.starts_with("auth.jwt.") { &jwt[..] } else { &[] };
        let loaded = load(&[&[engine, setting.as_str()][..], jwt].concat());
        match loaded {
            Ok(_) => assert!(zero_allowed.contains(&key.as_str()), "{setting} is accepted"),
            Err(problems) => {
                assert!(!zero_allowed.contains(&key.as_str()), "{problems:?}");
                let start = format!("{key} (flag): must be ");
                assert!(problems.iter().any(|problem| problem.starts_with(&start)), "{setting}: {problems:?}");
            }
        }
    }
}

#[test]
fn bounds_in_the_default_file_have_one_grammar() {
    for line in DEFAULT.lines().filter(|line| line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let range = words
            .windows(3)
            .any(|w| w[1] == "to" && [w[0], w[2]].iter().all(|w| w.starts_with(|c: char| c.is_ascii_digit())));
        assert!(!range, "{line}");
    }
}

#[test]
fn refuses_keys_of_earlier_versions_with_their_replacement() {
    for (old, new) in obsolete::RENAMED {
        let problems = load(&[&format!("{old}=1")]).unwrap_err();
        assert!(problems[0].starts_with(&format!("{old} (flag): is now {new}")), "{problems:?}");
        let named = |key: &str| {
            let defaults: toml::Value = DEFAULT.parse::<toml::Table>().unwrap().into();
            key.split('.').try_fold(defaults, |table, part| table.get(part).cloned()).is_some()
        };
        assert!(named(new) && !named(old), "{old} {new}");
    }
    assert_eq!(
        load(&["kafka.linger_ms=3"]).unwrap_err(),
        ["kafka.linger_ms (flag): is now kafka.linger, a duration such as \"3ms\""]
    );
    assert_eq!(
        load(&["query.limits.body_bytes=1KiB"]).unwrap_err(),
        ["query.limits.body_bytes (flag): no longer exists: the query service reads no request bodies"]
    );
}
