//! Who may do what with a topic or a subscription.

use millrace_contracts::topics::{Grant, Name, Principal};
use millrace_contracts::{Code, Refusal};

use super::fold::{Subscription, Topic};
use super::shard::Inner;

/// What a request does with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    See,
    Publish,
    Subscribe,
    Manage,
}

/// A topic that exists and that the principal may use so.
pub(super) fn topic<'a>(
    inner: &'a Inner,
    name: &Name,
    principal: &Principal,
    right: Right,
) -> Result<&'a Topic, Refusal> {
    let topic = inner.fold.topic(name).ok_or_else(|| missing("topic"))?;
    if may(topic, principal, right) { Ok(topic) } else { Err(forbidden("topic")) }
}

pub(super) fn may(topic: &Topic, principal: &Principal, right: Right) -> bool {
    let owner = principal.admin || topic.meta.owner == principal.name;
    let grant = Grant::of(&topic.meta.grants, &principal.name);
    owner
        || grant.manage
        || match right {
            Right::See => grant.publish || grant.subscribe,
            Right::Publish => grant.publish,
            Right::Subscribe => grant.subscribe,
            Right::Manage => false,
        }
}

/// A subscription that exists and that the principal may use: its owner, or whoever manages the topic.
pub(super) fn subscription<'a>(
    inner: &'a Inner,
    topic: &Name,
    name: &Name,
    principal: &Principal,
) -> Result<(&'a Topic, &'a Subscription), Refusal> {
    let found = inner.fold.topic(topic).ok_or_else(|| missing("topic"))?;
    let subscription = found.subscription(name).ok_or_else(|| missing("subscription"))?;
    if subscription.meta.owner == principal.name || may(found, principal, Right::Manage) {
        Ok((found, subscription))
    } else {
        Err(forbidden("subscription"))
    }
}

fn missing(field: &'static str) -> Refusal {
    Refusal::new(Code::NotFound, format!("no such {field}")).field(field)
}

fn forbidden(field: &'static str) -> Refusal {
    Refusal::new(Code::Forbidden, format!("the {field} belongs to another principal")).field(field)
}
