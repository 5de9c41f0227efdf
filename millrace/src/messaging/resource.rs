//! What is done with a topic or a subscription by its path: create, list, describe, post to it, delete; and how the answer is
//! printed.

use http::Method;
use serde_json::{Map, Value};

use super::path::encoded;
use super::table::{members, table};
use super::{Call, Service};
use crate::cli::Manage;
use crate::settings::Settings;
use crate::text::print_line;

/// Items of a page.
const PAGE: usize = 1_000;

/// The service that the options name.
pub(crate) fn service(manage: &Manage, settings: &Settings) -> anyhow::Result<Service> {
    let target = manage.server.target(settings.command.listen, settings.tls.is_on())?;
    Ok(Service::new(target, manage.server.timeout, manage.patience))
}

/// Creates something with the members that are given.
pub(crate) async fn create<const N: usize>(
    manage: &Manage,
    settings: &Settings,
    path: String,
    given: [(&str, Option<Value>); N],
    what: &str,
) -> anyhow::Result<()> {
    let given: Map<String, Value> =
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let answer = service(manage, settings)?.call(&Call::new(Method::PUT, path).json(&given.into())).await?;
    let text = if answer.status == 201 { "created" } else { "exists, with these settings" };
    print_line(&if manage.json { answer.json::<Value>()?.to_string() } else { format!("{what}: {text}") });
    Ok(())
}

/// Prints all pages of a list.
pub(crate) async fn list(
    manage: &Manage,
    settings: &Settings,
    path: &str,
    member: &str,
    prefix: &str,
    columns: &[&str],
) -> anyhow::Result<()> {
    let mut service = service(manage, settings)?;
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let target = format!("{path}?limit={PAGE}&prefix={}&after={}", encoded(prefix), encoded(&after));
        let mut page: Value = service.call(&Call::new(Method::GET, target)).await?.json()?;
        if let Value::Array(items) = page[member].take() {
            all.extend(items);
        }
        match page["next"].take() {
            Value::String(next) => after = next,
            _ => break,
        }
    }
    print_line(&if manage.json { Value::Array(all).to_string() } else { table(&all, columns) });
    Ok(())
}

/// Prints the object at a path.
pub(crate) async fn describe(manage: &Manage, settings: &Settings, path: String) -> anyhow::Result<()> {
    let answer = service(manage, settings)?.call(&Call::new(Method::GET, path)).await?;
    print_object(manage, &answer.json()?);
    Ok(())
}

/// Posts to a path, and prints the object that comes back.
pub(crate) async fn post(manage: &Manage, settings: &Settings, path: String, body: &Value) -> anyhow::Result<()> {
    let answer = service(manage, settings)?.call(&Call::new(Method::POST, path).json(body)).await?;
    print_object(manage, &answer.json()?);
    Ok(())
}

/// Prints an object as the options say.
pub(crate) fn print_object(manage: &Manage, object: &Value) {
    print_line(&if manage.json { object.to_string() } else { members(object) });
}

/// Deletes what is at a path.
pub(crate) async fn delete(manage: &Manage, settings: &Settings, path: String, what: &str) -> anyhow::Result<()> {
    // After a lost answer it may be gone: then the repeat is refused as not found.
    service(manage, settings)?.call(&Call::new(Method::DELETE, path)).await?;
    if !manage.json {
        print_line(&format!("{what}: deleted"));
    }
    Ok(())
}
