//! Turns a credential into an identity, and lets a request pass or not.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use millrace_base::Clock;

use super::failures::Failures;
use super::jwt::{TokenRefusal, Tokens};
use super::keyring::Keyring;
use super::{Access, Denial, Identity, Scope, routes};
use crate::audit::{Act, Audit};
use crate::http::query_string::{Unknown, parameters};
use crate::net::ClientCertificate;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may do what in this process. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Authenticator(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// `None` with authentication off.
    pub(super) keys: Option<Keyring>,
    /// `None` without an issuer.
    pub(super) tokens: Option<Arc<Tokens>>,
    /// What this process shows to others.
    pub(super) outgoing: ArcSwapOption<HeaderValue>,
    /// Hosts that listeners on loopback serve with authentication off.
    pub(super) allowed_hosts: Arc<[String]>,
    pub(super) audit: Audit,
    pub(super) clock: Clock,
    pub(super) failures: Failures,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Authenticator(on)" } else { "Authenticator(off)" })
    }
}

/// A credential of a request, or of a client of another protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// In the scheme `Bearer`, or the token of another protocol.
    Bearer(&'a str),
    /// The password of the scheme `Basic`, which browsers send by themselves.
    Basic(&'a str),
    /// Of the handshake, which browsers show by themselves.
    Certificate(&'a ClientCertificate),
}

impl Authenticator {
    /// Authentication off: everybody is [`Identity::anonymous`].
    pub fn off() -> Self {
        Self::off_for(Arc::default())
    }

    /// As [`Self::off`]; listeners on loopback serve these hosts, too.
    pub(super) fn off_for(allowed_hosts: Arc<[String]>) -> Self {
        let (outgoing, clock, failures) = (ArcSwapOption::empty(), Clock::system(), Failures::new(0));
        let audit = Audit::default();
        Self(Arc::new(Inner { keys: None, tokens: None, outgoing, allowed_hosts, audit, clock, failures }))
    }

    /// Whether requests need a credential.
    pub fn is_on(&self) -> bool {
        self.0.keys.is_some()
    }

    /// The `Authorization` header that this process sends to other processes.
    pub fn outgoing(&self) -> Option<HeaderValue> {
        self.0.outgoing.load().as_deref().cloned()
    }

    /// The identity of a credential.
    ///
    /// # Errors
    /// It is not valid.
    pub fn identify(&self, credential: Credential<'_>) -> Result<Arc<Identity>, Denial> {
        let Some(keys) = &self.0.keys else { return Ok(Identity::anonymous()) };
        let now_ms = self.0.clock.now_ms();
        let text = match credential {
            Credential::Bearer(text) | Credential::Basic(text) => text,
            Credential::Certificate(shown) => return keys.of_certificate(shown, now_ms).ok_or(Denial::Invalid),
        };
        match &self.0.tokens {
            // Keys have no dot, tokens have two.
            Some(tokens) if text.contains('.') => tokens.verify(text, now_ms).map_err(|refusal| match refusal {
                TokenRefusal::NoKeys => Denial::Unavailable,
                TokenRefusal::UnknownKey if tokens.is_refreshing() => Denial::UnknownKey,
                _ => Denial::Invalid,
            }),
            _ => keys.verify(text, now_ms).ok_or(Denial::Invalid),
        }
    }

    /// Waits for the read of the issuer's keys because of which a denial is [`Denial::UnknownKey`].
    pub(super) async fn refreshed(&self) {
        if let Some(tokens) = &self.0.tokens {
            tokens.refreshed().await;
        }
    }

    /// The denial for a client at an address: another one, if it comes without a valid credential too often.
    pub fn deny(&self, denial: Denial, address: IpAddr) -> Denial {
        if !matches!(denial, Denial::Missing | Denial::Invalid | Denial::UnknownKey) {
            return denial;
        }
        self.0.failures.count(address).map_or_else(|retry_after| Denial::TooMany { retry_after }, |()| denial)
    }

    /// The audit log of what is done behind this authentication.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// Records a denial in the audit log. `identity` is that of the client, if its credential is valid.
    pub fn record_denial(&self, denial: Denial, identity: Option<&Identity>, act: Act<'_>) {
        if let Some(code) = denial.code() {
            let principal = identity.map_or("", |identity| &identity.principal);
            let credential = identity.map_or("", |identity| &identity.credential);
            self.0.audit.refused(Act { principal, credential, ..act }, code.as_str());
        }
    }

    /// The identity of a request's maker, and why the request may not pass although it has one: it lacks the scope. What the
    /// request itself shows goes before the certificate of its connection.
    pub(super) fn made_by(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        certificate: Option<&ClientCertificate>,
        access: Access,
    ) -> Result<(Arc<Identity>, Option<Denial>), Denial> {
        if !self.is_on() || access == Access::Open {
            return Ok((Identity::anonymous(), None));
        }
        if access == Access::Pixel
            && !headers.contains_key(AUTHORIZATION)
            && let Some(key) = key_of_query(uri)
        {
            let identity = self.identify(Credential::Bearer(&key))?;
            // Another key in a URL is as good as published.
            let fits = identity.scopes.contains(Scope::PixelWrite);
            return Ok((identity, (!fits).then_some(Denial::Scope(&[Scope::PixelWrite]))));
        }
        let mut decoded = String::new();
        let credential = match (credential_of(headers, &mut decoded), certificate) {
            (Err(Denial::Missing), Some(certificate)) => Credential::Certificate(certificate),
            (credential, _) => credential?,
        };
        let changes = !method.is_safe() || access == Access::Pixel || access == routes::PULL;
        let by_itself = !matches!(credential, Credential::Bearer(_));
        if by_itself && changes && is_cross_site(uri, headers) {
            return Err(Denial::CrossSite);
        }
        let identity = self.identify(credential)?;
        let needed: &[Scope] = match access {
            Access::Open | Access::Credential => return Ok((identity, None)),
            Access::Pixel => &[Scope::EventsWrite],
            Access::Scopes(scopes) => scopes,
        };
        let allowed = needed.iter().any(|&scope| identity.scopes.allow(scope));
        Ok((identity, (!allowed).then_some(Denial::Scope(needed))))
    }
}

/// The pixel's parameter `key`; the rest of the query string is the handler's.
fn key_of_query(uri: &Uri) -> Option<String> {
    let [key] = parameters(uri.query()?, ["key"], Unknown::Ignore).ok()?;
    key.map(std::borrow::Cow::into_owned)
}

/// The credential in the one `Authorization` header.
fn credential_of<'a>(headers: &'a HeaderMap, decoded: &'a mut String) -> Result<Credential<'a>, Denial> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?;
    if values.next().is_some() {
        return Err(Denial::Invalid);
    }
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Denial::Invalid)?;
    let rest = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credential::Bearer(rest));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Denial::Invalid);
    }
    let bytes = BASE64_STANDARD.decode(rest).map_err(|_| Denial::Invalid)?;
    *decoded = String::from_utf8(bytes).map_err(|_| Denial::Invalid)?;
    decoded.split_once(':').map(|(_user, password)| Credential::Basic(password)).ok_or(Denial::Invalid)
}

/// Whether a browser may send this request for a page of another site.
fn is_cross_site(uri: &Uri, headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let host = uri.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| headers.get(HOST)?.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_none() || origin != host
}

#[cfg(test)]
mod tests {
    use super::super::rate::Quotas;
    use super::super::{ApiKey, KeyEntry, KeyFile, PrincipalLimits};
    use super::*;

    impl Authenticator {
        /// The identity of a request's maker, if the request may pass.
        fn admit(
            &self,
            method: &Method,
            uri: &Uri,
            headers: &HeaderMap,
            access: Access,
        ) -> Result<Arc<Identity>, Denial> {
            let (identity, lacks) = self.made_by(method, uri, headers, None, access)?;
            lacks.map_or(Ok(identity), Err)
        }
    }

    fn with_keys<const N: usize>(scopes: [Scope; N]) -> (Authenticator, [ApiKey; N]) {
        let keys = scopes.map(|_| ApiKey::generate().unwrap());
        let entry = |(key, scope): (&ApiKey, &Scope)| {
            KeyEntry::new(key, "a", &[*scope], jiff::Timestamp::UNIX_EPOCH, None).unwrap()
        };
        let ring = Keyring::new(Quotas::new(PrincipalLimits::NONE));
        ring.replace(&KeyFile { keys: keys.iter().zip(&scopes).map(entry).collect() });
        let (outgoing, clock, failures) = (ArcSwapOption::empty(), Clock::system(), Failures::new(0));
        let (allowed_hosts, audit) = (Arc::default(), Audit::default());
        let inner = Inner { keys: Some(ring), tokens: None, outgoing, allowed_hosts, audit, clock, failures };
        (Authenticator(Arc::new(inner)), keys)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        pairs.iter().map(pair).fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
    }

    const READ: Access = Access::Scopes(&[Scope::CountsRead]);

    fn basic(user: &str, key: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{key}")))
    }

    #[test]
    fn takes_a_key_as_bearer_or_as_password_and_nothing_else() {
        let (auth, [key]) = with_keys([Scope::CountsRead]);
        let key = key.expose();
        let admit = |value: &str| {
            let headers = headers(&[("authorization", value)]);
            auth.admit(&Method::GET, &Uri::from_static("/"), &headers, READ).map(|identity| identity.principal.clone())
        };
        for good in [format!("Bearer {key}"), format!("bearer  {key}"), basic("", key), basic("me", key)] {
            assert_eq!(admit(&good).as_deref(), Ok("key:a"), "{good}");
        }
        let other = ApiKey::generate().unwrap();
        let long = basic("x", &"y".repeat(4_000));
        for bad in ["Bearer", "Bearer ", key, "Basic !", "Basic aGk=", &format!("Digest {key}"), &long] {
            assert_eq!(admit(bad), Err(Denial::Invalid), "{bad}");
        }
        assert_eq!(admit(&format!("Bearer {}", other.expose())), Err(Denial::Invalid));
        let admit = |headers: &HeaderMap| auth.admit(&Method::GET, &Uri::from_static("/"), headers, READ).err();
        assert_eq!(admit(&HeaderMap::new()), Some(Denial::Missing));
        let bearer = format!("Bearer {key}");
        let twice = headers(&[("authorization", &bearer), ("authorization", &bearer)]);
        assert_eq!(admit(&twice), Some(Denial::Invalid));
    }

    #[test]
    fn a_scope_is_checked_after_the_credential() {
        let (auth, [writer, admin]) = with_keys([Scope::EventsWrite, Scope::Admin]);
        let admit = |key: &ApiKey, access| {
            let headers = headers(&[("authorization", &format!("Bearer {}", key.expose()))]);
            auth.admit(&Method::GET, &Uri::from_static("/"), &headers, access).err()
        };
        assert_eq!(admit(&writer, READ), Some(Denial::Scope(&[Scope::CountsRead])));
        assert_eq!(admit(&writer, Access::Credential), None);
        assert_eq!(admit(&writer, Access::Pixel), None);
        assert_eq!(admit(&admin, READ), None);
        let none = auth.admit(&Method::GET, &Uri::from_static("/"), &HeaderMap::new(), Access::Open);
        assert_eq!(&*none.unwrap().principal, "anonymous");
    }

    #[test]
    fn a_key_in_the_url_is_good_for_the_pixel_alone() {
        let (auth, [pixel, writer]) = with_keys([Scope::PixelWrite, Scope::EventsWrite]);
        let admit = |key: &ApiKey, access| {
            let uri: Uri = format!("/pixel.gif?user=a&key={}", key.expose()).parse().unwrap();
            auth.admit(&Method::GET, &uri, &HeaderMap::new(), access).err()
        };
        assert_eq!(admit(&pixel, Access::Pixel), None);
        assert_eq!(admit(&writer, Access::Pixel), Some(Denial::Scope(&[Scope::PixelWrite])));
        assert_eq!(admit(&pixel, Access::Credential), Some(Denial::Missing));
        let headers = headers(&[("authorization", &format!("Bearer {}", pixel.expose()))]);
        let as_bearer = auth.admit(&Method::GET, &Uri::from_static("/"), &headers, READ);
        assert_eq!(as_bearer.err(), Some(Denial::Scope(&[Scope::CountsRead])));
    }

    #[test]
    fn a_browser_cannot_be_used_by_another_site() {
        let (auth, [key]) = with_keys([Scope::Admin]);
        let (basic, bearer) = (basic("", key.expose()), format!("Bearer {}", key.expose()));
        let admit = |method: Method, more: &[(&'static str, &str)]| {
            let headers = headers(&[&[("host", "here:1")], more].concat());
            auth.admit(&method, &Uri::from_static("/"), &headers, READ).err()
        };
        let basic = ("authorization", basic.as_str());
        let refused = Some(Denial::CrossSite);
        assert_eq!(admit(Method::POST, &[basic]), None, "no browser");
        assert_eq!(admit(Method::POST, &[basic, ("sec-fetch-site", "cross-site")]), refused);
        assert_eq!(admit(Method::POST, &[basic, ("sec-fetch-site", "same-site")]), refused);
        assert_eq!(admit(Method::POST, &[basic, ("sec-fetch-site", "same-origin")]), None);
        assert_eq!(admit(Method::POST, &[basic, ("origin", "https://there")]), refused);
        assert_eq!(admit(Method::POST, &[basic, ("origin", "null")]), refused);
        assert_eq!(admit(Method::POST, &[basic, ("origin", "http://here:1")]), None);
        assert_eq!(admit(Method::GET, &[basic, ("sec-fetch-site", "cross-site")]), None);
        let pull = headers(&[("host", "here:1"), basic, ("sec-fetch-site", "cross-site")]);
        let pull = auth.admit(&Method::GET, &Uri::from_static("/"), &pull, routes::PULL);
        assert_eq!(pull.err(), refused, "a pull hands messages out, although it is a GET");
        let bearer = ("authorization", bearer.as_str());
        assert_eq!(admit(Method::POST, &[bearer, ("origin", "https://there")]), None, "no browser adds it by itself");
    }

    #[test]
    fn a_header_goes_before_a_certificate_which_is_as_good_without_one() {
        let (auth, [key]) = with_keys([Scope::CountsRead]);
        let created = jiff::Timestamp::UNIX_EPOCH;
        let entry = KeyEntry::of_certificate("sensor", "s", &[Scope::CountsRead], created, None).unwrap();
        let of_key = KeyEntry::new(&key, "a", &[Scope::CountsRead], created, None).unwrap();
        auth.0.keys.as_ref().unwrap().replace(&KeyFile { keys: vec![of_key, entry] });
        let certificate = |name: &str| ClientCertificate::of(&[name], i64::MAX);
        let made_by = |name: &str, method: Method, pairs: &[(&'static str, &str)]| {
            let (uri, headers) = (Uri::from_static("/"), headers(pairs));
            let made = auth.made_by(&method, &uri, &headers, Some(&certificate(name)), READ);
            made.map(|(identity, lacks)| (identity.principal.to_string(), lacks))
        };
        let bearer = format!("Bearer {}", key.expose());
        let passes = |principal: &str| -> Result<(String, Option<Denial>), Denial> { Ok((principal.to_owned(), None)) };
        assert_eq!(made_by("sensor", Method::GET, &[]), passes("cert:sensor"));
        assert_eq!(made_by("unknown", Method::GET, &[]), Err(Denial::Invalid));
        assert_eq!(made_by("sensor", Method::GET, &[("authorization", &bearer)]), passes("key:a"));
        assert_eq!(made_by("unknown", Method::GET, &[("authorization", &bearer)]), passes("key:a"));
        assert_eq!(made_by("sensor", Method::GET, &[("authorization", "Bearer x")]), Err(Denial::Invalid));
        let foreign = [("host", "here:1"), ("origin", "https://there")];
        assert_eq!(made_by("sensor", Method::POST, &foreign), Err(Denial::CrossSite), "a browser shows it by itself");
        assert_eq!(made_by("sensor", Method::POST, &[("host", "here:1")]), passes("cert:sensor"));
    }
}
