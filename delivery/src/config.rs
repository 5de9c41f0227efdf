//! Settings of the coordinators.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use millrace_base::{Bounds, Size, Violation};
use millrace_service::http::HttpLimits;
use millrace_store::MessageIndex;
use serde::Deserialize;

use crate::{CoordinatorConfig, Keyring, KeyringError, Targets};

/// Settings of the coordinators.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where front ends in other processes bring their calls.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
    /// The address that other processes use to reach `listen`; empty: `listen` itself.
    pub url: String,
    /// Most bytes of the newest messages in memory, for each partition.
    pub ring_size: Size,
    /// Reads of older messages at the same time, of up to 4 MiB each.
    pub max_backlog_reads: usize,
    /// Most leases of a subscription.
    pub max_leases: usize,
    /// Most requests that wait for messages.
    pub max_polls: usize,
    /// Most requests to endpoints in flight; a quarter of them to those that fail or are slow.
    pub max_in_flight: usize,
    /// Networks of this machine or private ones that push may connect to.
    pub allow_targets: Vec<IpNet>,
    /// The origin that asks endpoints for their consent: a DNS name.
    pub consent_origin: String,
    /// The file of keys that seal the secrets of endpoints; empty: none, or, embedded, one in the data directory.
    pub secrets_file: PathBuf,
    /// Bounds of the internal listener.
    pub limits: HttpLimits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8085).into(),
            admin: (Ipv4Addr::LOCALHOST, 9085).into(),
            url: String::new(),
            ring_size: Size::from_mib(64),
            max_backlog_reads: 8,
            max_leases: 100_000,
            max_polls: 2_000,
            max_in_flight: 2_000,
            allow_targets: Vec::new(),
            consent_origin: "millrace".into(),
            secrets_file: PathBuf::new(),
            limits: HttpLimits {
                max_body_bytes: Size::from_mib(2),
                max_inflated_bytes: Size::from_mib(2),
                handler_timeout: millrace_base::Span::from_secs(60),
                ..HttpLimits::default()
            },
        }
    }
}

/// The keys that seal the secrets of endpoints cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("delivery.secrets_file {file}: {error}", file = file.display())]
pub struct SecretsError {
    file: PathBuf,
    #[source]
    error: KeyringError,
}

/// Largest page of a pull in bytes.
const MAX_PAGE_BYTES: usize = 10 << 20;

impl Config {
    /// Settings outside their bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds
            .range("ring_size", &self.ring_size, &(Size::from_mib(1)..=Size::from_gib(64)))
            .range("max_backlog_reads", &self.max_backlog_reads, &(1..=256))
            .range("max_leases", &self.max_leases, &(1..=10_000_000))
            .range("max_polls", &self.max_polls, &(1..=1_000_000))
            .range("max_in_flight", &self.max_in_flight, &(4..=100_000))
            .check(is_dns_name(&self.consent_origin), "consent_origin", "1..=253 characters of a-z A-Z 0-9 . -")
            .section("limits", self.limits.validate());
        bounds.into_violations()
    }

    /// What the coordinators need of it; `scheme`: that of the listener, if other processes bring calls; `own_secrets`: a file
    /// of keys of this process alone, created if it is missing.
    ///
    /// # Errors
    /// A file of keys that cannot be read.
    pub fn coordinators(
        &self,
        scheme: Option<&str>,
        own_secrets: Option<&Path>,
        index: Option<MessageIndex>,
    ) -> Result<CoordinatorConfig, SecretsError> {
        let named = Some(&*self.secrets_file).filter(|path| !path.as_os_str().is_empty());
        let read = match (named, own_secrets) {
            (Some(path), _) => (path, Keyring::read(path)),
            (None, Some(path)) => (path, Keyring::read_or_create(path)),
            (None, None) => (Path::new(""), Ok(Keyring::default())),
        };
        let keyring = read.1.map_err(|error| SecretsError { file: read.0.to_owned(), error })?;
        let url = match (scheme, &*self.url) {
            (None, _) => String::new(),
            (Some(scheme), "") => format!("{scheme}://{}", self.listen),
            (Some(_), url) => url.trim_end_matches('/').to_owned(),
        };
        Ok(CoordinatorConfig {
            url,
            ring_bytes: usize::try_from(self.ring_size.0).unwrap_or(usize::MAX),
            max_backlog_reads: self.max_backlog_reads,
            index,
            max_page_bytes: MAX_PAGE_BYTES,
            max_leases: self.max_leases,
            max_polls: self.max_polls,
            max_in_flight: self.max_in_flight,
            targets: Targets { allowed: self.allow_targets.clone() },
            consent_origin: self.consent_origin.clone(),
            keyring: Arc::new(keyring),
        })
    }
}

fn is_dns_name(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}
