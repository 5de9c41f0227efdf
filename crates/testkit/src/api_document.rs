//! Checks responses against the OpenAPI documents in `docs/api/`.

use std::{fmt, fs};

use serde_json::Value;

use crate::repository;

/// An OpenAPI document of the repository.
pub struct ApiDocument(Value);

/// A request and its response.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The status of the response.
    pub status: u16,
    /// The media type of the response.
    pub content_type: Option<&'a str>,
    /// The body of the response.
    pub body: &'a [u8],
}

impl fmt::Display for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, target, status, content_type, body } = self;
        write!(f, "{method} {target}: {status} {content_type:?} {}", String::from_utf8_lossy(body))
    }
}

impl ApiDocument {
    /// Loads `docs/api/{service}.json`.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn load(service: &str) -> Self {
        let file = repository().join(format!("docs/api/{service}.json"));
        let text = fs::read(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        Self(serde_json::from_slice(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display())))
    }

    /// The document as JSON.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Every operation: its path, its method, and its description.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().into_iter().flatten();
        paths.flat_map(|(path, item)| {
            item.as_object()
                .into_iter()
                .flatten()
                .map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }

    /// A response; follows `$ref`.
    pub fn resolve<'a>(&'a self, response: &'a Value) -> &'a Value {
        let target = response["$ref"].as_str().and_then(|at| self.0.pointer(at.trim_start_matches('#')));
        target.unwrap_or(response)
    }

    /// The problem codes that a response may have.
    pub fn codes<'a>(&'a self, response: &'a Value) -> Vec<&'a str> {
        let problem = &self.resolve(response)["content"]["application/problem+json"]["schema"]["allOf"][1];
        problem["properties"]["code"]["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Checks status, media type and problem code of a response.
    ///
    /// # Panics
    /// If the document does not have them.
    pub fn check(&self, exchange: &Exchange<'_>) {
        let path = exchange.target.split('?').next().unwrap_or_default();
        let method = exchange.method.to_lowercase();
        let mut same_path = self.operations().filter(|(template, ..)| matches(template, path));
        let Some((.., operation)) = same_path.find(|(_, known, _)| *known == method) else {
            // The server may refuse any request before it routes it.
            assert!(exchange.status >= 400, "not in the document: {exchange}");
            return;
        };
        let response = &operation["responses"][exchange.status.to_string()];
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
