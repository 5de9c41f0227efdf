//! The table of metrics against `/metrics`, against the documents, and against `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use millrace_contracts::metric::{self, Metric, MetricKind};
use millrace_testkit::{free_port, http_get, wait_until};

use crate::documents::table_is_in;
use crate::run::{Up, WITHIN};

/// Only present with Redis, or after a message over TCP.
const ELSEWHERE: [&str; 2] = [metric::INTAKE_REMEMBERED.name, metric::REFILLS.name];

/// One name of `/metrics`.
#[derive(Debug, Default)]
struct Scraped {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
}

/// The metric of a series; those of a histogram have suffixes.
fn named(series: &str) -> Option<&'static Metric> {
    let of = |name: &str| metric::ALL.iter().find(|metric| metric.name == name);
    let base = || ["_bucket", "_sum", "_count"].iter().find_map(|ending| series.strip_suffix(ending));
    of(series).or_else(|| of(base()?).filter(|metric| metric.kind == MetricKind::Histogram))
}

fn scrape(up: &Up) -> BTreeMap<String, Scraped> {
    let text = http_get(up.admin, "/metrics").unwrap().into_text();
    let mut scraped: BTreeMap<String, Scraped> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => scraped.entry(name.into()).or_default().help = help.into(),
            ["#", "TYPE", name, kind] => scraped.entry(name.into()).or_default().kind = kind.into(),
            _ => {
                let (series, labels) = line.split_once('{').unwrap_or_else(|| (line.split_once(' ').unwrap().0, ""));
                let name = named(series).map_or(series, |metric| metric.name);
                let labels = labels.rsplit_once('}').map_or("", |(labels, _)| labels);
                let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
                scraped.entry(name.into()).or_default().labels.extend(names.filter(|name| name != "le"));
            }
        }
    }
    scraped
}

#[test]
fn scrape_equals_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let (listen, journal) = (format!("127.0.0.1:{}", free_port()), directory.path().display().to_string());
    let up = Up::with(&[("command.tcp.listen", &listen), ("journal.directory", &journal)]);
    assert_eq!(up.post("/analytics?timestamp=123&user=kek&click").status, 204);
    assert!(wait_until(WITHIN, || up.lines(123) == "unique_users,1\nclicks,1\nimpressions,0\n"));
    assert!(wait_until(WITHIN, || scrape(&up).contains_key(metric::LAG.name)));
    let scraped = scrape(&up);
    for (name, scraped) in &scraped {
        let Some(metric) = named(name) else { panic!("{name} is not in the table") };
        assert_eq!((scraped.help.as_str(), scraped.kind.as_str()), (metric.help, metric.kind.as_str()), "{name}");
        let labels = scraped.labels.iter().map(String::as_str).collect::<BTreeSet<_>>();
        assert_eq!(labels, metric.labels.iter().copied().collect(), "{name}");
    }
    let missing = metric::ALL.iter().map(|metric| metric.name).filter(|name| !scraped.contains_key(*name));
    assert_eq!(missing.collect::<Vec<_>>(), ELSEWHERE, "every series is there before it first counts");
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Files of the repository that may mention a metric.
fn texts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                texts(&path, found);
            }
        } else if [".rs", ".md", ".sh", ".js", ".html", ".yml", ".json"].iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

#[test]
fn documents_mention_only_metrics_of_the_table() {
    let mut files = Vec::new();
    texts(repository(), &mut files);
    let rooms: BTreeSet<&str> = metric::ALL.iter().filter_map(|metric| metric.name.split('_').nth(1)).collect();
    let mut uses = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            let parts = word.strip_prefix("millrace_").and_then(|rest| rest.split_once('_'));
            if parts.is_some_and(|(room, rest)| rooms.contains(room) && !rest.is_empty()) {
                assert!(named(word).is_some(), "{}: there is no {word}", file.display());
                uses += 1;
            }
        }
    }
    assert!(uses > 2 * metric::ALL.len(), "{uses}: the table itself and its page were read");
}

/// `UPDATE=1` rewrites it.
#[test]
fn metrics_page_equals_the_table() {
    let mut table = "| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n".to_owned();
    for Metric { name, kind, unit, labels, help } in metric::ALL {
        let (kind, labels) = (kind.as_str(), labels.join(", "));
        writeln!(table, "| `{name}` | {kind} | {unit} | {labels} | {help} |").unwrap();
    }
    table_is_in("docs/metrics.md", "crates/contracts/src/metric.rs", &table);
}
