//! Requests about push: settings with their secrets sealed, signing keys, the last attempts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_contracts::topics::{
    Change, Name, PushError, PushPatch, PushSettings, Reply, Secret, SigningKey, SubscriptionMeta, SubscriptionSettings,
};
use millrace_contracts::{Code, Refusal};
use serde_json::{Map, Value};

use super::Shared;
use super::rights;
use super::serve::On;
use crate::push::{Key, Owner, random};

/// A signing key, and its sealed form.
pub(super) struct NewKey {
    text: String,
    pub(super) sealed: Secret,
}

/// The secrets of a push subscription, opened.
pub(super) struct Opened {
    /// The keys that sign.
    pub(super) keys: Vec<Key>,
    /// The subscription's own headers.
    pub(super) headers: Vec<(String, String)>,
}

impl Opened {
    /// `None` if a secret cannot be opened.
    pub(super) fn new(
        shared: &Shared,
        (topic, subscription): (&Name, &Name),
        meta: &SubscriptionMeta,
        settings: &PushSettings,
        now_ms: i64,
    ) -> Option<Self> {
        let open = |secret| shared.config.keyring.open(Owner { topic, subscription }, secret);
        let signs = |key: &&SigningKey| key.until_ms.is_none_or(|until| until > now_ms);
        let keys = meta.signing_keys.iter().filter(signs).map(|key| Key::parse(&open(&key.secret)?));
        let headers = settings.headers.iter().map(|(name, value)| Some((name.clone(), open(value)?)));
        Some(Self { keys: keys.collect::<Option<_>>()?, headers: headers.collect::<Option<_>>()? })
    }
}

impl On<'_> {
    fn owner<'a>(&'a self, name: &'a Name) -> Owner<'a> {
        Owner { topic: self.topic, subscription: name }
    }

    /// Applies a change of mode and of the settings of push. Secrets are sealed, the endpoint's address is checked.
    pub(super) fn patch_push(
        &self,
        name: &Name,
        settings: &mut SubscriptionSettings,
        patch: &PushPatch,
    ) -> Result<(), Refusal> {
        let pushed = patch.push.unwrap_or(settings.push.is_some());
        if !pushed {
            if patch.settings.is_some() {
                return Err(Refusal::new(Code::InvalidField, "is for push subscriptions only").field("push"));
            }
            settings.push = None;
            return Ok(());
        }
        let members = match &patch.settings {
            None if settings.push.is_some() => return Ok(()),
            None => Map::new(),
            Some(text) => serde_json::from_str::<Map<String, Value>>(text)
                .map_err(|_| Refusal::new(Code::InvalidField, "must be an object").field("push"))?,
        };
        let refused = |error: PushError| Refusal::new(Code::InvalidField, error.detail).field(error.field);
        let mut patched = PushSettings::patched(settings.push.as_ref(), &members).map_err(refused)?;
        for value in patched.headers.values_mut().filter(|value| !value.sealed) {
            *value = self.shared.config.keyring.seal(self.owner(name), &value.text)?;
        }
        self.shared.sender.targets.check_url(&patched.url)?;
        settings.push = Some(patched);
        Ok(())
    }

    /// Checks the addresses of the endpoint's name. Each connection checks them again.
    pub(super) async fn check_target(&self, settings: &SubscriptionSettings) -> Result<(), Refusal> {
        let Some(push) = &settings.push else { return Ok(()) };
        let targets = &self.shared.sender.targets;
        targets.check_name(&targets.check_url(&push.url)?).await
    }

    /// A new signing key for a push subscription; `None` for another.
    pub(super) fn make_key(&self, name: &Name, settings: &SubscriptionSettings) -> Result<Option<NewKey>, Refusal> {
        if settings.push.is_none() {
            return Ok(None);
        }
        let text = STANDARD.encode(random());
        let sealed = self.shared.config.keyring.seal(self.owner(name), &text)?;
        Ok(Some(NewKey { text, sealed }))
    }

    /// What the subscription's owner keeps of a key that was made, if it is the current one.
    pub(super) fn shown(&self, name: &Name, made: Option<NewKey>) -> Option<String> {
        let made = made?;
        let inner = self.shard.lock();
        let found = inner.fold.topic(self.topic)?.subscription(name)?;
        let current = found.meta.signing_keys.first().is_some_and(|key| key.secret == made.sealed);
        let kind = found.meta.settings.push.as_ref()?.signature;
        Key::parse(&made.text).filter(|_| current).map(|key| key.shown(kind))
    }

    pub(super) async fn rotate_secret(&self, name: &Name, overlap_ms: u64) -> Result<Reply, Refusal> {
        let settings = {
            let inner = self.inner()?;
            rights::subscription(&inner, self.topic, name, self.principal)?.1.meta.settings.clone()
        };
        let made = self.make_key(name, &settings)?.ok_or_else(not_pushed)?;
        let until_ms = self.shared.clock.now_ms().saturating_add(i64::try_from(overlap_ms).unwrap_or(i64::MAX));
        let change = Change::RotateSigningKey { signing_key: made.sealed.clone(), until_ms };
        self.shard.submit(Some(self.topic), Some(name), change).await?;
        let secret = self.shown(name, Some(made));
        self.describe_subscription(name, false, secret)
    }

    pub(super) fn attempts(&self, name: &Name, limit: usize) -> Result<Reply, Refusal> {
        let inner = self.inner()?;
        let (_, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
        if found.meta.settings.push.is_none() {
            return Err(not_pushed());
        }
        let endpoint = inner.push.endpoint(self.topic, name);
        let attempts = endpoint.into_iter().flat_map(|endpoint| endpoint.attempts().take(limit).cloned());
        Ok(Reply::Attempts(attempts.collect()))
    }
}

pub(super) fn not_pushed() -> Refusal {
    Refusal::new(Code::WrongMode, "the subscription is not pushed")
}
