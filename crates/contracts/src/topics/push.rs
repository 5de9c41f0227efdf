//! How a push subscription delivers: where to, when a failed message is sent again, in which form.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

const HOUR_MS: u64 = 3_600_000;

/// How a push subscription delivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushSettings {
    /// The endpoint: http or https.
    pub url: String,
    /// For an attempt as a whole, in ms.
    pub timeout_ms: u64,
    /// When a failed message is sent again.
    pub schedule: Schedule,
    /// From the first attempt on a message is sent for so long, in ms; then it is dead-lettered.
    pub max_age_ms: u64,
    /// Statuses after which a message is dead-lettered at once.
    pub permanent_statuses: Vec<u16>,
    /// Most requests a second; `None`: no bound.
    pub rate: Option<u32>,
    /// The form of a request's body.
    pub body: BodyMode,
    /// Headers of the subscription's own.
    pub headers: BTreeMap<String, Secret>,
    /// The kind of signature.
    pub signature: SignatureKind,
    /// Whether the endpoint must agree before anything is sent to it.
    #[serde(default)]
    pub consent: bool,
    /// Most requests a minute, as the endpoint allowed when it agreed; `None`: no bound.
    #[serde(default)]
    pub allowed_rate: Option<u32>,
}

impl PushSettings {
    /// Most requests a minute, by the subscription's rate and the endpoint's; `None`: no bound.
    pub fn per_minute(&self) -> Option<u32> {
        let own = self.rate.map(|rate| rate.saturating_mul(60));
        own.into_iter().chain(self.allowed_rate).min()
    }
}

/// When a failed message is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// 1 s, doubling to 10 min.
    Exponential,
    /// The example of Standard Webhooks: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
    Webhook,
    /// Entry n, in ms, follows failure n; the last one repeats.
    List(Vec<u64>),
}

impl Schedule {
    /// The pause after the given number of failures, in ms, without jitter.
    pub fn pause_ms(&self, failures: u32) -> u64 {
        const WEBHOOK: [u64; 9] = [
            5_000,
            300_000,
            1_800_000,
            2 * HOUR_MS,
            5 * HOUR_MS,
            10 * HOUR_MS,
            14 * HOUR_MS,
            20 * HOUR_MS,
            24 * HOUR_MS,
        ];
        let index = failures.saturating_sub(1);
        let entry = |list: &[u64]| list.get(index as usize).or(list.last()).copied().unwrap_or(1_000);
        match self {
            Self::Exponential => 1_000_u64.checked_shl(index.min(20)).unwrap_or(u64::MAX).min(600_000),
            Self::Webhook => entry(&WEBHOOK),
            Self::List(list) => entry(list),
        }
    }
}

/// The form of a request's body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BodyMode {
    /// The message's body and content type, its attributes as headers.
    #[default]
    Raw,
    /// `CloudEvents` in binary mode.
    CloudeventsBinary,
    /// `CloudEvents` in structured mode, JSON.
    CloudeventsStructured,
    /// A line of a pull without its token.
    Envelope,
}

/// The kind of signature (Standard Webhooks).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignatureKind {
    /// HMAC-SHA256 with a shared secret.
    #[default]
    V1,
    /// Ed25519: the endpoint has only the public key.
    V1a,
}

/// A text that is never shown. In commands and state it is sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The text, or its sealed form.
    pub text: String,
    /// Whether it is sealed.
    pub sealed: bool,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.sealed { "Secret(sealed)" } else { "Secret(***)" })
    }
}

/// A key that an endpoint's requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// 32 bytes, base64, sealed.
    pub secret: Secret,
    /// Until when a key that was replaced still signs, ms since the epoch; `None`: it is the current one.
    pub until_ms: Option<i64>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptError {
    /// No response within the timeout.
    Timeout,
    /// No connection, or it broke.
    Connect,
    /// The host's name has no address.
    Dns,
    /// TLS failed: the certificate, above all.
    Tls,
    /// A status that is no success.
    HttpStatus,
    /// The address is not allowed.
    BlockedTarget,
    /// A redirect, which is never followed.
    Redirect,
}

impl AttemptError {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Timeout, Self::Connect, Self::Dns, Self::Tls, Self::HttpStatus, Self::BlockedTarget, Self::Redirect];

    /// The error's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::HttpStatus => "http-status",
            Self::BlockedTarget => "blocked-target",
            Self::Redirect => "redirect",
        }
    }
}

/// A failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// When, ms since the epoch.
    pub at_ms: i64,
    /// Why.
    pub error: AttemptError,
    /// The status, if the endpoint answered.
    pub status: Option<u16>,
}

/// An attempt as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// The message's offset in `messages`.
    pub offset: u64,
    /// When it began, ms since the epoch.
    pub at_ms: i64,
    /// Its number, from 1.
    pub attempt: u32,
    /// The status, if the endpoint answered.
    pub status: Option<u16>,
    /// How long it took, in ms.
    pub latency_ms: u64,
    /// Why it failed.
    pub error: Option<AttemptError>,
    /// The beginning of the answer to a failed one.
    pub answer: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_pause_as_documented() {
        let pauses = |schedule: &Schedule| (1..=11).map(|n| schedule.pause_ms(n) / 1_000).collect::<Vec<_>>();
        assert_eq!(pauses(&Schedule::Exponential), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]);
        let webhook = pauses(&Schedule::Webhook);
        assert_eq!((webhook[0], webhook[8], webhook[10]), (5, 86_400, 86_400));
        assert_eq!(webhook[..9].iter().sum::<u64>(), 75 * 3_600 + 35 * 60 + 5);
        assert_eq!(pauses(&Schedule::List(vec![1_000, 3_000]))[..4], [1, 3, 3, 3]);
    }
}
