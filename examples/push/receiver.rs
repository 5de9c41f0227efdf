//! An endpoint of a push subscription: verifies each request (Standard Webhooks, v1 and v1a), and acts on each message once.
//!
//! ```sh
//! SECRET=whsec_… cargo run --example push-receiver -- 9000
//! ```

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a signature is verified with. Its kind selects the algorithm, never what a request names.
enum Key {
    Secret(Box<hmac::Key>),
    Public(UnparsedPublicKey<Vec<u8>>),
}

struct Hook {
    key: Key,
    /// Both ways.
    tolerance: Duration,
    /// A real one remembers ids in its database, in the transaction of what it does.
    seen: Mutex<HashSet<String>>,
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let (kind, key) = text.split_once('_')?;
        let key = STANDARD.decode(key).ok()?;
        match kind {
            "whsec" => Some(Self::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)))),
            "whpk" => Some(Self::Public(UnparsedPublicKey::new(&ED25519, key))),
            _ => None,
        }
    }

    /// Whether a signature with its version in front is one of these bytes.
    fn verifies(&self, signed: &[u8], signature: &str) -> bool {
        let Some((version, signature)) = signature.split_once(',') else { return false };
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        match self {
            Self::Secret(key) => version == "v1" && hmac::verify(key, signed, &signature).is_ok(),
            Self::Public(key) => version == "v1a" && key.verify(signed, &signature).is_ok(),
        }
    }
}

impl Hook {
    /// The id of the message, if the request is genuine.
    fn verify<'a>(&self, headers: &'a HeaderMap, body: &[u8]) -> Option<&'a str> {
        let header = |name| headers.get(name)?.to_str().ok();
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let sent = UNIX_EPOCH.checked_add(Duration::from_secs(timestamp.parse().ok()?))?;
        let now = SystemTime::now();
        let age = now.duration_since(sent).or_else(|_| sent.duration_since(now)).ok()?;
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let is_signed = header("webhook-signature")?.split(' ').any(|one| self.key.verifies(&signed, one));
        (age <= self.tolerance && is_signed).then_some(id)
    }
}

async fn hook(State(hook): State<Arc<Hook>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(id) = hook.verify(&headers, &body) else { return StatusCode::UNAUTHORIZED };
    let Ok(mut seen) = hook.seen.lock() else { return StatusCode::INTERNAL_SERVER_ERROR };
    if !seen.contains(id) {
        let line = [id.as_bytes(), b" ", &body, b"\n"].concat();
        let mut out = std::io::stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        seen.insert(id.to_owned());
    }
    StatusCode::NO_CONTENT
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = Key::parse(&std::env::var("SECRET")?).ok_or("SECRET must be whsec_… or whpk_…")?;
    let tolerance = Duration::from_secs(std::env::var("TOLERANCE").map_or(Ok(300), |text| text.parse())?);
    let port = std::env::args().nth(1).map_or(Ok(9000), |text| text.parse::<u16>())?;
    // axum reads at most 2 MB of a body.
    let app = Router::new().fallback(hook).with_state(Arc::new(Hook { key, tolerance, seen: Mutex::default() }));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, app).await?)
}
