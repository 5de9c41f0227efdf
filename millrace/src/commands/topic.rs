//! `millrace topic`: creates, lists, describes and deletes topics.

use serde_json::Value;

use super::confirmed;
use crate::cli;
use crate::messaging::{Path, create, delete, describe, list};
use crate::settings::Settings;

/// Columns of the list.
const COLUMNS: &[&str] = &["name", "owner", "messages", "newest_at", "subscriptions"];

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
