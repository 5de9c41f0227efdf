//! The consent handshake of push subscriptions that require it, before their settings take effect.

use std::time::Duration;

use millrace_contracts::topics::{Name, PushSettings, SubscriptionSettings};
use millrace_contracts::{Code, Refusal};

use super::serve::On;

/// The longest wait for an endpoint's answer: a client waits for it.
const MAX_TIMEOUT: Duration = Duration::from_secs(15);

impl On<'_> {
    /// Requests the endpoint's consent, unless it was given for this URL before (`known`: the settings until now), and makes
    /// the rate that it allows a bound.
    pub(super) async fn request_consent(
        &self,
        known: Option<&PushSettings>,
        settings: &mut SubscriptionSettings,
    ) -> Result<(), Refusal> {
        let Some(push) = &mut settings.push else { return Ok(()) };
        push.allowed_rate = None;
        if !push.consent {
            return Ok(());
        }
        if let Some(known) = known.filter(|known| known.consent && known.url == push.url) {
            push.allowed_rate = known.allowed_rate;
            return Ok(());
        }
        let busy = |_| {
            let refusal = Refusal::new(Code::Overloaded, "too many handshakes or requests to endpoints are in flight");
            refusal.retry_after(Duration::from_secs(1))
        };
        let _handshake = self.shared.handshakes.try_acquire().map_err(busy)?;
        let _place = self.shared.in_flight.try_acquire().map_err(busy)?;
        let timeout = Duration::from_millis(push.timeout_ms).min(MAX_TIMEOUT);
        let origin = &self.shared.config.consent_origin;
        push.allowed_rate = self.shared.sender.request_consent(&push.url, timeout, origin, push.per_minute()).await?;
        Ok(())
    }

    /// The settings of push of a subscription that exists.
    pub(super) fn known_push(&self, name: &Name) -> Result<Option<PushSettings>, Refusal> {
        let inner = self.inner()?;
        let found = inner.fold.topic(self.topic).and_then(|topic| topic.subscription(name));
        Ok(found.and_then(|found| found.meta.settings.push.clone()))
    }
}
