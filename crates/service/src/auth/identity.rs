//! Who makes a request.

use std::fmt;
use std::sync::{Arc, LazyLock};

use http::Extensions;
use tokio_util::sync::CancellationToken;

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
}

impl Identity {
    pub(super) fn of_key(name: &str, id: &str, scopes: Scopes) -> Self {
        Self { principal: format!("key:{name}").into(), scopes, credential: id.into(), ended: CancellationToken::new() }
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
