//! What a token has to be.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use millrace_base::{Clock, Span};
use millrace_testkit::{SigningKey, jwk_set};
use serde_json::{Value, json};

use super::{JwtConfig, TokenRefusal, Tokens};
use crate::audit::Audit;
use crate::auth::rate::Quotas;
use crate::auth::{PrincipalLimits, Scope, Scopes};

/// Settings without a source.
pub(in crate::auth) fn config() -> JwtConfig {
    JwtConfig {
        jwks_file: "".into(),
        jwks_url: String::new(),
        jwks_ca_file: "".into(),
        jwks_refresh_interval: Span::from_secs(300),
        issuer: "https://issuer.example".into(),
        audience: "millrace".into(),
        leeway: Span::from_secs(60),
        principal_claim: "sub".into(),
        scope_claims: vec!["scope".into(), "scp".into()],
    }
}

fn unlimited() -> Arc<Quotas> {
    Quotas::new(PrincipalLimits::NONE)
}

fn now_ms() -> i64 {
    Clock::system().now_ms()
}

/// Good claims, with changes; null takes a claim away.
fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "https://issuer.example", "aud": "millrace", "sub": "ann", "exp": seconds(600), "scope": "counts:read",
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

/// A time this many seconds from now.
fn seconds(from_now: i64) -> i64 {
    now_ms() / 1_000 + from_now
}

fn encoded(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}

struct Issuer {
    rsa: SigningKey,
    ec: SigningKey,
    ed: SigningKey,
    tokens: Tokens,
}

impl Issuer {
    fn new(config: JwtConfig) -> Self {
        let (rsa, ec, ed) = (SigningKey::rs256("r"), SigningKey::es256("e"), SigningKey::eddsa("d"));
        let tokens = Tokens::new(config, unlimited(), Audit::default());
        tokens.replace(jwk_set(&[&rsa, &ec, &ed]).as_bytes()).unwrap();
        Self { rsa, ec, ed, tokens }
    }

    /// The principal of a token, or why it is refused.
    fn principal(&self, token: &str) -> Result<String, TokenRefusal> {
        self.tokens.verify(token, now_ms()).map(|identity| identity.principal.to_string())
    }
}

#[test]
fn only_what_the_issuer_has_signed_for_us_and_for_now_is_taken() {
    let issuer = Issuer::new(config());
    let Issuer { rsa, ec, ed, .. } = &issuer;
    let good = claims(&json!({}));
    let with = |changes: Value| ec.sign(&claims(&changes));
    let stranger = SigningKey::es256("e");
    let header = |base: Header, kid: Option<&str>| Header { kid: kid.map(str::to_owned), ..base };
    let crit = Header { crit: Some(vec!["exp".into()]), ..ec.header() };
    let pointing = Header {
        jku: Some("https://stranger.example/jwks".into()),
        x5u: Some("https://stranger.example/x5u".into()),
        jwk: Some(serde_json::from_value(stranger.jwk()).unwrap()),
        ..ec.header()
    };
    // The public keys as secrets: whoever verified by the token's algorithm would take them.
    let confused = |key: &SigningKey, kid: &str| {
        let jwk = key.jwk();
        let bytes = jwk["n"].as_str().or(jwk["x"].as_str()).unwrap();
        let secret = EncodingKey::from_secret(&BASE64_URL_SAFE_NO_PAD.decode(bytes).unwrap());
        encode(&header(Header::new(Algorithm::HS256), Some(kid)), &good, &secret).unwrap()
    };
    let unsigned = format!("{}.{}.", encoded(&json!({"alg": "none", "kid": "e"})), encoded(&good));
    let real = ec.sign(&good);
    let (signed, signature) = real.rsplit_once('.').unwrap();
    let other_claims =
        format!("{}.{}.{signature}", signed.split('.').next().unwrap(), encoded(&json!({"sub": "root"})));

    let taken = [
        ("RS256", rsa.sign(&good)),
        ("ES256", real.clone()),
        ("EdDSA", ed.sign(&good)),
        ("without a key id", rsa.sign_as(&header(rsa.header(), None), &good)),
        ("one of several audiences", with(json!({"aud": ["other", "millrace"]}))),
        ("expired within the leeway", with(json!({"exp": seconds(-50)}))),
        ("valid within the leeway", with(json!({"nbf": seconds(50)}))),
        ("a time with a fraction", with(json!({"exp": 4_000_000_000.5}))),
        ("keys in the header are ignored", ec.sign_as(&pointing, &good)),
    ];
    for (case, token) in taken {
        assert_eq!(issuer.principal(&token).as_deref(), Ok("jwt:ann"), "{case}");
    }
    let refused = [
        ("none", unsigned, TokenRefusal::Malformed),
        ("HS256 with the RSA key", confused(rsa, "r"), TokenRefusal::Algorithm),
        ("HS256 with the EC key", confused(ec, "e"), TokenRefusal::Algorithm),
        (
            "RS256 with the id of the EC key",
            rsa.sign_as(&header(rsa.header(), Some("e")), &good),
            TokenRefusal::Algorithm,
        ),
        (
            "ES256 with the id of the RSA key",
            ec.sign_as(&header(ec.header(), Some("r")), &good),
            TokenRefusal::Algorithm,
        ),
        ("RS512", rsa.sign_as(&header(Header::new(Algorithm::RS512), Some("r")), &good), TokenRefusal::Algorithm),
        ("PS256", rsa.sign_as(&header(Header::new(Algorithm::PS256), Some("r")), &good), TokenRefusal::Algorithm),
        ("another key of the same id", stranger.sign(&good), TokenRefusal::Signature),
        ("another key in the header", stranger.sign_as(&pointing, &good), TokenRefusal::Signature),
        ("another key without an id", stranger.sign_as(&header(ec.header(), None), &good), TokenRefusal::Signature),
        ("unknown key id", ec.sign_as(&header(ec.header(), Some("x")), &good), TokenRefusal::UnknownKey),
        ("other claims", other_claims, TokenRefusal::Signature),
        ("no signature", format!("{signed}."), TokenRefusal::Signature),
        ("critical extension", ec.sign_as(&crit, &good), TokenRefusal::Malformed),
        ("expired", with(json!({"exp": seconds(-62)})), TokenRefusal::Expired),
        ("not yet valid", with(json!({"nbf": seconds(90)})), TokenRefusal::Immature),
        ("never expires", with(json!({"exp": null})), TokenRefusal::Claims),
        ("expires as text", with(json!({"exp": "4000000000"})), TokenRefusal::Claims),
        ("wrong issuer", with(json!({"iss": "https://issuer.example/"})), TokenRefusal::Issuer),
        ("no issuer", with(json!({"iss": null})), TokenRefusal::Claims),
        ("wrong audience", with(json!({"aud": ["mill", "race"]})), TokenRefusal::Audience),
        ("no audience", with(json!({"aud": null})), TokenRefusal::Claims),
        ("no subject", with(json!({"sub": null})), TokenRefusal::Claims),
        ("empty subject", with(json!({"sub": ""})), TokenRefusal::Claims),
        ("long subject", with(json!({"sub": "s".repeat(253)})), TokenRefusal::Claims),
        ("control character", with(json!({"sub": "a\nb"})), TokenRefusal::Claims),
        ("subject of another type", with(json!({"sub": 7})), TokenRefusal::Claims),
        ("oversized", with(json!({"more": "x".repeat(8 << 10)})), TokenRefusal::TooLarge),
        ("two parts", signed.to_owned(), TokenRefusal::Malformed),
        ("five parts", format!("{real}.a.b"), TokenRefusal::Malformed),
        ("dots", "..".to_owned(), TokenRefusal::Malformed),
        ("garbage", "ä.é.\u{0}".to_owned(), TokenRefusal::Malformed),
    ];
    for (case, token, why) in refused {
        assert_eq!(issuer.principal(&token), Err(why), "{case}");
        assert_eq!(issuer.principal(&token), Err(why), "{case}, again");
    }
    assert_eq!(
        Tokens::new(config(), unlimited(), Audit::default()).verify(&real, now_ms()).err(),
        Some(TokenRefusal::NoKeys)
    );
}

#[test]
fn scopes_and_principal_come_from_the_claims_of_the_settings() {
    let scopes = |config: JwtConfig, changes: Value| {
        let issuer = Issuer::new(config);
        let identity = issuer.tokens.verify(&issuer.ed.sign(&claims(&changes)), now_ms()).unwrap();
        (identity.scopes, identity.credential.to_string())
    };
    let both: Scopes = [Scope::CountsRead, Scope::EventsWrite].into_iter().collect();
    let text = json!({"scope": "openid counts:read events:write profile", "jti": "t-1"});
    assert_eq!(scopes(config(), text), (both, "t-1".into()));
    let list = json!({"scope": null, "scp": ["counts:read", "events:write", 7]});
    let (found, credential) = scopes(config(), list);
    assert_eq!((found, credential.len()), (both, 16), "a token without an id has that of its digest");
    assert_eq!(scopes(config(), json!({"scope": null})).0, Scopes::default());
    let page = json!({"scope": "pixel:write"});
    assert_eq!(scopes(config(), page).0, Scopes::default(), "a token is nothing for a URL");
    let own = JwtConfig { scope_claims: vec!["roles".into()], principal_claim: "client".into(), ..config() };
    let issuer = Issuer::new(own);
    let token = issuer.rsa.sign(&claims(&json!({"client": "shop", "roles": ["admin"]})));
    let identity = issuer.tokens.verify(&token, now_ms()).unwrap();
    assert!(identity.scopes.contains(Scope::Admin) && &*identity.principal == "jwt:shop");
}

#[tokio::test]
async fn an_identity_ends_with_its_token_and_with_its_key() {
    let issuer = Issuer::new(config());
    let now = now_ms();
    let (brief, long) = (issuer.ec.sign(&claims(&json!({"exp": seconds(1)}))), issuer.rsa.sign(&claims(&json!({}))));
    let of_brief = issuer.tokens.verify(&brief, now).unwrap();
    let of_long = issuer.tokens.verify(&long, now).unwrap();
    let again = issuer.tokens.verify(&long, now).unwrap();
    assert!(Arc::ptr_eq(&of_long, &again), "verified once");
    assert_eq!(issuer.tokens.verify(&brief, now + 61_001).err(), Some(TokenRefusal::Expired), "although it is cached");
    assert!(of_long.is_valid(now) && of_brief.is_valid(now));

    // The issuer withdraws one key, and the tokens of the others go on.
    issuer.tokens.replace(jwk_set(&[&issuer.ec, &issuer.ed]).as_bytes()).unwrap();
    assert_eq!(issuer.tokens.verify(&long, now).err(), Some(TokenRefusal::UnknownKey));
    assert!(of_brief.is_valid(now) && !of_long.is_valid(now));
    of_long.ended().await;
    // Another key under the id of an old one is another key.
    let other = SigningKey::es256("e");
    issuer.tokens.replace(jwk_set(&[&other]).as_bytes()).unwrap();
    assert!(!of_brief.is_valid(now));
    assert_eq!(issuer.principal(&brief), Err(TokenRefusal::Signature));
}

#[test]
fn changed_keys_are_in_the_audit_log() {
    let (audit, recorded) = (Audit::default(), Arc::new(Mutex::new(Vec::new())));
    let changes = recorded.clone();
    audit.attach(
        "i".into(),
        Box::new(move |record| {
            changes.lock().unwrap().push(format!("{}: {}", record.action, record.object));
            Box::pin(std::future::ready(true))
        }),
    );
    let tokens = Tokens::new(config(), unlimited(), audit);
    let (a, b, other) = (SigningKey::es256("a"), SigningKey::es256("b"), SigningKey::es256("a"));
    let replace = |keys: &[&SigningKey]| tokens.replace(jwk_set(keys).as_bytes()).unwrap();
    replace(&[&a]);
    replace(&[&a]);
    replace(&[&a, &b]);
    replace(&[&other]);
    let changes = recorded.lock().unwrap();
    assert_eq!(*changes, ["jwks.reload: added b", "jwks.reload: changed a; removed b"], "the first keys are no change");
}

#[test]
fn a_set_of_keys_has_one_of_use_and_not_too_many() {
    let tokens = Tokens::new(config(), unlimited(), Audit::default());
    let key = SigningKey::es256("e");
    let set = |keys: Vec<Value>| json!({"keys": keys}).to_string();
    let with = |name: &str, value: Value| {
        let mut jwk = key.jwk();
        jwk[name] = value;
        set(vec![jwk])
    };
    for (bad, part) in [
        ("", "not a JWK set"),
        ("{}", "not a JWK set"),
        ("[]", "not a JWK set"),
        (&set(vec![json!({"kty": "oct", "k": "AAAA", "kid": "o", "alg": "HS256"})]), "no key for"),
        (&set(vec![json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"})]), "no key for"),
        (&with("use", json!("enc")), "no key for"),
        (&with("alg", json!("RS256")), "no key for"),
        (&with("key_ops", json!(["sign"])), "no key for"),
        (&set(vec![key.jwk(); 65]), "more than 64"),
    ] {
        let problem = tokens.replace(bad.as_bytes()).unwrap_err();
        assert!(problem.contains(part), "{bad}: {problem}");
    }
    tokens.replace(set(vec![json!({"kty": "new"}), key.jwk()]).as_bytes()).unwrap();
    let token = key.sign(&claims(&json!({})));
    assert!(tokens.verify(&token, now_ms()).is_ok());
    tokens.replace(set(Vec::new()).as_bytes()).unwrap();
    assert_eq!(tokens.verify(&token, now_ms()).err(), Some(TokenRefusal::UnknownKey), "the issuer has withdrawn all");
}

#[test]
fn settings_are_checked() {
    let keys = |config: JwtConfig| config.validate().into_iter().map(|violation| violation.key).collect::<Vec<_>>();
    let file = || JwtConfig { jwks_file: "jwks.json".into(), ..config() };
    let url = |url: &str| JwtConfig { jwks_url: url.into(), ..config() };
    for good in [
        file(),
        url("https://issuer.example/jwks"),
        url("http://127.0.0.1:1/jwks"),
        url("http://[::1]:1/"),
        url("http://localhost/jwks"),
        JwtConfig { issuer: String::new(), ..config() },
    ] {
        assert_eq!(keys(good.clone()), Vec::<String>::new(), "{good:?}");
    }
    for bad in
        ["http://issuer.example/jwks", "issuer.example", "/jwks", "ftp://x/", "https://me:it@x/", "http://127.0.0.1@x/"]
    {
        assert_eq!(keys(url(bad)), ["jwks_url"], "{bad}");
    }
    let all = JwtConfig {
        jwks_url: "https://x/".into(),
        issuer: String::new(),
        audience: String::new(),
        leeway: Span::from_secs(61),
        jwks_refresh_interval: Span::from_secs(59),
        principal_claim: String::new(),
        scope_claims: Vec::new(),
        ..file()
    };
    let expected =
        ["jwks_url", "jwks_refresh_interval", "issuer", "audience", "leeway", "principal_claim", "scope_claims"];
    assert_eq!(keys(all), expected);
    assert_eq!(keys(JwtConfig { jwks_ca_file: "ca.pem".into(), ..file() }), ["jwks_ca_file"]);
}
