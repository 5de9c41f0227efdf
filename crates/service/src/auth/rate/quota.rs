//! What a credential may use, and what its principal has used.

use std::fmt::Write as _;
use std::num::NonZeroU64;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use metrics::counter;
use millrace_contracts::{Code, Refusal, metric};

use super::PrincipalLimits;
use super::bucket::Bucket;
use crate::net::spread;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The headers of every response to a principal with limits, for documents.
pub(crate) const RATE_LIMIT_HEADERS: [(HeaderName, &str); 2] = [
    (RATE_LIMIT, "What is left of the principal's limits, as every response to a principal with limits has it."),
    (RATE_LIMIT_POLICY, "The principal's limits, as every response to a principal with limits has them."),
];

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unit {
    Requests,
    Events,
    Bytes,
}

impl Unit {
    pub(in super::super) const ALL: [Self; 3] = [Self::Requests, Self::Events, Self::Bytes];

    /// The name of the policy in headers, and the label of metrics.
    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Events => "events",
            Self::Bytes => "bytes",
        }
    }

    /// The quota unit of the draft: without one a policy counts requests.
    const fn parameter(self) -> &'static str {
        match self {
            Self::Requests => "",
            Self::Events => ";qu=\"events\"",
            Self::Bytes => ";qu=\"content-bytes\"",
        }
    }
}

/// What a principal has used, whichever of its credentials it showed.
#[derive(Debug, Default)]
pub(in super::super) struct Meter([Bucket; Unit::ALL.len()]);

impl Meter {
    /// Whether it is as good as a new one.
    pub(super) fn is_unused(&self, now: u64) -> bool {
        self.0.iter().all(|bucket| bucket.is_full(now))
    }
}

/// The limits of a credential, and the meters of its principal.
#[derive(Debug, Clone)]
pub(in super::super) struct Quota {
    /// In the order of [`Unit::ALL`].
    rates: [Option<NonZeroU64>; Unit::ALL.len()],
    policy: HeaderValue,
    meter: Arc<Meter>,
}

/// A request beyond a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Exceeded {
    unit: Unit,
    rate: NonZeroU64,
    wait: Duration,
}

impl Quota {
    /// The quota of a credential; `None` if it has no limits.
    pub(in super::super) fn new(limits: PrincipalLimits, meter: impl FnOnce() -> Arc<Meter>) -> Option<Self> {
        let PrincipalLimits { max_request_rate, max_event_rate, max_byte_rate } = limits;
        let rates = [max_request_rate.into(), max_event_rate.into(), max_byte_rate.0].map(NonZeroU64::new);
        let mut policy = String::new();
        for (unit, rate) in Unit::ALL.into_iter().zip(rates) {
            if let Some(rate) = rate {
                separate(&mut policy);
                let _ = write!(policy, "\"{}\";q={rate};w=1{}", unit.name(), unit.parameter());
            }
        }
        let policy = HeaderValue::try_from(policy).ok().filter(|policy| !policy.is_empty())?;
        Some(Self { rates, policy, meter: meter() })
    }

    /// Admits a request with so many events, and so many bytes of body, as far as they are known yet.
    ///
    /// # Errors
    /// The rate that it exceeds. Nothing is counted then.
    pub(in super::super) fn admit(&self, events: u64, bytes: u64) -> Result<(), Exceeded> {
        self.admit_at(events, bytes, now()).inspect_err(|exceeded| {
            counter!(metric::AUTH_RATE_LIMITED.name, "limit" => exceeded.unit.name()).increment(1);
        })
    }

    pub(in super::super) fn admit_at(&self, events: u64, bytes: u64, now: u64) -> Result<(), Exceeded> {
        for (unit, wanted) in [(Unit::Events, events), (Unit::Bytes, bytes)] {
            let (Some(rate), 1..) = (self.rates[unit as usize], wanted) else { continue };
            let wait = self.meter.0[unit as usize].wait(rate, now);
            if !wait.is_zero() {
                return Err(Exceeded { unit, rate, wait });
            }
        }
        if let Some(rate) = self.rates[Unit::Requests as usize] {
            let taken = self.meter.0[Unit::Requests as usize].try_take(rate, now);
            taken.map_err(|wait| Exceeded { unit: Unit::Requests, rate, wait })?;
        }
        self.charge_at(events, bytes, now);
        Ok(())
    }

    /// Counts events and bytes of what was admitted.
    pub(in super::super) fn charge(&self, events: u64, bytes: u64) {
        self.charge_at(events, bytes, now());
    }

    pub(super) fn charge_at(&self, events: u64, bytes: u64, now: u64) {
        for (unit, units) in [(Unit::Events, events), (Unit::Bytes, bytes)] {
            if let (Some(rate), 1..) = (self.rates[unit as usize], units) {
                self.meter.0[unit as usize].take(rate, units, now);
            }
        }
    }

    /// How long it takes until an event with a body would be admitted.
    pub(in super::super) fn wait(&self) -> Duration {
        let now = now();
        let wait = |unit: Unit| self.rates[unit as usize].map(|rate| self.meter.0[unit as usize].wait(rate, now));
        wait(Unit::Events).max(wait(Unit::Bytes)).unwrap_or_default()
    }

    /// Adds `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-11 to a response.
    pub(in super::super) fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, self.policy.clone());
        if let Ok(limit) = HeaderValue::try_from(self.limit_at(now())) {
            headers.insert(RATE_LIMIT, limit);
        }
    }

    /// What is left: `r` units for the next `t` seconds.
    fn limit_at(&self, now: u64) -> String {
        let mut limit = String::with_capacity(64);
        for (unit, (rate, bucket)) in Unit::ALL.into_iter().zip(self.rates.iter().zip(&self.meter.0)) {
            let Some(rate) = *rate else { continue };
            separate(&mut limit);
            let wait = whole_seconds(bucket.wait(rate, now)).max(1);
            let _ = write!(limit, "\"{}\";r={};t={wait}", unit.name(), bucket.available(rate, now));
        }
        limit
    }
}

impl Exceeded {
    /// The refusal of the request.
    pub(in super::super) fn refusal(self) -> Refusal {
        let detail = format!("more than {} {} a second", self.rate, self.unit.name());
        Refusal::new(Code::RateLimited, detail).retry_after(spread(self.wait))
    }
}

/// Rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push_str(", ");
    }
}

/// Ns since the first call in this process.
pub(in super::super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use millrace_base::Size;
    use sfv::{List, Parser};

    use super::*;

    const LIMITS: PrincipalLimits =
        PrincipalLimits { max_request_rate: 4, max_event_rate: 100, max_byte_rate: Size::from_kib(1) };
    const SECOND: u64 = 1_000_000_000;

    fn quota(limits: PrincipalLimits) -> Quota {
        Quota::new(limits, Arc::default).unwrap()
    }

    /// The refused unit and the wait in ms.
    fn refused(result: Result<(), Exceeded>) -> Option<(Unit, u128)> {
        result.err().map(|exceeded| (exceeded.unit, exceeded.wait.as_millis()))
    }

    #[test]
    fn each_rate_refuses_what_exceeds_it() {
        let quota = quota(LIMITS);
        for _ in 0..4 {
            assert_eq!(quota.admit_at(0, 0, 0), Ok(()));
        }
        assert_eq!(refused(quota.admit_at(0, 0, 0)), Some((Unit::Requests, 250)));
        // A batch, whose other 299 events are known later.
        assert_eq!(quota.admit_at(1, 10, SECOND), Ok(()));
        quota.charge_at(299, 0, SECOND);
        assert_eq!(refused(quota.admit_at(1, 10, SECOND)), Some((Unit::Events, 2_010)));
        assert_eq!(quota.admit_at(0, 5_000, SECOND), Ok(()), "what has no events is not refused for them");
        assert!(matches!(refused(quota.admit_at(0, 1, SECOND)), Some((Unit::Bytes, 3_800..=3_999))));
        assert_eq!(quota.admit_at(0, 0, SECOND), Ok(()));
        assert_eq!(quota.admit_at(1, 1, 6 * SECOND), Ok(()));
    }

    #[test]
    fn what_is_refused_counts_nowhere() {
        let quota = quota(LIMITS);
        quota.charge_at(1_000, 0, 0);
        for _ in 0..100 {
            assert!(quota.admit_at(1, 1_000, 0).is_err());
        }
        let list = quota.limit_at(0);
        assert_eq!(list, "\"requests\";r=4;t=1, \"events\";r=0;t=10, \"bytes\";r=1024;t=1");
    }

    #[test]
    fn without_limits_there_is_nothing_to_check() {
        assert!(Quota::new(PrincipalLimits::NONE, Arc::default).is_none());
        let quota = quota(PrincipalLimits { max_event_rate: 1, ..PrincipalLimits::NONE });
        assert!((0..1_000).all(|_| quota.admit_at(0, 1 << 30, 0).is_ok()));
    }

    #[test]
    fn headers_are_structured_fields_of_the_draft() {
        let quota = quota(LIMITS);
        quota.admit_at(30, 24, 0).unwrap();
        let policy = quota.policy.to_str().unwrap();
        assert_eq!(
            policy,
            "\"requests\";q=4;w=1, \"events\";q=100;w=1;qu=\"events\", \"bytes\";q=1024;w=1;qu=\"content-bytes\""
        );
        let limit = quota.limit_at(0);
        assert_eq!(limit, "\"requests\";r=3;t=1, \"events\";r=70;t=1, \"bytes\";r=1000;t=1");
        for text in [policy, &limit] {
            assert_eq!(Parser::new(text).parse::<List>().unwrap().len(), 3, "{text}");
        }
    }
}
