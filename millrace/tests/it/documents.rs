//! The documents against the repository: the links, files, tests and settings that they name exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use millrace_contracts::{Names, TOPICS, schemas};

/// A code span with one of these endings is a path.
const ENDINGS: [&str; 9] = [".rs", ".toml", ".md", ".sh", ".lua", ".avsc", ".sql", ".yml", ".svg"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Paths of all files, relative to the repository; without `target` and hidden folders except `.ci`.
fn files() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !path.is_dir() {
                found.push(path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned());
            } else if name == ".ci" || !(name.starts_with('.') || name == "target") {
                walk(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(repository(), &mut found);
    found
}

fn files_with(ending: &str) -> impl Iterator<Item = String> {
    files().into_iter().filter(move |file| file.ends_with(ending))
}

/// Every document with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let documents = files_with(".md").map(PathBuf::from).collect::<Vec<_>>();
    assert!(documents.len() > 20, "{documents:?}");
    documents.into_iter().map(|file| (file.clone(), fs::read_to_string(repository().join(file)).unwrap())).collect()
}

/// Lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Code spans without spaces and placeholders.
fn tokens(text: &str) -> Vec<String> {
    let paragraphs = prose(text).collect::<Vec<_>>().join("\n");
    let spans = paragraphs.split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    let names = spans
        .filter(|span| !span.is_empty() && !span.contains(|c: char| c.is_whitespace() || "{}*…<>=$\"".contains(c)));
    names.map(str::to_owned).collect()
}

/// The anchor of a heading, as GitHub forms it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_resolve() {
    let (mut links, mut broken) = (0, Vec::new());
    for (file, text) in documents() {
        let folder = repository().join(&file).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("http") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { repository().join(&file) } else { folder.join(path) };
            let resolves = if fragment.is_empty() {
                target.exists()
            } else {
                let page = fs::read_to_string(&target).unwrap_or_default();
                prose(&page).filter(|line| line.starts_with('#')).any(|heading| anchor(heading) == fragment)
            };
            if !resolves {
                broken.push(format!("{}: {link}", file.display()));
            }
            links += 1;
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(links > 60, "{links}");
}

#[test]
fn documents_name_files_that_exist() {
    let files = files();
    let roots = files.iter().filter_map(|file| file.split_once('/')).map(|(root, _)| root).collect::<BTreeSet<_>>();
    let (mut named, mut missing) = (0, Vec::new());
    for (document, text) in documents() {
        let folder = document.parent().unwrap();
        for token in &tokens(&text) {
            let root = token.split_once('/').map(|(root, _)| root);
            if root == Some("target") || (token.starts_with(['/', '.']) && root != Some(".ci")) {
                continue;
            }
            let whole = root.is_some_and(|root| roots.contains(root));
            if !whole && !ENDINGS.iter().any(|ending| token.ends_with(ending)) {
                continue;
            }
            // Relative to the repository, relative to the document, or the end of a file's path.
            let found = repository().join(token).exists()
                || repository().join(folder).join(token).exists()
                || (!whole && files.iter().any(|file| file == token || file.ends_with(&format!("/{token}"))));
            if !found {
                missing.push(format!("{}: {token}", document.display()));
            }
            named += 1;
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 150, "{named}");
}

#[test]
fn documents_name_tests_that_exist() {
    let sources =
        files_with(".rs").map(|file| fs::read_to_string(repository().join(file)).unwrap()).collect::<String>();
    let functions =
        sources.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()).collect::<BTreeSet<_>>();
    let (mut named, mut missing) = (0, Vec::new());
    for (document, text) in documents() {
        for token in
            tokens(&text).iter().filter(|token| token.matches('_').count() >= 4 && !token.starts_with("millrace_"))
        {
            if token.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
                if !functions.contains(token.as_str()) {
                    missing.push(format!("{}: {token}", document.display()));
                }
                named += 1;
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 30, "{named}");
}

#[test]
fn documents_name_settings_that_exist() {
    let default: toml::Table = include_str!("../../default.toml").parse().unwrap();
    let mut keys = BTreeSet::new();
    for (section, value) in &default {
        for (key, value) in value.as_table().into_iter().flatten() {
            keys.insert(format!("{section}.{key}"));
            keys.extend(value.as_table().into_iter().flatten().map(|(inner, _)| format!("{section}.{key}.{inner}")));
        }
    }
    let topics = include_str!("../../../crates/contracts/src/topic.rs");
    let (mut named, mut missing) = (0, Vec::new());
    for (document, text) in documents().into_iter().filter(|(file, _)| file != Path::new("CHANGELOG.md")) {
        for token in tokens(&text).iter().filter(|token| !topics.contains(&format!("\"{token}\""))) {
            let section = token.split_once('.').map(|(section, _)| section);
            let setting = token.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c))
                && section.is_some_and(|section| default.get(section).is_some_and(toml::Value::is_table))
                && !ENDINGS.iter().any(|ending| token.ends_with(ending));
            if setting {
                if !keys.contains(token) {
                    missing.push(format!("{}: {token}", document.display()));
                }
                named += 1;
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(named > 80, "{named}");
}

/// Cargo reads the manifest of every member, so a build of the image fails without one.
#[test]
fn the_image_is_built_from_every_workspace_member() {
    let manifest: toml::Table = fs::read_to_string(repository().join("Cargo.toml")).unwrap().parse().unwrap();
    let context = fs::read_to_string(repository().join(".dockerignore")).unwrap();
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let root = member.as_str().unwrap().split('/').next().unwrap();
        assert!(context.lines().any(|line| line.strip_prefix('!') == Some(root)), ".dockerignore lacks !{root}");
    }
}

/// Compares the table of a document with that of a source file; with `UPDATE=1` writes it.
pub(crate) fn table_is_in(document: &str, source: &str, table: &str) {
    let marks = [format!("<!-- the table of {source} -->\n"), "<!-- end -->\n".to_owned()];
    let path = repository().join(document);
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(&marks[0]).unwrap();
    let (old, after) = rest.split_once(&marks[1]).unwrap();
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        fs::write(&path, [before, &marks[0], table, &marks[1], after].concat()).unwrap();
    } else {
        assert_eq!(old, table, "{document} is behind the table of {source}: run this test with UPDATE=1");
    }
}

#[test]
fn every_schema_is_in_the_api() {
    let names = Names::default();
    let mut table = "| id | record | subject |\n|---|---|---|\n".to_owned();
    for schema in schemas() {
        let topic = TOPICS.iter().find(|topic| topic.name == schema.topic).unwrap();
        let subject = schema.subject(&names.topic(topic));
        writeln!(table, "| {} | `{}` | `{subject}` |", schema.id, schema.name).unwrap();
    }
    table_is_in("docs/api.md", "crates/contracts/src/schema.rs", &table);
}
