//! Tokens of an issuer, from the outside.

use std::fs;

use millrace_base::Clock;
use millrace_testkit::{Connection, Response, SigningKey, http, http_get, jwk_set, wait_until};
use serde_json::json;
use tempfile::TempDir;

use crate::auth::{Keys, bearer};
use crate::run::{Up, WITHIN, metric, stderr, tool};

const ISSUER: &str = "https://issuer.example";

/// An issuer whose keys are in a file.
struct Issuer {
    directory: TempDir,
    keys: Keys,
}

impl Issuer {
    fn new(keys: &[&SigningKey]) -> Self {
        let issuer = Self { directory: tempfile::tempdir().unwrap(), keys: Keys::new() };
        issuer.publish(&jwk_set(keys));
        issuer
    }

    fn file(&self) -> String {
        self.directory.path().join("jwks.json").display().to_string()
    }

    fn publish(&self, set: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, set).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn up(&self) -> Up {
        self.keys.up_with(&[
            ("auth.jwt.jwks_file", &*self.file()),
            ("auth.jwt.issuer", ISSUER),
            ("auth.jwt.audience", "millrace"),
            ("auth.jwt.leeway", "0s"),
        ])
    }
}

/// A token that expires in so many seconds.
fn token(key: &SigningKey, subject: &str, scope: &str, seconds: i64) -> String {
    let exp = Clock::system().now_ms() / 1_000 + seconds;
    key.sign(&json!({"iss": ISSUER, "aud": "millrace", "sub": subject, "scope": scope, "exp": exp}))
}

fn call(up: &Up, token: &str, method: &str, path: &str, body: &str) -> Response {
    let address = if path.starts_with("/v1") { up.command } else { up.query };
    let headers = [("authorization", &*bearer(token)), ("content-type", "application/json")];
    http(address, method, path, &headers, body).unwrap()
}

#[test]
fn a_token_is_a_principal_with_its_scopes() {
    let key = SigningKey::rs256("1");
    let issuer = Issuer::new(&[&key]);
    let up = issuer.up();
    let ann = token(&key, "ann", "topics:manage topics:publish", 600);
    let topic = call(&up, &ann, "PUT", "/v1/topics/orders", "");
    assert_eq!((topic.status, topic.json()["owner"].clone()), (201, json!("jwt:ann")));
    assert_eq!(call(&up, &ann, "POST", "/v1/topics/orders/messages", "1").status, 201);
    let refused = call(&up, &ann, "GET", "/status", "");
    assert_eq!((refused.status, &*refused.code()), (403, "forbidden"));
    assert!(refused.header("www-authenticate").unwrap().contains("scope=\"counts:read\""));
    // A key of the same name is somebody else.
    let of_key = issuer.keys.create("ann", &["topics:manage", "topics:publish"]);
    let known = || call(&up, &of_key, "GET", "/v1/topics", "").status == 200;
    assert!(wait_until(WITHIN, known));
    assert_eq!(call(&up, &of_key, "POST", "/v1/topics/orders/messages", "1").status, 403);

    let expired = token(&key, "ann", "counts:read", -1);
    let refused = call(&up, &expired, "GET", "/status", "");
    assert_eq!((refused.status, &*refused.code()), (401, "unauthenticated"));
    assert!(refused.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
    assert_eq!(up.metric("millrace_auth_tokens_refused_total{reason=\"expired\"}"), 1);
    let in_url = http_get(up.command, &format!("/pixel.gif?user=a&key={}", token(&key, "ann", "pixel:write", 600)));
    assert_eq!(in_url.unwrap().status, 403, "nothing but a key for the pixel is for a URL");
    assert!(!up.service.log().contains(&ann), "tokens are in no log");
}

#[test]
fn the_issuer_changes_its_keys_without_a_restart() {
    let (old, new) = (SigningKey::es256("old"), SigningKey::eddsa("new"));
    let issuer = Issuer::new(&[&old]);
    let up = issuer.up();
    let [of_old, of_new] = [&old, &new].map(|key| token(key, "ann", "counts:read", 600));
    let status = |token: &str| call(&up, token, "GET", "/status", "").status;
    assert_eq!((status(&of_old), status(&of_new)), (200, 401));
    issuer.publish(&jwk_set(&[&old, &new]));
    assert!(wait_until(WITHIN, || status(&of_new) == 200));
    assert_eq!(status(&of_old), 200);

    let mut live = Connection::open(up.query, WITHIN).unwrap();
    live.write_all(format!("GET /analytics/live HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", bearer(&of_old)))
        .unwrap();
    let streams = || metric(up.admin, "millrace_query_live_streams");
    assert!(wait_until(WITHIN, || streams() == 1));
    issuer.publish(&jwk_set(&[&new]));
    assert!(wait_until(WITHIN, || status(&of_old) == 401));
    assert!(wait_until(WITHIN, || streams() == 0), "what the old key has opened ends");
    assert_eq!((status(&of_new), up.metric("millrace_auth_jwks_keys")), (200, 1));

    issuer.publish("{");
    let ready = || http_get(up.admin, "/readyz").unwrap().into_text();
    assert!(wait_until(WITHIN, || ready().contains("warning: jwks: cannot read the issuer's keys")), "{}", ready());
    assert_eq!((status(&of_new), up.metric("millrace_auth_jwks_stale")), (200, 1));
}

#[test]
fn what_a_token_has_opened_ends_when_it_expires() {
    let key = SigningKey::eddsa("1");
    let issuer = Issuer::new(&[&key]);
    let up = issuer.up();
    let scopes = "topics:manage topics:subscribe counts:read";
    let long = token(&key, "ann", scopes, 600);
    assert_eq!(call(&up, &long, "PUT", "/v1/topics/t", "").status, 201);
    assert_eq!(call(&up, &long, "PUT", "/v1/topics/t/subscriptions/s", r#"{"mode":"pull"}"#).status, 201);
    let brief = token(&key, "ann", scopes, 5);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", bearer(&brief));
    let mut poll = Connection::open(up.command, WITHIN).unwrap();
    poll.write_all(get("/v1/topics/t/subscriptions/s/messages?wait=30s")).unwrap();
    let mut live = Connection::open(up.query, WITHIN).unwrap();
    live.write_all(get("/analytics/live")).unwrap();
    let streams = || metric(up.admin, "millrace_query_live_streams");
    assert!(wait_until(WITHIN, || streams() == 1));
    assert_eq!(poll.exchange("").unwrap().status, 401, "the long poll ends");
    assert!(wait_until(WITHIN, || streams() == 0), "the live stream ends");
    assert_eq!(call(&up, &brief, "GET", "/status", "").status, 401);
    assert_eq!(call(&up, &long, "GET", "/status", "").status, 200);
}

#[test]
fn nothing_starts_with_an_issuer_that_cannot_be_used() {
    let key = SigningKey::es256("1");
    let issuer = Issuer::new(&[&key]);
    let (keys_file, file) = (format!("auth.keys_file={}", issuer.keys.file().display()), issuer.file());
    let check = |settings: &[&str]| {
        let base = ["auth.mode=keys", &*keys_file, "auth.jwt.audience=a"];
        let flags = base.iter().chain(settings).flat_map(|setting| ["--set", *setting]);
        let output = tool(&["check-config"]).args(flags).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let from_file = format!("auth.jwt.jwks_file={file}");
    let (code, text) = check(&[&from_file, "auth.jwt.issuer=i"]);
    assert_eq!(code, Some(0), "{text}");
    for (settings, part) in [
        (&[&*from_file][..], "auth.jwt.issuer"),
        (&["auth.jwt.jwks_url=http://issuer.example/", "auth.jwt.issuer=i"], "auth.jwt.jwks_url"),
        (&["auth.jwt.algorithm=none"], "auth.jwt.algorithm"),
        (&["auth.jwt.jwks_file=none.json", "auth.jwt.issuer=i"], "No such file"),
    ] {
        let (code, text) = check(settings);
        assert!(code == Some(78) && text.contains(part), "{settings:?}: {text}");
    }
    issuer.publish("{}");
    let (code, text) = check(&[&from_file, "auth.jwt.issuer=i"]);
    assert!(code == Some(78) && text.contains("not a JWK set"), "{text}");
}
