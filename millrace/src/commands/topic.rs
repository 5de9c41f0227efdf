//! `millrace topic`: creates, lists, describes and deletes topics.

use http::Method;
use serde_json::{Map, Value};

use super::confirmed;
use crate::cli::{self, Manage};
use crate::messaging::{Call, Path, Service, encoded, members, table};
use crate::settings::Settings;
use crate::text::print_line;

/// Columns of the list.
const COLUMNS: &[&str] = &["name", "owner", "messages", "newest_at", "subscriptions"];
/// Items of a page.
const PAGE: usize = 1_000;

/// Does it.
pub(crate) async fn run(command: cli::Topic, settings: &Settings) -> anyhow::Result<()> {
    match command {
        cli::Topic::Create { topic, retention, delay, max_message_bytes, description, manage } => {
            let given = [
                ("retention", retention.map(|span| span.to_string().into())),
                ("delay", delay.map(|span| span.to_string().into())),
                ("max_message_bytes", max_message_bytes.map(Value::from)),
                ("description", description.map(Value::from)),
            ];
            let path = Path::topic(&topic).with("");
            create(&manage, settings, path, given, &format!("topic {topic}")).await
        }
        cli::Topic::List { prefix, manage } => list(&manage, settings, "/v1/topics", "topics", &prefix, COLUMNS).await,
        cli::Topic::Describe { topic, manage } => describe(&manage, settings, Path::topic(&topic).with("")).await,
        cli::Topic::Delete { topic, yes, manage } => {
            let question = format!("This deletes the topic {topic} with its messages and subscriptions.");
            anyhow::ensure!(yes || confirmed(&question)?, "canceled; nothing changed");
            delete(&manage, settings, Path::topic(&topic).with(""), &format!("topic {topic}")).await
        }
    }
}

fn service(manage: &Manage, settings: &Settings) -> Service {
    Service::new(manage.server.target(settings.command.listen), manage.server.timeout, manage.patience)
}

/// Creates something with the members that are given.
pub(super) async fn create<const N: usize>(
    manage: &Manage,
    settings: &Settings,
    path: String,
    given: [(&str, Option<Value>); N],
    what: &str,
) -> anyhow::Result<()> {
    let given: Map<String, Value> =
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let answer = service(manage, settings).call(&Call::new(Method::PUT, path).json(&given.into())).await?;
    let text = if answer.status == 201 { "created" } else { "exists, with these settings" };
    print_line(&if manage.json { answer.json::<Value>()?.to_string() } else { format!("{what}: {text}") });
    Ok(())
}

/// Prints all pages of a list.
pub(super) async fn list(
    manage: &Manage,
    settings: &Settings,
    path: &str,
    member: &str,
    prefix: &str,
    columns: &[&str],
) -> anyhow::Result<()> {
    let mut service = service(manage, settings);
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
pub(super) async fn describe(manage: &Manage, settings: &Settings, path: String) -> anyhow::Result<()> {
    let answer = service(manage, settings).call(&Call::new(Method::GET, path)).await?;
    print_object(manage, &answer.json()?);
    Ok(())
}

/// Posts to a path, and prints the object that comes back.
pub(super) async fn post(manage: &Manage, settings: &Settings, path: String, body: &Value) -> anyhow::Result<()> {
    let answer = service(manage, settings).call(&Call::new(Method::POST, path).json(body)).await?;
    print_object(manage, &answer.json()?);
    Ok(())
}

fn print_object(manage: &Manage, object: &Value) {
    print_line(&if manage.json { object.to_string() } else { members(object) });
}

/// Deletes what is at a path.
pub(super) async fn delete(manage: &Manage, settings: &Settings, path: String, what: &str) -> anyhow::Result<()> {
    // After a lost answer it may be gone: then the repeat is refused as not found.
    service(manage, settings).call(&Call::new(Method::DELETE, path)).await?;
    if !manage.json {
        print_line(&format!("{what}: deleted"));
    }
    Ok(())
}
