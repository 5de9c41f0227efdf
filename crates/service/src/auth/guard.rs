//! Puts a router behind authentication.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::body::Body as _;

use super::audited::{Recording, deny};
use super::ending::EndingBody;
use super::rate::{Quota, metered};
use super::{Access, Authenticator, Denial, Identity, Scope, routes};
use crate::Problem;
use crate::http::{Hosts, Peer, legacy_error};
use crate::net::ClientCertificate;

/// What the requests to a listener need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// What the table of routes has.
    Routes,
    /// Scope `admin`, but for health.
    Admin,
    /// Nothing: they come from this machine.
    Local,
}

impl Authenticator {
    /// Puts the routes of a public listener behind the table of routes.
    pub fn protect(&self, router: Router) -> Router {
        // A layer costs each request two boxes and a copy of its route, also one that lets everything pass.
        if self.is_on() { self.guarded(router, Policy::Routes) } else { router }
    }

    /// Puts the routes of a listener for other processes behind the scope `admin`, but for `/livez` and `/readyz`.
    pub fn protect_internal(&self, router: Router) -> Router {
        if self.is_on() { self.guarded(router, Policy::Admin) } else { router }
    }

    /// As [`Self::protect_internal`], for the admin listener at `address`. On loopback requests need no credential, but the
    /// name of this machine: see [`Self::admin_hosts`]. The audit log records them, with authentication off, too.
    pub fn protect_admin(&self, router: Router, address: IpAddr) -> Router {
        self.guarded(router, if address.is_loopback() { Policy::Local } else { Policy::Admin })
    }

    /// The hosts that a public or internal listener at `address` serves. Beyond loopback, whoever reaches it needs no browser;
    /// with a credential, a page of another site has none.
    pub fn hosts(&self, address: IpAddr) -> Hosts {
        if address.is_loopback() && !self.is_on() { Hosts::Known(self.0.allowed_hosts.clone()) } else { Hosts::Any }
    }

    /// The hosts that an admin listener at `address` serves.
    pub fn admin_hosts(&self, address: IpAddr) -> Hosts {
        if address.is_loopback() { Hosts::Local } else { Hosts::Any }
    }

    fn guarded(&self, router: Router, policy: Policy) -> Router {
        router.layer(middleware::from_fn_with_state((self.clone(), policy), pass))
    }
}

async fn pass(State((auth, policy)): State<(Authenticator, Policy)>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let access = match (policy, path) {
        (Policy::Local, _) | (Policy::Admin, Some("/livez" | "/readyz")) => Access::Open,
        (Policy::Admin, _) => Access::Scopes(&[Scope::Admin]),
        (Policy::Routes, Some(path)) => routes::access(request.method(), path),
        (Policy::Routes, None) => Access::Credential,
    };
    let legacy = policy == Policy::Routes && path.is_some_and(|path| routes::legacy(path).is_some());
    let mut admitted = made_by(&auth, &request, access);
    if let (Err(denial), Some(peer)) = (&mut admitted, request.extensions().get::<Peer>()) {
        // Before it waits, so that only so many requests of an address do.
        *denial = auth.deny(*denial, peer.0);
    }
    if matches!(admitted, Err(Denial::UnknownKey)) {
        auth.refreshed().await;
        admitted = made_by(&auth, &request, access);
    }
    let (identity, lacks) = match admitted {
        Ok(admitted) => admitted,
        Err(denial) => return deny(&auth, &request, legacy, denial, None),
    };
    // Those of other listeners are processes and operators.
    let quota = identity.quota.as_ref().filter(|_| policy == Policy::Routes);
    if let Some(quota) = quota {
        let access = if lacks.is_some() { Access::Credential } else { access };
        if let Some(mut refused) = refuse(quota, access, legacy, &request) {
            if let Some(recording) = Recording::of(&request, &auth, &identity) {
                recording.end(&mut refused);
            }
            return refused;
        }
        request = metered(request, &identity);
    }
    if let Some(denial) = lacks {
        let mut response = deny(&auth, &request, legacy, denial, Some(&identity));
        if let Some(quota) = quota {
            quota.add_headers(response.headers_mut());
        }
        return response;
    }
    let mut recording = Recording::of(&request, &auth, &identity);
    if let Some(recording) = &mut recording
        && let Err(refusal) = recording.begin().await
    {
        return Problem::from(refusal).into_response();
    }
    let waits = request.method().is_safe() && !identity.credential.is_empty();
    request.extensions_mut().insert(identity.clone());
    let mut response = if waits {
        tokio::select! {
            biased;
            response = next.run(request) => response,
            // A long poll. What changes something is answered, whatever becomes of its credential meanwhile.
            () = identity.clone().ended() => return Denial::Invalid.into_response(),
        }
    } else {
        next.run(request).await
    };
    if let Some(quota) = quota {
        quota.add_headers(response.headers_mut());
    }
    if let Some(recording) = recording {
        recording.end(&mut response);
    }
    if identity.credential.is_empty() || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::new(EndingBody::new(body, identity.clone())))
}

fn made_by(auth: &Authenticator, request: &Request, access: Access) -> Result<(Arc<Identity>, Option<Denial>), Denial> {
    let certificate = request.extensions().get::<Arc<ClientCertificate>>().map(|certificate| &**certificate);
    auth.made_by(request.method(), request.uri(), request.headers(), certificate, access)
}

/// Counts a request, its first event and the length of its body; the response if that exceeds a rate.
fn refuse(quota: &Quota, access: Access, legacy: bool, request: &Request) -> Option<Response> {
    // A body of unknown length has at least a byte; the others count as they arrive.
    let bytes = request.body().size_hint().exact().unwrap_or(1);
    let exceeded = quota.admit(routes::has_event(access).into(), bytes).err()?;
    let refusal = exceeded.refusal();
    let mut response = if legacy { legacy_error(&refusal) } else { Problem::from(refusal).into_response() };
    quota.add_headers(response.headers_mut());
    Some(response)
}
