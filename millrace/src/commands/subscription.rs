//! `millrace subscription`: creates, lists, describes, deletes, seeks, suspends, resumes and tests subscriptions.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::confirmed;
use crate::cli::{self, SubscriptionPath};
use crate::messaging::{Call, Path, create, delete, describe, list, post, print_object, service};
use crate::settings::Settings;

/// How long the service may wait for an endpoint.
const SAMPLE_WAIT: Duration = Duration::from_secs(30);
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
        cli::Subscription::Test(one) => test(&one, settings).await,
        cli::Subscription::Explain { path, offset, manage } => {
            describe(&manage, settings, of(&path).with(&format!(":explain?offset={offset}"))).await
        }
    }
}

/// Sends a sample; fails if the endpoint does not take it.
async fn test(one: &cli::One, settings: &Settings) -> anyhow::Result<()> {
    let call = Call::new(Method::POST, of(&one.path).with(":test"));
    let call = Call { wait: SAMPLE_WAIT, ..call.json(&json!({})) };
    let sample: Value = service(&one.manage, settings)?.call(&call).await?.json()?;
    print_object(&one.manage, &sample);
    let error = sample["error"].as_str();
    anyhow::ensure!(error.is_none(), "the endpoint did not take the sample: {}", error.unwrap_or_default());
    Ok(())
}

/// Where the API has a subscription.
pub(super) fn of(path: &SubscriptionPath) -> Path {
    Path::subscription(&path.topic, &path.subscription)
}
