//! The configuration rows of the bad-input catalogue: every problem at once, with key, place and what is allowed.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use millrace_base::{Bounds, Size, Span, Violation};
use millrace_service::config::{ConfigProblem, Schema, load_checked};
use serde::Deserialize;

const DEFAULTS: &str = r#"
# What everything is called.
prefix = "millrace."
ratio = 0.5
names = ["a"]

[kafka.properties]

[query]
listen = "127.0.0.1:8082" # Where it listens.
refresh = "50ms"
body = "1MiB"
connections = 100
strict = true
#url = "redis://…"
"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    prefix: String,
    ratio: f64,
    names: Vec<String>,
    kafka: Kafka,
    query: Query,
}

#[derive(Debug, Deserialize)]
struct Kafka {
    properties: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    listen: SocketAddr,
    refresh: Span,
    body: Size,
    connections: u16,
    strict: bool,
    url: Option<String>,
}

const SCHEMA: Schema<'_> = Schema {
    defaults: DEFAULTS,
    renamed: &[
        ("query.refresh_ms", "query.refresh"),
        ("query.body_kib", "query.body"),
        ("title", "prefix"),
        ("query.limit", "query.connections"),
    ],
    removed: &[("query.color", "the page has one color")],
    reserved: &["CONFIG", "TEST_*"],
};

fn load(
    schema: &Schema<'_>,
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    flags: &[String],
) -> Result<Config, Vec<ConfigProblem>> {
    load_checked(schema, file, env, flags, |config: &Config| {
        let mut bounds = Bounds::new();
        bounds.range("query.refresh", &config.query.refresh, &(Span::from_millis(1)..=Span::from_secs(60)));
        bounds.into_violations()
    })
}

fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>().into_iter()
}

fn problems(file: &str, pairs: &[(&str, &str)], flags: &[&str]) -> Vec<String> {
    let mut at = tempfile::NamedTempFile::new().unwrap();
    at.write_all(file.as_bytes()).unwrap();
    let flags: Vec<_> = flags.iter().map(ToString::to_string).collect();
    let found = load(&SCHEMA, Some(at.path()), env(pairs), &flags).unwrap_err();
    let path = at.path().display().to_string();
    found.iter().map(|problem| problem.to_string().replace(&path, "FILE")).collect()
}

#[test]
fn layers_win_in_their_order() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "prefix = \"file.\"\nratio = 1\n[query]\nrefresh = \"1s\"\nbody = \"2KiB\"\nurl = \"redis://x\"")
        .unwrap();
    let pairs = [
        ("MILLRACE_QUERY__REFRESH", "2s"),
        ("MILLRACE_QUERY__CONNECTIONS", "7"),
        ("MILLRACE_QUERY__STRICT", "false"),
        ("MILLRACE_NAMES", "[\"x\", \"y\"]"),
        ("MILLRACE_KAFKA__PROPERTIES__LINGER_MS", "5"),
        ("MILLRACE_TEST_KAFKA", "not a setting"),
        ("PATH", "/bin"),
    ];
    let flags = ["query.connections=9".to_owned(), "kafka.properties.client.id=me".to_owned()];
    let config = load(&SCHEMA, Some(file.path()), env(&pairs), &flags).unwrap();
    assert_eq!((config.prefix.as_str(), config.query.refresh.0.as_secs()), ("file.", 2));
    assert_eq!((config.query.body, config.query.connections, config.query.strict), (Size(2048), 9, false));
    assert_eq!((config.names, config.query.url.as_deref()), (vec!["x".to_owned(), "y".to_owned()], Some("redis://x")));
    assert_eq!((config.ratio, config.query.listen), (1.0, "127.0.0.1:8082".parse().unwrap()));
    assert_eq!(config.kafka.properties["linger.ms"], "5");
    assert_eq!(config.kafka.properties["client.id"], "me");
    let keys = ["query.connections", "query.refresh", "query.body", "query.listen"];
    let check =
        |_: &Config| keys.map(|key| Violation { key: key.to_owned(), allowed: "otherwise".to_owned() }).to_vec();
    let flags = [flags.as_slice(), &["query.nothing=1".to_owned()]].concat();
    let problems = load_checked(&SCHEMA, Some(file.path()), env(&pairs), &flags, check).unwrap_err();
    let origins: Vec<String> = problems.iter().map(|problem| format!("{} {}", problem.key, problem.origin)).collect();
    let of_file = format!("query.body {}:5", file.path().display());
    let refresh = "query.refresh environment MILLRACE_QUERY__REFRESH";
    let expected = ["query.nothing flag", "query.connections flag", refresh, &of_file, "query.listen default"];
    assert_eq!(origins, expected, "an unknown key hides nothing of what else is wrong");
}

#[test]
fn the_catalogue() {
    let rows: &[(&str, &str, &str)] = &[
        // 1 unknown key
        ("[query]\nlisen = \"x\"", "query.lisen (FILE:2): unknown key", "the nearest key is \"query.listen\""),
        // 3 wrong type
        ("[query]\nconnections = \"many\"", "query.connections (FILE:2): must be a whole number", "not text in quotes"),
        ("query = 5", "query (FILE:1): ", "is a section"),
        // 4 duplicate key
        ("prefix = \"a.\"\nprefix = \"b.\"", "file (FILE:2): ", "duplicate key"),
        // 5 empty
        ("[query]\nlisten = \"\"", "query.listen (FILE:2): ", "invalid socket address"),
        ("[query]\nrefresh = \"\"", "query.refresh (FILE:2): ", "a duration in ms, s, m, h or d"),
        // 6 negative or zero
        ("[query]\nrefresh = \"0s\"", "query.refresh (FILE:2): ", "must be 1ms..=1m"),
        ("[query]\nrefresh = \"-1s\"", "query.refresh (FILE:2): ", "a duration in"),
        // 7 no unit
        ("[query]\nrefresh = \"30\"", "query.refresh (FILE:2): ", "a duration in ms, s, m, h or d"),
        ("[query]\nrefresh = 30", "query.refresh (FILE:2): ", "must be text in quotes"),
        // 8 overflow
        ("[query]\nconnections = 65536", "query.connections (FILE:2): ", "65536"),
        ("[query]\nconnections = 99999999999999999999", "query.connections (FILE:2): ", "must be a whole number"),
        ("[query]\nbody = \"99999999999999999GiB\"", "query.body (FILE:2): ", "units B, KiB, MiB, GiB"),
        // 9 a port that is none
        ("[query]\nlisten = \"127.0.0.1:65536\"", "query.listen (FILE:2): ", "invalid socket address"),
        ("kafka.properties.acks = 1", "kafka.properties.acks (FILE:1): ", "text in quotes"),
        ("[query", "file (FILE:1): ", ""),
    ];
    for (file, start, part) in rows {
        let found = problems(file, &[], &[]);
        assert!(found.iter().any(|line| line.starts_with(start) && line.contains(part)), "{file:?} gave {found:#?}");
        assert!(found.iter().all(|line| !line.contains('\n')), "{found:?}");
    }
}

#[test]
fn all_problems_at_once_and_every_layer_named() {
    let found = problems(
        "prefx = 1\n[query]\nrefresh = \"1\"\nbody = true",
        &[("MILLRACE_QUERY__CONECTIONS", "1"), ("MILLRACE_PREFX", "x"), ("MILLRACE_RATIO", "half")],
        &["query.listen=nowhere", "nonsense"],
    );
    let starts = [
        "nonsense (flag): must have the form key=value",
        "prefx (FILE:1): unknown key",
        "query.body (FILE:4): must be text",
        "query.refresh (FILE:3): must be a duration",
        "prefx (environment MILLRACE_PREFX): unknown key",
        "query.conections (environment MILLRACE_QUERY__CONECTIONS): unknown key",
        "ratio (environment MILLRACE_RATIO): must be a number",
        "query.listen (flag): invalid socket address",
    ];
    for start in starts {
        assert!(found.iter().any(|line| line.starts_with(start)), "{start} is not in {found:#?}");
    }
    assert_eq!(found.len(), starts.len(), "{found:#?}");
}

#[test]
fn a_variable_with_the_prefix_is_a_setting_or_reserved() {
    let links = [
        "MILLRACE_SERVICE_HOST",
        "MILLRACE_PORT",
        "MILLRACE_QUERY_SERVICE_HOST",
        "MILLRACE_QUERY_SERVICE_PORT_HTTP",
        "MILLRACE_QUERY_PORT_8082_TCP_ADDR",
    ];
    for name in links.into_iter().chain(["MILLRACE_CONFIG", "MILLRACE_TEST_KAFKA"]) {
        assert!(load(&SCHEMA, None, env(&[(name, "x")]), &[]).is_ok(), "{name}");
    }
    for (name, problem) in [
        ("MILLRACE_QUERY_LISTEN", "unknown key \"query_listen\"; the nearest key is \"query.listen\""),
        ("MILLRACE_NOTHING_LIKE_IT", "unknown key \"nothing_like_it\""),
        ("MILLRACE_CONFIG_FILE", "unknown key \"config_file\""),
        ("MILLRACE_QUERY__PORT", "unknown key \"query.port\""),
        ("MILLRACE_", "unknown key \"\""),
    ] {
        let found = problems("", &[(name, "x")], &[]);
        assert!(found.len() == 1 && found[0].contains(problem), "{name}: {found:?}");
        assert!(found[0].contains(&format!("(environment {name})")), "{found:?}");
    }
}

#[test]
fn a_missing_setting_is_named() {
    let text = DEFAULTS.replace("refresh = \"50ms\"", "");
    let found = load(&Schema { defaults: &text, ..SCHEMA }, None, env(&[]), &[]).unwrap_err();
    assert_eq!(found[0].to_string(), "refresh (default): missing field `refresh`");
    let absent = load(&SCHEMA, Some(Path::new("/nowhere/x.toml")), env(&[]), &[]).unwrap_err();
    assert!(absent[0].to_string().starts_with("file (/nowhere/x.toml): cannot be read"), "{}", absent[0]);
}

#[test]
fn keys_of_earlier_versions_are_refused_with_their_replacement() {
    let found = problems(
        "[query]\nrefresh_ms = 50\nbody_kib = 1",
        &[("MILLRACE_TITLE", "x"), ("MILLRACE_QUERY__LIMIT", "1")],
        &["query.color=red"],
    );
    let all = [
        "query.body_kib (FILE:3): is now query.body, a size such as \"1MiB\"",
        "query.refresh_ms (FILE:2): is now query.refresh, a duration such as \"50ms\"",
        "query.limit (environment MILLRACE_QUERY__LIMIT): is now query.connections",
        "title (environment MILLRACE_TITLE): is now prefix, text such as \"millrace.\"",
        "query.color (flag): no longer exists: the page has one color",
    ];
    assert_eq!(found, all);
}
