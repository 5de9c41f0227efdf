//! Who makes a request.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Extensions;
use millrace_base::Clock;
use tokio_util::sync::CancellationToken;

use super::rate::Quota;
use super::{Scope, Scopes};

/// The maker of a request: a principal with the scopes of the credential that it showed. With authentication on, it is in
/// the extensions of every request that a handler sees, as `Arc<Identity>`; [`Identity::of`] reads it.
#[derive(Clone)]
pub struct Identity {
    /// `key:NAME`, `jwt:SUB`, `cert:SAN`, or `anonymous` with authentication off. The prefix keeps kinds of principals
    /// apart, whatever their names.
    pub principal: Box<str>,
    /// What the credential allows.
    pub scopes: Scopes,
    /// The id of the credential, which is no secret; empty for `anonymous`.
    pub credential: Box<str>,
    /// Canceled when the credential is revoked.
    pub(super) ended: CancellationToken,
    /// From when on the credential is not valid, in ms since the epoch. `None` if `ended` is canceled then, too.
    expires_ms: Option<i64>,
    /// Its limits; `None` without any.
    pub(super) quota: Option<Quota>,
}

impl Identity {
    /// The holder of a credential that ends by `ended` alone.
    pub(super) fn new(principal: &str, credential: &str, scopes: Scopes, quota: Option<Quota>) -> Self {
        let (principal, credential) = (principal.into(), credential.into());
        Self { principal, scopes, credential, ended: CancellationToken::new(), expires_ms: None, quota }
    }

    /// As this one, of a credential that also ends at a time and with another one.
    pub(super) fn ending(self, ended: CancellationToken, expires_ms: i64) -> Self {
        Self { ended, expires_ms: Some(expires_ms), ..self }
    }

    /// This one, of a credential that also ends at a time.
    pub(super) fn until(&self, expires_ms: i64) -> Self {
        Self { expires_ms: Some(expires_ms), ..self.clone() }
    }

    /// Whether the credential is still valid.
    pub(super) fn is_valid(&self, now_ms: i64) -> bool {
        !self.ended.is_cancelled() && self.expires_ms.is_none_or(|end| now_ms < end)
    }

    /// Counts events and bytes in its limits, beyond what was counted at the admission of a request: one event.
    pub fn charge(&self, events: u64, bytes: u64) {
        if let Some(quota) = &self.quota {
            quota.charge(events, bytes);
        }
    }

    /// How long its limits admit no further event; zero if they do.
    pub fn wait(&self) -> Duration {
        self.quota.as_ref().map(Quota::wait).unwrap_or_default()
    }

    /// Ends when the credential is revoked or expires.
    pub async fn ended(self: Arc<Self>) {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = expiry(self.expires_ms) => {}
        }
    }

    /// Who makes a request. A router without authentication marks no request: then it is [`Identity::anonymous`].
    pub fn of(extensions: &Extensions) -> Arc<Self> {
        extensions.get().cloned().unwrap_or_else(Self::anonymous)
    }

    /// Everybody, with authentication off: may do everything.
    pub fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Identity>> = LazyLock::new(|| {
            Arc::new(Identity {
                principal: "anonymous".into(),
                scopes: Scopes::from_iter([Scope::Admin]),
                credential: Box::default(),
                ended: CancellationToken::new(),
                expires_ms: None,
                quota: None,
            })
        });
        ANONYMOUS.clone()
    }
}

/// Waits for a time of the wall clock, which may be set meanwhile.
async fn expiry(expires_ms: Option<i64>) {
    let Some(end) = expires_ms else { return std::future::pending().await };
    while let Ok(left @ 1..) = u64::try_from(end - Clock::system().now_ms()) {
        tokio::time::sleep(Duration::from_millis(left)).await;
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.principal).field(&self.credential).finish()
    }
}
