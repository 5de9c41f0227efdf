//! The OpenAPI documents: the served ones equal `docs/api/` and have every route, method and code, and the viewer works in a
//! browser without external resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use millrace_contracts::Code;
use millrace_service::auth::routes::ROUTES;
use millrace_testkit::{ApiDocument, Browser, http, http_get, not_run, repository, target_dir};
use serde_json::Value;

use crate::run::{Up, WITHIN};

const HOW: &str = "UPDATE=1 cargo test -p millrace --test it openapi";

#[test]
fn served_documents_equal_the_repository() {
    let up = Up::start();
    for (name, address) in [("command", up.command), ("query", up.query)] {
        let served = http_get(address, "/openapi.json").unwrap();
        assert_eq!(served.header("content-type"), Some("application/json"));
        let file = repository().join(format!("docs/api/{name}.json"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, &served.body).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        assert!(kept.as_bytes() == served.body, "{} is not what {name} serves; {HOW} writes it", file.display());
        let document = ApiDocument::load(name);
        let mut ids = BTreeSet::new();
        for (path, method, said) in document.operations() {
            let id = said["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{method} {path}: {id} is taken");
        }
        // A path has the methods of the document, and no other.
        let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, item) in document.json()["paths"].as_object().unwrap() {
            let named = item.as_object().unwrap().keys().map(|name| name.to_uppercase());
            methods.entry(filled(path)).or_default().extend(named);
            // The colon in front of a verb may be encoded.
            methods.insert(filled(path).replace(':', "%3A"), methods[&filled(path)].clone());
        }
        for (path, named) in methods {
            let answer = http(address, "BREW", &path, &[], "").unwrap();
            assert_eq!(answer.status, 405, "{name} {path}");
            let allowed = answer.header("allow").unwrap_or_default().split(',').map(|word| word.trim().to_owned());
            assert_eq!(allowed.collect::<BTreeSet<_>>(), named, "{name} {path}");
        }
    }
}

/// A path of a template's route.
fn filled(template: &str) -> String {
    let part = |part: &str| match part.split_once('}') {
        Some((_, verb)) => format!("1{verb}"),
        None => part.to_owned(),
    };
    template.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Those of the earlier system, too, which are served on request. `every_route_needs_its_scope` has the other direction.
#[test]
fn every_row_of_the_table_of_routes_is_in_a_document() {
    let up = Up::with(&[("topics.legacy.enabled", "true")]);
    let documents = [up.command, up.query].map(|address| http_get(address, "/openapi.json").unwrap().json());
    for row in ROUTES {
        // The path, or the path with a verb.
        let is_of_row = |path: &str| {
            let rest = path.strip_prefix("/legacy").unwrap_or(path).strip_prefix(row.path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        for method in row.methods.iter().map(|method| method.as_str().to_lowercase()) {
            let mut paths = documents.iter().flat_map(|document| document["paths"].as_object().unwrap());
            let listed = paths.any(|(path, item)| is_of_row(path) && !item[method.as_str()].is_null());
            assert!(listed, "{method} {}", row.path);
        }
    }
}

#[test]
fn every_code_is_in_a_document() {
    let mut codes: BTreeSet<String> = [Code::Accepted, Code::NotFound, Code::MethodNotAllowed].map(word).into();
    for name in ["command", "query"] {
        let document = ApiDocument::load(name);
        for (path, method, said) in document.operations() {
            for (status, response) in said["responses"].as_object().unwrap() {
                let listed = document.codes(response);
                codes.extend(listed.iter().map(|&code| code.to_owned()));
                for code in Code::ALL.iter().filter(|code| listed.contains(&code.as_str())) {
                    let of_code = millrace_service::status_of(*code).as_u16().to_string();
                    assert_eq!(*status, of_code, "{name} {method} {path}: {code}");
                }
            }
        }
        for code in [Code::NotFound, Code::MethodNotAllowed] {
            assert!(document.json()["components"]["responses"][code.as_str()].is_object(), "{name}: {code}");
            assert!(document.json()["info"]["description"].as_str().unwrap().contains(code.as_str()), "{name}: {code}");
        }
    }
    let every: BTreeSet<String> = Code::ALL.iter().copied().map(word).collect();
    assert_eq!(codes, every);
}

fn word(code: Code) -> String {
    code.as_str().to_owned()
}

#[test]
fn viewer_works_without_external_resources() {
    let mut browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => return not_run("the viewer", "a browser", &why),
    };
    let up = Up::start();
    let shots = target_dir().join("page");
    fs::create_dir_all(&shots).unwrap();
    for (name, address) in [("command", up.command), ("query", up.query)] {
        let origin = format!("http://{address}");
        let before = browser.requests().len();
        browser.set_viewport(1280, 900, false);
        browser.open(&format!("{origin}/docs"));
        let document = ApiDocument::load(name);
        // HEAD is not listed: it is GET without the body.
        let operations = document.operations().filter(|(_, method, _)| *method != "head").count();
        let drawn = format!("document.querySelectorAll('.opblock').length == {operations}");
        assert!(browser.wait_for(&drawn, WITHIN), "{name}: {}", browser.value("document.body.innerText"));
        // What it is for comes first, and the colors are those of the browser.
        let first = browser.value("document.querySelector('.opblock-tag').dataset.tag");
        assert_eq!(first, if name == "command" { "Events" } else { "Counts" });
        browser.set_viewport(1280, 900, true);
        let dark = "parseInt(getComputedStyle(document.documentElement).backgroundColor.slice(4)) < 64";
        assert!(browser.wait_for(dark, WITHIN), "{name} is dark");
        browser.screenshot(&shots.join(format!("docs-{name}.png")));
        // An operation opens, its schemas and markdown are drawn, and it can be tried.
        let id = if name == "command" { "Events-postBatch" } else { "Dashboard-status" };
        browser.value(&format!("document.querySelector('#operations-{id} button').click()"));
        let trying = format!("document.querySelector('#operations-{id} .try-out__btn') !== null");
        assert!(browser.wait_for(&trying, WITHIN), "{name}: {id} opens");
        browser.value(&format!("document.querySelector('#operations-{id} .try-out__btn').click()"));
        let ready = format!("document.querySelector('#operations-{id} .execute') !== null");
        assert!(browser.wait_for(&ready, WITHIN), "{name}: {id} can be tried");
        browser.value(&format!("document.querySelector('#operations-{id} .execute').click()"));
        let answered = format!("document.querySelector('#operations-{id} .live-responses-table') !== null");
        assert!(browser.wait_for(&answered, WITHIN), "{name}: {id} is answered");
        let strangers: Vec<&String> = browser.requests()[before..]
            .iter()
            .filter(|url| !url.starts_with(&origin) && !url.starts_with("data:"))
            .collect();
        assert!(strangers.is_empty(), "{strangers:?}");
    }
    assert_eq!(browser.errors(), [] as [String; 0]);
    assert_ne!(browser.value("document.title"), Value::Null);
}
