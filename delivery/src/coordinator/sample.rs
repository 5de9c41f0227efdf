//! A signed sample to an endpoint: what a request looks like, where it goes, and what the endpoint answers.

use std::time::Duration;

use http::HeaderMap;
use millrace_contracts::topics::{Delivery, Name, Reply, SampleView};
use millrace_contracts::{Code, Refusal};
use serde_json::json;

use super::push::{Opened, not_pushed};
use super::rights;
use super::serve::On;
use crate::push::{Attempted, Envelope, build};

/// The longest wait for an endpoint's answer: a client waits for it.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);

impl On<'_> {
    /// Sends a sample. It is no attempt: it settles nothing, and what is known of the endpoint stays as it is.
    pub(super) async fn sample(&self, name: &Name) -> Result<Reply, Refusal> {
        let now_ms = self.shared.clock.now_ms();
        let (settings, opened) = {
            let inner = self.inner()?;
            let (_, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
            let settings = found.meta.settings.push.clone().ok_or_else(not_pushed)?;
            let opened = Opened::new(self.shared, (self.topic, name), &found.meta, &settings, now_ms);
            let sealed = || Refusal::new(Code::Unavailable, "a secret's key is not in delivery.secrets_file");
            (settings, opened.ok_or_else(sealed)?)
        };
        let busy = |_| {
            let refusal = Refusal::new(Code::Overloaded, "too many samples or requests to endpoints are in flight");
            refusal.retry_after(Duration::from_secs(1))
        };
        let _sample = self.shared.samples.try_acquire().map_err(busy)?;
        let _place = self.shared.in_flight.try_acquire().map_err(busy)?;
        let (mode, kind) = (settings.body, settings.signature);
        let envelope = Envelope { topic: self.topic, subscription: name, mode, kind, now_ms };
        let (headers, body) = build(envelope, &message(self.topic, name, now_ms), &opened.headers, &opened.keys);
        let addresses = self.shared.sender.targets.addresses(&settings.url).await;
        let shown = shown(&headers, &opened.headers);
        let timeout = Duration::from_millis(settings.timeout_ms).min(MAX_TIMEOUT);
        let text = String::from_utf8_lossy(&body).into_owned();
        let attempted = self.shared.sender.send(&settings.url, timeout, headers, body).await;
        let Attempted { error, status, latency, answer, .. } = attempted;
        Ok(Reply::Sample(Box::new(SampleView {
            url: settings.url,
            headers: shown,
            body: text,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            status,
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
            error,
            answer,
        })))
    }
}

fn message(topic: &Name, subscription: &Name, now_ms: i64) -> Delivery {
    let body = json!({"test": true, "topic": topic.as_str(), "subscription": subscription.as_str()});
    Delivery {
        // No message has this id.
        id: format!("test-{:016x}", fastrand::u64(..)),
        offset: 0,
        published_ms: now_ms,
        token: String::new(),
        attempt: 1,
        key: None,
        content_type: "application/json".into(),
        attributes: vec![("ce-type".into(), "millrace.test".into())],
        body: body.to_string().into_bytes(),
    }
}

/// The headers without the values of the subscription's own, which may be secrets.
fn shown(headers: &HeaderMap, own: &[(String, String)]) -> Vec<(String, Option<String>)> {
    let is_own = |name: &str| own.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let value = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = |(name, text): (&http::HeaderName, _)| {
        (name.as_str().to_owned(), (!is_own(name.as_str())).then(|| value(text)))
    };
    headers.iter().map(header).collect()
}
