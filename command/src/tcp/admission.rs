//! Who sends on a connection, and whether they may.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use millrace_service::audit::Act;
use millrace_service::auth::{Authenticator, Credential, Denial, Identity, Scope};
use millrace_service::net::ClientCertificate;

use super::reply::Closing;

/// The sender of a connection: nobody until its first line, with authentication on.
#[derive(Debug)]
pub(crate) struct Admission {
    auth: Authenticator,
    peer: IpAddr,
    /// What the client has shown in the handshake.
    certificate: Option<ClientCertificate>,
    identity: Option<Arc<Identity>>,
}

impl Admission {
    /// Nobody yet.
    pub(crate) fn new(auth: Authenticator, peer: IpAddr, certificate: Option<ClientCertificate>) -> Self {
        Self { auth, peer, certificate, identity: None }
    }

    /// Takes the token of a HELLO; without one, the certificate of the connection counts.
    ///
    /// # Errors
    /// The connection is to be closed, with this reply.
    pub(crate) fn admit(&mut self, token: Option<&str>) -> Result<(), Closing> {
        if !self.auth.is_on() {
            return Ok(());
        }
        let identity = match (token, &self.certificate) {
            (Some(token), _) => self.auth.identify(Credential::Bearer(token)),
            (None, Some(certificate)) => self.auth.identify(Credential::Certificate(certificate)),
            (None, None) => Err(Denial::Missing),
        };
        let identity = identity.map_err(|denial| self.deny(denial))?;
        if !identity.scopes.allow(Scope::IntakeWrite) {
            self.record(Denial::Scope(&[Scope::IntakeWrite]), Some(&identity));
            return Err(Closing::Forbidden);
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// Why the connection of somebody without a valid credential is closed.
    pub(crate) fn deny(&self, denial: Denial) -> Closing {
        let denial = self.auth.deny(denial, self.peer);
        self.record(denial, None);
        match denial {
            Denial::TooMany { .. } => Closing::RateLimited,
            // A client that got 401 would look for another token.
            Denial::Unavailable | Denial::UnknownKey => Closing::Unavailable,
            _ => Closing::Unauthenticated,
        }
    }

    /// Counts a denial, and records it in the audit log.
    fn record(&self, denial: Denial, identity: Option<&Identity>) {
        denial.count();
        let act = Act { source: Some(self.peer), ..Act::of_process("authenticate", "TCP HELLO") };
        self.auth.record_denial(denial, identity, act);
    }

    /// Whether nobody is known to send yet, and somebody has to be.
    pub(crate) fn is_missing(&self) -> bool {
        self.auth.is_on() && self.identity.is_none()
    }

    /// Counts frames and their bytes in the sender's limits.
    pub(crate) fn charge(&self, frames: usize, bytes: usize) {
        if let Some(identity) = &self.identity {
            identity.charge(frames as u64, bytes as u64);
        }
    }

    /// How long the sender's limits admit no further frame; zero if they do.
    pub(crate) fn wait(&self) -> Duration {
        self.identity.as_ref().map(|identity| identity.wait()).unwrap_or_default()
    }

    /// What records have of the sender: its principal, and nothing with authentication off.
    pub(crate) fn principal(&self) -> &str {
        self.identity.as_ref().map_or("", |identity| &identity.principal)
    }
}

/// The end of the sender's credential, by revocation or expiry.
#[derive(Default)]
pub(crate) enum Revocation {
    /// The sender is not known yet.
    #[default]
    Unknown,
    Pending(Pin<Box<dyn Future<Output = ()> + Send>>),
    Reported,
}

impl Revocation {
    /// Follows the sender's credential, once the sender is known.
    pub(crate) fn follow(&mut self, admission: &Admission) {
        if let (Self::Unknown, Some(identity)) = (&*self, &admission.identity) {
            *self = Self::Pending(Box::pin(identity.clone().ended()));
        }
    }

    /// Ends when the credential does, once.
    pub(crate) async fn next(&mut self) {
        match self {
            Self::Pending(ended) => ended.await,
            Self::Unknown | Self::Reported => return std::future::pending().await,
        }
        *self = Self::Reported;
    }
}
