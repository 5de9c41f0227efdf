//! `millrace subscription`: creates, lists, describes, deletes, seeks, suspends and resumes subscriptions.

use serde_json::{Value, json};

use super::confirmed;
use crate::cli::{self, SubscriptionPath};
use crate::messaging::{Path, create, delete, describe, list, post};
use crate::settings::Settings;

/// Columns of the list.
const COLUMNS: &[&str] = &["name", "mode", "state", "backlog", "in_retry", "leased", "oldest_unacked_at"];

/// Does it.
pub(crate) async fn run(command: cli::Subscription, settings: &Settings) -> anyhow::Result<()> {
    match command {
        cli::Subscription::Create { path, start, filter, ack_deadline, order_by_key, max_attempts, manage } => {
            let given = [
                ("mode", Some("pull".into())),
                ("start", Some(start.0)),
                ("filter", filter),
                ("ack_deadline", ack_deadline.map(|span| span.to_string().into())),
                ("order", order_by_key.then(|| "key".into())),
                ("max_attempts", max_attempts.map(Value::from)),
            ];
            let what = format!("subscription {path}");
            create(&manage, settings, of(&path).with(""), given, &what).await
        }
        cli::Subscription::List { topic, prefix, manage } => {
            let path = Path::topic(&topic).with("/subscriptions");
            list(&manage, settings, &path, "subscriptions", &prefix, COLUMNS).await
        }
        cli::Subscription::Describe(one) => describe(&one.manage, settings, of(&one.path).with("")).await,
        cli::Subscription::Delete { one, yes } => {
            let question = format!("This deletes the subscription {} with its position.", one.path);
            anyhow::ensure!(yes || confirmed(&question)?, "canceled; nothing changed");
            delete(&one.manage, settings, of(&one.path).with(""), &format!("subscription {}", one.path)).await
        }
        cli::Subscription::Seek { path, to, manage } => {
            post(&manage, settings, of(&path).with(":seek"), &json!({ "to": to.0 })).await
        }
        cli::Subscription::Suspend(one) => {
            post(&one.manage, settings, of(&one.path).with(":suspend"), &json!({})).await
        }
        cli::Subscription::Resume(one) => post(&one.manage, settings, of(&one.path).with(":resume"), &json!({})).await,
    }
}

/// Where the API has a subscription.
pub(super) fn of(path: &SubscriptionPath) -> Path {
    Path::subscription(&path.topic, &path.subscription)
}
