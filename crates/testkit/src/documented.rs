//! Whether an answer is one that the service's OpenAPI document has, as it is in `docs/api/`.

use std::{fmt, fs};

use serde_json::Value;

use crate::repository;

/// An OpenAPI document of the repository.
pub struct Documented(Value);

/// What was asked and answered.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// Its media type.
    pub content_type: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
}

impl fmt::Display for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, status, content_type, body } = self;
        write!(f, "{method} {target}: {status} {content_type:?} {}", String::from_utf8_lossy(body))
    }
}

impl Documented {
    /// The document `docs/api/{service}.json`.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(service: &str) -> Self {
        let file = repository().join(format!("docs/api/{service}.json"));
        let text = fs::read(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        Self(serde_json::from_slice(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display())))
    }

    /// The document.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Every operation: its path, its method, and what is said of it.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, item)| {
            item.as_object().into_iter().flatten().map(move |(method, said)| (path.as_str(), method.as_str(), said))
        })
    }

    /// A response, looked up where it is only named.
    pub fn resolve<'a>(&'a self, response: &'a Value) -> &'a Value {
        let named = response["$ref"].as_str().and_then(|at| self.0.pointer(at.trim_start_matches('#')));
        named.unwrap_or(response)
    }

    /// The codes of problems that a response may have.
    pub fn codes<'a>(&'a self, response: &'a Value) -> Vec<&'a str> {
        let problem = &self.resolve(response)["content"]["application/problem+json"]["schema"]["allOf"][1];
        problem["properties"]["code"]["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Fails the test when the answer is not in the document: its status, its media type, its code.
    ///
    /// # Panics
    /// Then.
    pub fn check(&self, exchange: &Exchange<'_>) {
        let path = exchange.target.split('?').next().unwrap_or_default();
        let method = exchange.method.to_lowercase();
        let mut same_path = self.operations().filter(|(template, ..)| matches(template, path));
        let Some((.., said)) = same_path.find(|(_, known, _)| *known == method) else {
            // What the server says before it looks at path and method, it may say of any.
            assert!(exchange.status >= 400, "not in the document: {exchange}");
            return;
        };
        let response = &said["responses"][exchange.status.to_string()];
        assert!(!response.is_null(), "no such status in the document: {exchange}");
        let content = &self.resolve(response)["content"];
        let media = exchange.content_type.and_then(|kind| kind.split(';').next());
        let Some(media) = media.filter(|_| !exchange.body.is_empty()) else { return };
        let known = content.as_object().into_iter().flatten().any(|(kind, _)| kind.split(';').next() == Some(media));
        assert!(known, "no such media type in the document: {exchange}");
        if media == "application/problem+json" {
            let document: Value = serde_json::from_slice(exchange.body).unwrap_or_default();
            let code = document["code"].as_str().unwrap_or_default();
            assert!(self.codes(response).contains(&code), "no such code in the document: {code}: {exchange}");
        }
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let part = |(known, given): (&&str, &&str)| known == given || (known.starts_with('{') && !given.is_empty());
    template.len() == path.len() && template.iter().zip(&path).all(part)
}
