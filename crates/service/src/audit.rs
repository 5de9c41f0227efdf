//! The audit log: who did what, when, from where, and how it ended.
//!
//! Requests to a listener are recorded where they are authenticated (`auth`), so that no handler can forget it. This crate
//! has no log: the process attaches a sink that appends to one, as soon as it is open.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock, OnceLock};

use futures::future::BoxFuture;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use metrics::counter;
use millrace_base::Clock;
use millrace_contracts::{AuditOutcome, AuditRecord, Code, Refusal, metric};
use tokio::runtime::Handle;

use crate::auth::Failures;

/// Most refusals per second and address that a sampler admits; further ones are counted.
const MAX_REFUSALS_PER_IP: u32 = 5;
/// Most refusals per second that a sampler admits, of all addresses.
const MAX_REFUSALS: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// Longest object, in bytes; the rest is cut off.
const MAX_OBJECT: usize = 1_024;

/// Appends a record; resolves with whether it is durable, within the log's timeout for a record. The call enqueues the record
/// and never blocks: if the log's queue is full, the record is lost.
pub type AuditSink = Box<dyn Fn(&AuditRecord<'_>) -> BoxFuture<'static, bool> + Send + Sync>;

/// What somebody does.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    /// The principal; empty if it is unknown.
    pub principal: &'a str,
    /// The id of the credential; empty without one.
    pub credential: &'a str,
    /// The action.
    pub action: &'a str,
    /// The object of the action.
    pub object: &'a str,
    /// The address of the client.
    pub source: Option<IpAddr>,
    /// The id of the request.
    pub request_id: &'a str,
}

impl<'a> Act<'a> {
    /// An act without a principal, a credential, a client and a request, as those of the process itself are.
    pub fn of_process(action: &'a str, object: &'a str) -> Self {
        Self { principal: "", credential: "", action, object, source: None, request_id: "" }
    }
}

/// Records acts. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    /// The name of the instance, and where its records go.
    attached: OnceLock<(String, AuditSink)>,
    refusals_of_principals: Sampler,
    /// Apart, since whoever needs no credential could hide the others.
    refusals_of_unknown: Sampler,
    clock: Clock,
}

/// Which refusals are recorded.
struct Sampler {
    /// Allocated by the first refusal.
    by_address: LazyLock<Failures>,
    all: DefaultDirectRateLimiter,
}

impl Sampler {
    fn new() -> Self {
        Self {
            by_address: LazyLock::new(|| Failures::new(MAX_REFUSALS_PER_IP)),
            all: RateLimiter::direct(Quota::per_second(MAX_REFUSALS)),
        }
    }

    /// Counts a refusal; whether it is recorded.
    fn admit(&self, source: Option<IpAddr>) -> bool {
        source.is_none_or(|address| self.by_address.count(address).is_ok()) && self.all.check().is_ok()
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self(Arc::new(Inner {
            attached: OnceLock::new(),
            refusals_of_principals: Sampler::new(),
            refusals_of_unknown: Sampler::new(),
            clock: Clock::system(),
        }))
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

impl Audit {
    /// Sends the records to `sink`, as those of this instance. Only the first call has an effect.
    pub fn attach(&self, instance: String, sink: AuditSink) {
        let _ = self.0.attached.set((instance, sink));
    }

    /// Records the beginning of an act that must not be done without a record, and waits until the record is durable.
    ///
    /// # Errors
    /// It cannot be recorded.
    pub async fn begin(&self, act: Act<'_>) -> Result<(), Refusal> {
        if self.record(act, AuditOutcome::Begun, "").await {
            return Ok(());
        }
        Err(Refusal::new(Code::Unavailable, "the audit log does not take the record, so nothing was done"))
    }

    /// Enqueues the record of an act. Resolves with whether the record is durable.
    pub fn record(&self, act: Act<'_>, outcome: AuditOutcome, code: &str) -> impl Future<Output = bool> + Send + use<> {
        counted(self.append(act, outcome, code))
    }

    /// Records the end of an act without a wait. A lost record is counted.
    pub fn end(&self, act: Act<'_>, outcome: AuditOutcome, code: &str) {
        let recorded = self.record(act, outcome, code);
        // Only counts: the record is enqueued already. The log's queue bounds these tasks. Without a runtime the process ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(recorded);
        }
    }

    /// Records an act that was refused, without a wait. Beyond a rate per address, and one of all, it is only counted: a flood
    /// neither fills the log nor hides the refusals of others.
    pub fn refused(&self, act: Act<'_>, code: &str) {
        let sampler =
            if act.principal.is_empty() { &self.0.refusals_of_unknown } else { &self.0.refusals_of_principals };
        if sampler.admit(act.source) {
            self.end(act, AuditOutcome::Refused, code);
        } else {
            count("sampled");
        }
    }

    fn append(&self, act: Act<'_>, outcome: AuditOutcome, code: &str) -> Option<BoxFuture<'static, bool>> {
        let (instance, sink) = self.0.attached.get()?;
        let Act { principal, credential, action, object, source, request_id } = act;
        let source = source.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        Some(sink(&AuditRecord {
            time_ms: self.0.clock.now_ms(),
            principal,
            credential,
            action,
            object: &object[..object.floor_char_boundary(MAX_OBJECT)],
            outcome,
            code,
            source: &source,
            request_id,
            instance,
        }))
    }
}

/// Waits for a record and counts it; whether it is durable.
async fn counted(appended: Option<BoxFuture<'static, bool>>) -> bool {
    let written = match appended {
        Some(appended) => appended.await,
        None => false,
    };
    count(if written { "written" } else { "lost" });
    written
}

fn count(outcome: &'static str) {
    counter!(metric::AUDIT_RECORDS.name, "outcome" => outcome).increment(1);
}

/// Creates every series at 0.
pub(crate) fn register_metrics() {
    for outcome in ["written", "lost", "sampled"] {
        counter!(metric::AUDIT_RECORDS.name, "outcome" => outcome).increment(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_flood_of_one_address_hides_no_refusal_of_another() {
        let (audit, recorded) = (Audit::default(), Arc::new(Mutex::new(Vec::new())));
        let sources = recorded.clone();
        audit.attach(
            "i".into(),
            Box::new(move |record| {
                sources.lock().unwrap().push((record.source.to_owned(), record.object.len()));
                Box::pin(std::future::ready(true))
            }),
        );
        let path = "ä".repeat(MAX_OBJECT);
        let refused = |source: &str| {
            let act = Act { source: source.parse().ok(), ..Act::of_process("authenticate", &path) };
            audit.refused(act, "forbidden");
        };
        (0..1_000).for_each(|_| refused("10.0.0.1"));
        refused("10.0.0.2");
        let recorded = recorded.lock().unwrap();
        let (last, flood) = recorded.split_last().unwrap();
        assert_eq!(*last, ("10.0.0.2".to_owned(), MAX_OBJECT));
        assert!((1..1_000).contains(&flood.len()), "{}", flood.len());
        assert!(flood.iter().all(|(source, _)| source == "10.0.0.1"));
    }

    #[test]
    fn requests_without_a_principal_hide_no_refusal_of_one() {
        let (audit, recorded) = (Audit::default(), Arc::new(Mutex::new(Vec::new())));
        let principals = recorded.clone();
        audit.attach(
            "i".into(),
            Box::new(move |record| {
                principals.lock().unwrap().push(record.principal.to_owned());
                Box::pin(std::future::ready(true))
            }),
        );
        for host in 0..200_u8 {
            let act =
                Act { source: Some(IpAddr::from([10, 0, 0, host])), ..Act::of_process("authenticate", "GET /status") };
            audit.refused(act, "unauthenticated");
        }
        let source = Some(IpAddr::from([10, 0, 0, 1]));
        let act = Act { principal: "key:bob", source, ..Act::of_process("topic.delete", "/v1/topics/orders") };
        audit.refused(act, "forbidden");
        let recorded = recorded.lock().unwrap();
        assert!(recorded.len() < 200, "{}", recorded.len());
        assert_eq!(recorded.last().map(String::as_str), Some("key:bob"));
    }
}
