//! Requests about topics and subscriptions: rights, then a command, then its outcome as read back.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_contracts::topics::{
    Call, Change, Grant, Listing, Name, Principal, PushPatch, Reply, Request, Start, SubscriptionSettings,
    TopicSettings,
};
use millrace_contracts::{Code, Refusal};

use super::fold::Outcome;
use super::rights::{self, Right};
use super::shard::{Inner, Shard};
use super::takeover::not_in_force;
use super::{Shared, publish, pull, seek, view};

/// How often settings are computed anew when they change meanwhile.
const MAX_TRIES: usize = 8;
/// Topics that a list looks at under one lock.
const MAX_LOOKS: usize = 4_096;

/// Serves one request.
pub(super) async fn serve(shared: &Arc<Shared>, shard: &Arc<Shard>, call: Call) -> Result<Reply, Refusal> {
    let Call { topic, principal, request, .. } = call;
    if let Request::ListTopics(listing) = request {
        return Ok(list_topics(shard, &principal, listing).await);
    }
    let Some(topic) = topic else {
        return Err(Refusal::new(Code::MissingField, "the request names no topic").field("topic"));
    };
    let on = On { shared, shard, topic: &topic, principal: &principal };
    match request {
        Request::CreateTopic { settings, grants } => on.create_topic(settings, grants).await,
        Request::DescribeTopic => on.describe(false),
        Request::LookUpTopic => on.look_up(),
        Request::AlterTopic { retention_ms, delay_ms, max_message_bytes, description, if_match } => {
            let alter = |settings: &mut TopicSettings| {
                if let Some(ms) = retention_ms {
                    settings.retention_ms = ms;
                }
                if let Some(ms) = delay_ms {
                    settings.delay_ms = ms;
                }
                if let Some(bytes) = max_message_bytes {
                    settings.max_message_bytes = bytes;
                }
                if let Some(text) = &description {
                    settings.description.clone_from(text);
                }
            };
            on.alter_topic(if_match, alter).await
        }
        Request::SetGrant { principal, grant, if_match } => on.set_grant(principal, grant, if_match).await,
        Request::DeleteTopic { if_match } => on.delete_topic(if_match).await,
        Request::Publish(published) => {
            publish::publish(shared, shard, &topic, &principal, published).await.map(Reply::Published)
        }
        Request::CreateSubscription { subscription, settings, push, start } => {
            on.create_subscription(&subscription, settings, &push, start).await
        }
        Request::DescribeSubscription(name) => on.describe_subscription(&name, false, None),
        Request::ListSubscriptions(listing) => on.list_subscriptions(&listing),
        Request::AlterSubscription { subscription, filter, ack_deadline_ms, max_attempts, push, if_match } => {
            let alter = |settings: &mut SubscriptionSettings| {
                if let Some(filter) = &filter {
                    settings.filter.clone_from(filter);
                }
                if let Some(ms) = ack_deadline_ms {
                    settings.ack_deadline_ms = ms;
                }
                if let Some(attempts) = max_attempts {
                    settings.max_attempts = attempts;
                }
                on.patch_push(&subscription, settings, &push)
            };
            on.alter_subscription(&subscription, if_match, alter).await
        }
        Request::DeleteSubscription { subscription, if_match } => on.delete_subscription(&subscription, if_match).await,
        Request::RotateSecret { subscription, overlap_ms } => on.rotate_secret(&subscription, overlap_ms).await,
        Request::Attempts { subscription, limit } => on.attempts(&subscription, limit),
        Request::DeadLetters { subscription, after, limit } => on.dead_letters(&subscription, after, limit).await,
        Request::Redrive { subscription, filter } => on.redrive(&subscription, filter).await,
        Request::DescribeRedrive { subscription, id } => on.describe_redrive(&subscription, id),
        Request::Sample(name) => on.sample(&name).await,
        Request::Explain { subscription, offset } => on.explain(&subscription, offset).await,
        Request::Suspend(name) => {
            on.set_state(&name, Change::Suspend { reason: "api".into(), active_since: None }).await
        }
        Request::Resume(name) => on.set_state(&name, Change::Resume).await,
        Request::Seek { subscription, to } => on.seek(&subscription, to).await,
        Request::Pull(wanted) => pull::pull(shared, shard, &topic, &principal, &wanted).await.map(Reply::Messages),
        Request::Current(name) => on.current_message(&name).await,
        Request::AckCurrent(name) => on.ack_current(&name).await,
        Request::Ack { subscription, selection } => on.ack(&subscription, selection).await,
        Request::Nack { subscription, tokens, delay_ms } => on.retry(&subscription, &tokens, delay_ms, None).await,
        Request::Extend { subscription, tokens, lease_ms } => on.extend(&subscription, &tokens, lease_ms),
        Request::ListTopics(_) => Err(Refusal::new(Code::Internal, "a list names no topic")),
    }
}

/// A page of topics. The lock is given back now and then: few of very many may be visible.
async fn list_topics(shard: &Shard, principal: &Principal, listing: Listing) -> Reply {
    let Listing { prefix, mut after, limit } = listing;
    let mut topics = Vec::new();
    loop {
        let last = {
            let inner = shard.lock();
            let (mut looks, mut last) = (0, None);
            for (name, topic) in inner.fold.topics_after(after.as_ref(), &prefix).take(MAX_LOOKS) {
                // Those of Millrace itself only to who asks for them.
                let own = !name.is_reserved() || prefix.starts_with(Name::RESERVED);
                if own && rights::may(topic, principal, Right::See) {
                    topics.push(view::topic(&inner, shard.partition, name, topic));
                }
                if topics.len() > limit {
                    break;
                }
                (looks, last) = (looks + 1, Some(name));
            }
            last.filter(|_| looks == MAX_LOOKS).cloned()
        };
        if last.is_none() {
            let more = topics.len() > limit;
            topics.truncate(limit);
            return Reply::Topics(topics, more);
        }
        after = last;
        tokio::task::yield_now().await;
    }
}

/// One request's topic and principal.
pub(super) struct On<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) shard: &'a Arc<Shard>,
    pub(super) topic: &'a Name,
    pub(super) principal: &'a Principal,
}

impl On<'_> {
    pub(super) fn inner(&self) -> Result<std::sync::MutexGuard<'_, Inner>, Refusal> {
        let inner = self.shard.lock();
        if inner.serves() { Ok(inner) } else { Err(not_in_force()) }
    }

    fn describe(&self, created: bool) -> Result<Reply, Refusal> {
        let inner = self.inner()?;
        let topic = rights::topic(&inner, self.topic, self.principal, Right::See)?;
        let topic = Box::new(view::topic(&inner, self.shard.partition, self.topic, topic));
        Ok(Reply::Topic { topic, created })
    }

    /// Without rights: a publisher's front end checks them.
    fn look_up(&self) -> Result<Reply, Refusal> {
        let inner = self.inner()?;
        let missing = || Refusal::new(Code::NotFound, "no such topic").field("topic");
        let topic = inner.fold.topic(self.topic).ok_or_else(missing)?;
        let topic = Box::new(view::topic(&inner, self.shard.partition, self.topic, topic));
        Ok(Reply::Topic { topic, created: false })
    }

    async fn create_topic(&self, settings: TopicSettings, grants: BTreeMap<String, Grant>) -> Result<Reply, Refusal> {
        let owner = self.principal.name.clone();
        let change = Change::CreateTopic { owner, settings, grants };
        let outcome = self.shard.submit(Some(self.topic), None, change).await?;
        self.describe(outcome == Outcome::Created)
    }

    async fn alter_topic(
        &self,
        if_match: Option<String>,
        alter: impl Fn(&mut TopicSettings),
    ) -> Result<Reply, Refusal> {
        self.with_version(if_match.as_deref(), |inner, version| {
            let topic = rights::topic(inner, self.topic, self.principal, Right::Manage)?;
            let mut settings = topic.meta.settings.clone();
            alter(&mut settings);
            Ok(Change::AlterTopic { settings, version })
        })
        .await?;
        self.describe(false)
    }

    async fn set_grant(
        &self,
        principal: String,
        grant: Option<Grant>,
        if_match: Option<String>,
    ) -> Result<Reply, Refusal> {
        self.with_version(if_match.as_deref(), |inner, version| {
            let topic = rights::topic(inner, self.topic, self.principal, Right::Manage)?;
            if grant.is_none() && !topic.meta.grants.contains_key(&principal) {
                return Err(Refusal::new(Code::NotFound, "no such grant").field("principal"));
            }
            Ok(Change::SetGrant { principal: principal.clone(), grant, version })
        })
        .await?;
        Ok(Reply::Done)
    }

    /// Submits a change that was computed from a version, again if that is no longer the newest.
    async fn with_version(
        &self,
        if_match: Option<&str>,
        change: impl Fn(&Inner, u64) -> Result<Change, Refusal>,
    ) -> Result<(), Refusal> {
        for tries in 1.. {
            let (change, required) = {
                let inner = self.inner()?;
                let topic = rights::topic(&inner, self.topic, self.principal, Right::Manage)?;
                let (created, version) = (topic.meta.created, topic.meta.version);
                let required = view::required(if_match, created, version)?;
                (change(&inner, version)?, required)
            };
            match self.shard.submit(Some(self.topic), None, change).await {
                Err(refusal) if refusal.code == Code::PreconditionFailed && required.is_none() && tries < MAX_TRIES => {
                }
                Err(refusal) => return Err(refusal),
                Ok(_) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn delete_topic(&self, if_match: Option<String>) -> Result<Reply, Refusal> {
        let version = {
            let inner = self.inner()?;
            let topic = rights::topic(&inner, self.topic, self.principal, Right::Manage)?;
            if self.topic.is_reserved() {
                return Err(Refusal::new(Code::Forbidden, "the topic is one of Millrace's own").field("topic"));
            }
            view::required(if_match.as_deref(), topic.meta.created, topic.meta.version)?
        };
        self.shard.submit(Some(self.topic), None, Change::DeleteTopic { version }).await?;
        Ok(Reply::Done)
    }

    pub(super) fn describe_subscription(
        &self,
        name: &Name,
        created: bool,
        secret: Option<String>,
    ) -> Result<Reply, Refusal> {
        let inner = self.inner()?;
        let (topic, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
        let now_ms = self.shared.clock.now_ms();
        let subscription = Box::new(view::subscription(&inner, self.topic, topic, name, found, now_ms));
        Ok(Reply::Subscription { subscription, created, secret })
    }

    fn list_subscriptions(&self, listing: &Listing) -> Result<Reply, Refusal> {
        let inner = self.inner()?;
        let topic = rights::topic(&inner, self.topic, self.principal, Right::See)?;
        let manages = rights::may(topic, self.principal, Right::Manage);
        let now_ms = self.shared.clock.now_ms();
        let named = topic.subscriptions_after(listing.after.as_ref(), &listing.prefix);
        let visible = named.filter(|(_, found)| manages || found.meta.owner == self.principal.name);
        let views = visible.map(|(name, found)| view::subscription(&inner, self.topic, topic, name, found, now_ms));
        let mut subscriptions: Vec<_> = views.take(listing.limit + 1).collect();
        let more = subscriptions.len() > listing.limit;
        subscriptions.truncate(listing.limit);
        Ok(Reply::Subscriptions(subscriptions, more))
    }

    async fn create_subscription(
        &self,
        name: &Name,
        mut settings: SubscriptionSettings,
        push: &PushPatch,
        start: Start,
    ) -> Result<Reply, Refusal> {
        let topic_id = {
            let inner = self.inner()?;
            let topic = rights::topic(&inner, self.topic, self.principal, Right::Subscribe)?;
            topic.meta.created
        };
        self.patch_push(name, &mut settings, push)?;
        self.check_target(&settings).await?;
        self.request_consent(self.known_push(name)?.as_ref(), &mut settings).await?;
        let made = self.make_key(name, &settings)?;
        let (floor, floor_ordinal) = seek::resolve(self.shared, self.shard, self.topic, topic_id, start).await?;
        let owner = self.principal.name.clone();
        let signing_key = made.as_ref().map(|made| made.sealed.clone());
        let change = Change::CreateSubscription { owner, settings, floor, floor_ordinal, signing_key };
        let outcome = self.shard.submit(Some(self.topic), Some(name), change).await?;
        self.describe_subscription(name, outcome == Outcome::Created, self.shown(name, made))
    }

    async fn alter_subscription(
        &self,
        name: &Name,
        if_match: Option<String>,
        alter: impl Fn(&mut SubscriptionSettings) -> Result<(), Refusal>,
    ) -> Result<Reply, Refusal> {
        let mut made = None;
        for tries in 1.. {
            let (mut settings, known, version, required, has_key) = {
                let inner = self.inner()?;
                let (_, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
                let (created, version) = (found.meta.created, found.meta.version);
                let required = view::required(if_match.as_deref(), created, version)?;
                let mut settings = found.meta.settings.clone();
                alter(&mut settings)?;
                let known = found.meta.settings.push.clone();
                (settings, known, version, required, !found.meta.signing_keys.is_empty())
            };
            self.check_target(&settings).await?;
            self.request_consent(known.as_ref(), &mut settings).await?;
            made = if has_key { None } else { self.make_key(name, &settings)? };
            let signing_key = made.as_ref().map(|made| made.sealed.clone());
            let change = Change::AlterSubscription { settings, signing_key, version };
            match self.shard.submit(Some(self.topic), Some(name), change).await {
                Err(refusal) if refusal.code == Code::PreconditionFailed && required.is_none() && tries < MAX_TRIES => {
                }
                Err(refusal) => return Err(refusal),
                Ok(_) => break,
            }
        }
        self.look_again(name);
        let secret = self.shown(name, made);
        self.describe_subscription(name, false, secret)
    }

    /// What was passed over may match now.
    fn look_again(&self, name: &Name) {
        let mut inner = self.shard.lock();
        if let Some(reading) = inner.reading(self.topic, name) {
            reading.frontier = None;
        }
        inner.release(self.topic, name);
        inner.push.forget(self.topic, name, self.shared.clock.now_ms());
        inner.wake_one(self.topic, name);
    }

    async fn delete_subscription(&self, name: &Name, if_match: Option<String>) -> Result<Reply, Refusal> {
        let version = {
            let inner = self.inner()?;
            let (_, found) = rights::subscription(&inner, self.topic, name, self.principal)?;
            view::required(if_match.as_deref(), found.meta.created, found.meta.version)?
        };
        self.shard.submit(Some(self.topic), Some(name), Change::DeleteSubscription { version }).await?;
        Ok(Reply::Done)
    }

    async fn set_state(&self, name: &Name, change: Change) -> Result<Reply, Refusal> {
        rights::subscription(&*self.inner()?, self.topic, name, self.principal)?;
        self.shard.submit(Some(self.topic), Some(name), change).await?;
        self.look_again(name);
        self.describe_subscription(name, false, None)
    }

    async fn seek(&self, name: &Name, to: Start) -> Result<Reply, Refusal> {
        let topic_id = {
            let inner = self.inner()?;
            rights::subscription(&inner, self.topic, name, self.principal)?.0.meta.created
        };
        let (floor, floor_ordinal) = seek::resolve(self.shared, self.shard, self.topic, topic_id, to).await?;
        self.shard.submit(Some(self.topic), Some(name), Change::Seek { floor, floor_ordinal }).await?;
        self.look_again(name);
        self.describe_subscription(name, false, None)
    }
}
