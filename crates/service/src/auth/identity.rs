//! Who makes a request.

use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::Extensions;
use tokio_util::sync::CancellationToken;

use super::rate::Quota;
use super::{Scope, Scopes};

/// The maker of a request: a principal with the scopes of the credential that it showed. With authentication on, it is in
/// the extensions of every request that a handler sees, as `Arc<Identity>`; [`Identity::of`] reads it.
pub struct Identity {
    /// `key:NAME`, or `anonymous` with authentication off. The prefix keeps kinds of principals apart, whatever their names.
    pub principal: Box<str>,
    /// What the credential allows.
    pub scopes: Scopes,
    /// The id of the credential, which is no secret; empty for `anonymous`.
    pub credential: Box<str>,
    /// Canceled when the credential is revoked or expires.
    pub ended: CancellationToken,
    /// Its limits; `None` without any.
    pub(super) quota: Option<Quota>,
}

impl Identity {
    /// The holder of a credential.
    pub(super) fn new(principal: &str, credential: &str, scopes: Scopes, quota: Option<Quota>) -> Self {
        let (principal, credential) = (principal.into(), credential.into());
        Self { principal, scopes, credential, ended: CancellationToken::new(), quota }
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
                quota: None,
            })
        });
        ANONYMOUS.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.principal).field(&self.credential).finish()
    }
}
