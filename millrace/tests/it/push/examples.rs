//! The endpoints in `examples/push`: each against the table of vectors, and as an endpoint of a subscription.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use millrace_testkit::{Child, Connection, free_port, millrace_bin, not_run, repository, request, wait_until};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use super::{ALLOWED, settled};
use crate::run::{Up, WITHIN};
use crate::topics::Api;

/// A request, and whether it is genuine.
#[derive(Deserialize)]
pub(super) struct Vector {
    pub(super) name: String,
    pub(super) genuine: bool,
    pub(super) key: String,
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) body_base64: String,
    pub(super) signature: Option<String>,
}

/// An example that can run here.
struct Example {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<PathBuf>,
    /// Whether it verifies Ed25519, too.
    v1a: bool,
}

/// A running example.
struct Running {
    process: Child,
    log: PathBuf,
    address: SocketAddr,
}

/// The table in `examples/push`.
pub(super) fn vectors() -> Vec<Vector> {
    serde_json::from_str(&std::fs::read_to_string(file("vectors.json")).unwrap()).unwrap()
}

fn file(name: &str) -> PathBuf {
    repository().join("examples/push").join(name)
}

fn runs(program: &str, argument: &str) -> bool {
    let probe = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    if probe.is_err() {
        not_run("an example of an endpoint", program, "it is not installed");
    }
    probe.is_ok()
}

/// The examples; what one needs that is not installed leaves it out, and fails in CI.
fn examples(folder: &TempDir) -> Vec<Example> {
    let mut examples = Vec::new();
    let mut add = |name, program: PathBuf, arguments: Vec<PathBuf>, v1a| {
        examples.push(Example { name, program, arguments, v1a });
    };
    if runs("python3", "--version") {
        add("python", "python3".into(), vec![file("receiver.py")], false);
    }
    if runs("node", "--version") {
        add("javascript", "node".into(), vec![file("receiver.mjs")], true);
    }
    if runs("openssl", "version") && runs("nc", "-h") {
        add("bash", file("receiver.sh"), vec![], false);
    }
    if runs("go", "version") {
        let program = folder.path().join("receiver-go");
        let mut build = Command::new("go");
        build.arg("build").arg("-o").args([&program, &file("receiver.go")]).env("GOTOOLCHAIN", "local");
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        add("go", program, vec![], true);
    }
    let rust = millrace_bin().with_file_name("examples").join("push-receiver");
    if rust.is_file() {
        add("rust", rust, vec![], true);
    } else {
        not_run("the endpoint in Rust", "target/debug/examples/push-receiver", "it is not built");
    }
    examples
}

impl Running {
    /// Starts an example and waits until it refuses a request that is not signed.
    fn start(example: &Example, folder: &TempDir, port: u16, secret: &str, more: &[(&str, &str)]) -> Self {
        let log = folder.path().join(format!("{}-{port}", example.name));
        let mut command = Command::new(&example.program);
        command.args(&example.arguments).arg(port.to_string()).env("SECRET", secret).envs(more.iter().copied());
        let process = Child::spawn(&mut command, &log).unwrap();
        let running = Self { process, log, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        assert_eq!(running.post(&[], b"not signed"), 401, "{}", example.name);
        running
    }

    /// The status of the answer. A connection that is refused or lost is tried again: the same request again is safe.
    fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> u16 {
        let request = request("POST", "/hook", &[headers, &[("connection", "close")]].concat(), body);
        let mut status = None;
        let answered = wait_until(WITHIN, || {
            let exchanged = Connection::open(self.address, WITHIN).and_then(|mut one| one.exchange(&request));
            status = exchanged.ok().map(|response| response.status);
            status.is_some()
        });
        assert!(answered, "no answer: {}", self.process.log_tail());
        status.unwrap()
    }

    fn output(&self) -> Vec<u8> {
        std::fs::read(&self.log).unwrap()
    }

    /// Waits until the output is this.
    fn expect(&self, what: &str, expected: &[u8]) {
        let equal = || self.output() == expected;
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(wait_until(WITHIN, equal), "{what}: {:?}, not {:?}", shown(&self.output()), shown(expected));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The one in bash has children to end.
        self.process.terminate();
        let _ = self.process.wait(Duration::from_secs(5));
    }
}

fn line(id: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b" ", body, b"\n"].concat()
}

#[test]
fn examples_act_once_and_refuse_what_is_forged() {
    let vectors = vectors();
    let keys: BTreeSet<&str> = vectors.iter().map(|vector| &*vector.key).collect();
    assert_eq!(keys.len(), 2, "a shared key and a public one");
    let folder = tempfile::tempdir().unwrap();
    for example in examples(&folder) {
        for key in keys.iter().filter(|key| example.v1a || key.starts_with("whsec_")) {
            // The vectors are of 2021.
            let running = Running::start(&example, &folder, free_port(), key, &[("TOLERANCE", "1000000000")]);
            let mut seen = BTreeSet::new();
            let mut output = Vec::new();
            for vector in vectors.iter().filter(|vector| vector.key == **key) {
                let body = STANDARD.decode(&vector.body_base64).unwrap();
                let mut headers = vec![("webhook-id", &*vector.id), ("webhook-timestamp", &*vector.timestamp)];
                headers.extend(vector.signature.as_deref().map(|signature| ("webhook-signature", signature)));
                let status = if vector.genuine { 204 } else { 401 };
                for _ in 0..2 {
                    assert_eq!(running.post(&headers, &body), status, "{}: {}", example.name, vector.name);
                }
                if vector.genuine && seen.insert(&vector.id) {
                    output.extend(line(&vector.id, &body));
                }
            }
            running.expect(example.name, &output);
        }
    }
}

/// Signs a request of a given age in seconds as Millrace does.
fn signed(secret: &str, id: &str, age: i64, body: &[u8]) -> [(&'static str, String); 3] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let timestamp = (now - age).to_string();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    [("webhook-id", id.to_owned()), ("webhook-timestamp", timestamp), ("webhook-signature", signature)]
}

#[test]
fn examples_are_endpoints() {
    let up = Up::with(&[ALLOWED]);
    let api = Api(up.command);
    let folder = tempfile::tempdir().unwrap();
    api.expect("PUT", "/v1/topics/orders", &Value::Null, 201);
    let mut endpoints = Vec::new();
    for example in examples(&folder) {
        for signature in if example.v1a { &["v1", "v1a"][..] } else { &["v1"] } {
            let (port, name) = (free_port(), format!("{}-{signature}", example.name));
            let url = format!("http://127.0.0.1:{port}/hook");
            let push = json!({"url": url, "schedule": ["100ms"], "signature": signature});
            let path = format!("/v1/topics/orders/subscriptions/{name}");
            let created = api.expect("PUT", &path, &json!({"mode": "push", "push": push}), 201);
            let secret = created["secret"].as_str().unwrap().to_owned();
            let running = Running::start(&example, &folder, port, &secret, &[]);
            endpoints.push((name, secret, running));
        }
    }
    let mut expected: BTreeSet<Vec<u8>> = BTreeSet::new();
    for n in 0..3 {
        let body = format!("order {n}");
        let published = api.publish("orders", &body, &[("content-type", "text/plain")]);
        expected.insert(line(published["id"].as_str().unwrap(), body.as_bytes()));
    }
    for (name, secret, running) in &endpoints {
        // In whatever order, each once.
        let lines = || running.output().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert!(wait_until(WITHIN, || lines().len() >= expected.len()), "{name}: {}", running.process.log_tail());
        settled(api, "orders", name);
        let output = running.output();
        assert_eq!(lines().len(), expected.len(), "{name}: {}", running.process.log_tail());
        assert!(lines().into_iter().collect::<BTreeSet<_>>() == expected, "{name}: {}", running.process.log_tail());
        if secret.starts_with("whpk_") {
            continue;
        }
        let mut output = output;
        // Their default tolerance is five minutes, both ways.
        for (age, status) in [(280, 204), (320, 401), (-280, 204), (-320, 401)] {
            let id = format!("own{age}");
            let own = signed(secret, &id, age, b"own");
            let headers: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, &**value)).collect();
            assert_eq!(running.post(&headers, b"own"), status, "{name} {age}");
            assert_eq!(running.post(&headers, b"forged"), 401, "{name} {age}");
            if status == 204 {
                output.extend(line(&id, b"own"));
            }
        }
        running.expect(name, &output);
    }
}
