//! `millrace publish`: publishes one message.

use std::fs::File;
use std::io::{Read as _, stdin};
use std::path::Path as FilePath;

use anyhow::Context as _;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use millrace_contracts::topics::encode_ce;
use serde_json::Value;

use crate::cli;
use crate::messaging::{Call, Path, service};
use crate::settings::Settings;
use crate::text::print_line;

/// No topic allows a larger message.
const MAX_BODY: u64 = 1 << 20;

/// Publishes, and prints where the message is.
pub(crate) async fn run(options: cli::Publish, settings: &Settings) -> anyhow::Result<()> {
    let mut headers = Vec::new();
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::try_from(name).with_context(|| format!("{name} is no name of an attribute"))?;
        let value = HeaderValue::try_from(value).with_context(|| format!("the value of {name} is not printable"))?;
        headers.push((name, value));
        anyhow::Ok(())
    };
    for (name, value) in &options.attributes {
        if name.starts_with("ce-") {
            add(name, &encode_ce(value))?;
        } else {
            add(&format!("x-attr-{name}"), value)?;
        }
    }
    let text = options.body.as_ref().map(|_| "text/plain; charset=utf-8".to_owned());
    let given = [
        (CONTENT_TYPE.as_str(), options.content_type.or(text)),
        ("x-key", options.key),
        ("x-deliver-after", options.after.map(|span| span.to_string())),
        ("x-deliver-at", options.at.map(|ms| ms.to_string())),
        ("idempotency-key", options.idempotency_key.clone()),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            add(name, &value)?;
        }
    }
    let body = match (options.body, options.file.as_deref()) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(path)) if path.as_os_str() != "-" => read_file(path)?,
        (None, _) => read(stdin().lock()).context("standard input")?,
    };
    let call = Call {
        headers,
        body: body.into(),
        // Without a key a message that was stored, but whose answer was lost, would be published twice.
        repeatable: options.idempotency_key.is_some(),
        ..Call::new(Method::POST, Path::topic(&options.topic).with("/messages"))
    };
    let answer: Value = service(&options.manage, settings)?.call(&call).await?.json()?;
    print_line(&if options.manage.json { answer.to_string() } else { text_of(&answer) });
    Ok(())
}

fn text_of(answer: &Value) -> String {
    let offset = answer["offset"].as_u64().map_or_else(|| "not known yet".to_owned(), |offset| offset.to_string());
    let before = if answer["duplicate"] == Value::Bool(true) { ", published before" } else { "" };
    let topic = answer["topic"].as_str().unwrap_or_default();
    let id = answer["id"].as_str().unwrap_or_default();
    format!("{topic}: partition {}, offset {offset}, id {id}{before}", answer["partition"])
}

fn read_file(path: &FilePath) -> anyhow::Result<Vec<u8>> {
    File::open(path).map_err(anyhow::Error::from).and_then(read).with_context(|| path.display().to_string())
}

fn read(from: impl std::io::Read) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(MAX_BODY + 1).read_to_end(&mut body)?;
    anyhow::ensure!(body.len() as u64 <= MAX_BODY, "larger than 1 MiB, the largest message there is");
    Ok(body)
}
