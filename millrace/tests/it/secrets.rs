//! Secrets are in nothing that is written: logs of the level trace, answers, tools, metrics and the files of the log.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use millrace_base::Clock;
use millrace_testkit::{Authority, Service, SigningKey, free_port, http_get, jwk_set, request, wait_until};
use serde_json::{Value, json};

use crate::auth::{Keys, bearer, id};
use crate::push::ALLOWED;
use crate::push::receiver::Receiver;
use crate::run::{WITHIN, settings, stderr, stdout, tool};

const TRACE: (&str, &str) = ("telemetry.level", "trace,fjall=info,lsm_tree=info");
const ISSUER: &str = "https://issuer.example";

/// Passwords of servers, as an operator sets them.
const PASSWORDS: [&str; 4] = ["canary-kafka-p4", "canary-kafka-k3y", "canary-redis-p4", "canary-postgres-p4"];

/// The settings with these passwords: a file, and variables of the environment.
fn passwords(directory: &Path, ports: [u16; 3]) -> Vec<(&'static str, String)> {
    let [kafka, key, redis, postgres] = PASSWORDS;
    let file = directory.join("millrace.toml");
    let properties = format!(
        "[kafka]\nbrokers = \"127.0.0.1:{}\"\n[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\
         \"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\"sasl.username\" = \"u\"\n\"sasl.password\" = \"{kafka}\"\n\
         \"ssl.key.password\" = \"{key}\"\n",
        ports[0]
    );
    fs::write(&file, properties).unwrap();
    vec![
        ("MILLRACE_CONFIG", file.display().to_string()),
        ("MILLRACE_REDIS__URL", format!("redis://u:{redis}@127.0.0.1:{}/", ports[1])),
        ("MILLRACE_POSTGRES__URL", format!("postgres://u:{postgres}@127.0.0.1:{}/d", ports[2])),
    ]
}

/// Everything that was written, by where.
#[derive(Default)]
struct Written(Mutex<Vec<(String, String)>>);

impl Written {
    fn add(&self, at: impl Into<String>, text: impl Into<String>) {
        self.0.lock().unwrap().push((at.into(), text.into()));
    }

    fn run(&self, arguments: &[&str], more: &[String], variables: &[(&'static str, String)]) {
        let output = tool(arguments).args(more).envs(variables.iter().cloned()).output().unwrap();
        self.add(arguments.join(" "), stdout(&output) + &stderr(&output));
    }

    /// Every file below a directory but these.
    fn files(&self, directory: &Path, but: &[&Path]) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.files(&path, but);
            } else if !but.contains(&&*path) {
                self.add(path.display().to_string(), String::from_utf8_lossy(&fs::read(&path).unwrap()));
            }
        }
    }

    /// The first lines with a text.
    fn lines_with(&self, text: &str) -> Vec<String> {
        let written = self.0.lock().unwrap();
        let all = written.iter().flat_map(|(at, text)| text.lines().map(move |line| format!("{at}: {line}")));
        all.filter(|line| line.contains(text)).take(3).collect()
    }
}

/// A client of listeners with TLS.
struct Client<'a> {
    authority: &'a Authority,
    written: &'a Written,
}

impl Client<'_> {
    /// The status, and the answer with its head.
    fn exchange(&self, at: SocketAddr, method: &str, path: &str, authorization: &str, body: &str) -> (u16, String) {
        let mut stream = self.authority.connect(at, None, WITHIN).unwrap();
        let json = ("content-type", "application/json");
        let headers = [("connection", "close"), ("authorization", authorization), json];
        stream.write_all(&request(method, path, &headers, body)).unwrap();
        let mut answer = Vec::new();
        // A peer that closes without a `close_notify` is an error to TLS.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{method} {path}: {answer}")), answer)
    }

    /// An exchange whose answer must have no secret.
    fn call(&self, at: SocketAddr, method: &str, path: &str, authorization: &str, body: &str) -> u16 {
        let (status, answer) = self.exchange(at, method, path, authorization, body);
        self.written.add(format!("{method} {path}"), answer);
        status
    }

    /// Calls that have to do with secrets, some of which are refused.
    fn call_all(&self, [command, query]: [SocketAddr; 2], hook: &str, key: &str, subscribed: &str, header: &str) {
        let refused = json!({"push": {"headers": {"X-Token": format!("{header}\n")}}}).to_string();
        let broken = format!("{{\"push\": {{\"headers\": {{\"X-Token\": \"{header}\", ");
        for (method, path, body) in [
            ("PUT", "", subscribed),
            ("PATCH", "", &*refused),
            ("PATCH", "", &*broken),
            ("GET", "", ""),
            ("POST", ":test", ""),
            ("GET", "/attempts", ""),
            ("GET", "/dead-letters", ""),
            ("GET", ":explain?offset=1", ""),
        ] {
            self.call(command, method, &format!("{hook}{path}"), key, body);
        }
        self.call(command, "POST", "/v1/topics/orders/messages", key, "1");
        self.call(command, "POST", "/analytics?timestamp=1&user=a&click", key, "");
        for path in ["/status", "/analytics?timestamp=1", "/no/such/path"] {
            self.call(query, "GET", path, key, "");
        }
    }
}

/// The signing secret, which this answer alone shows, without its prefix.
fn shown_once((status, answer): (u16, String), expected: u16) -> String {
    assert_eq!(status, expected, "{answer}");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    body["secret"].as_str().unwrap().strip_prefix("whsec_").unwrap().to_owned()
}

#[test]
fn secrets_are_in_nothing_that_is_written() {
    let (keys, written, receiver) = (Keys::new(), Written::default(), Receiver::start());
    let (root, process) = (keys.create("root", &["admin"]), keys.create("process", &["admin"]));
    let (own, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = |name: &str, text: &str| {
        fs::write(own.path().join(name), text).unwrap();
        own.path().join(name).display().to_string()
    };
    let (authority, signer) = (Authority::new(), SigningKey::es256("1"));
    let [certificate, private_key] = authority.server().write(own.path()).unwrap();
    let expires = Clock::system().now_ms() / 1_000 + 600;
    let claims = json!({"iss": ISSUER, "aud": "millrace", "sub": "ann", "scope": "admin", "exp": expires});
    let token = signer.sign(&claims);
    let mut all = settings(data.path());
    all.extend([
        ("auth.mode", "keys".to_owned()),
        ("auth.keys_file", keys.file().display().to_string()),
        ("auth.process_key_file", file("process.key", &process)),
        ("auth.jwt.jwks_file", file("jwks.json", &jwk_set(&[&signer]))),
        ("auth.jwt.issuer", ISSUER.to_owned()),
        ("auth.jwt.audience", "millrace".to_owned()),
        ("tls.certificate_file", certificate.display().to_string()),
        ("tls.key_file", private_key.display().to_string()),
        (ALLOWED.0, ALLOWED.1.to_owned()),
        (TRACE.0, TRACE.1.to_owned()),
    ]);
    let given: Vec<(&str, &str)> = all.iter().map(|(key, value)| (*key, &**value)).collect();
    let address = |key| all.iter().find(|(name, _)| *name == key).unwrap().1.parse::<SocketAddr>().unwrap();
    let (command, query, admin) = (address("command.listen"), address("query.listen"), address("command.admin"));
    let variables = passwords(own.path(), [1, 1, 1]);
    let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let mut service = Service::start_with("up", &given, &environment);
    service.wait_ready(admin);

    let (client, header, key) =
        (Client { authority: &authority, written: &written }, "canary-header-7f", bearer(&root));
    let hook = "/v1/topics/orders/subscriptions/hook";
    assert_eq!(client.call(command, "PUT", "/v1/topics/orders", &key, ""), 201);
    let headers = json!({"Authorization": format!("Bearer {header}"), "X-Token": header});
    let subscribed = json!({"mode": "push", "push": {"url": receiver.url(), "headers": headers}}).to_string();
    let first = shown_once(client.exchange(command, "PUT", hook, &key, &subscribed), 201);
    let second = shown_once(
        client.exchange(command, "POST", &format!("{hook}:rotate-secret"), &key, r#"{"overlap": "1h"}"#),
        200,
    );
    receiver.answers(|request| Some((if request.header("webhook-attempt") == "1" { 500 } else { 204 }, "")));
    for authorization in [&*key, &bearer(&token), &format!("{key}x"), &bearer(&format!("{token}x")), &root] {
        client.call_all([command, query], hook, authorization, &subscribed, header);
    }
    assert!(wait_until(WITHIN, || receiver.received().iter().any(|request| request.header("webhook-attempt") == "2")));
    assert!(receiver.received().iter().all(|request| request.header("x-token") == header));

    for path in ["/readyz", "/metrics"] {
        written.add(path, http_get(admin, path).unwrap().into_text());
    }
    let arguments: Vec<String> =
        given.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]).collect();
    let with_key = [&variables[..], &[("MILLRACE_KEY", root.clone())]].concat();
    for command in [&["check-config"][..], &["doctor"], &["topics"], &["tail", "topics.commands"], &["audit"]] {
        written.run(command, &arguments, &with_key);
    }
    assert!(service.shut_down(WITHIN).is_some_and(|status| status.success()));
    written.add("the log", service.log());
    let sealing = data.path().join("data").join("push.keys");
    let sealing_key = fs::read_to_string(&sealing).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    written.files(data.path(), &[&sealing]);

    // What is no secret is there, so secrets would be found.
    assert!(service.log().contains("TRACE"), "the log is that of the level trace");
    for public in [&*id(&root), "orders", "key:root", "jwt:ann"] {
        assert!(!written.lines_with(public).is_empty(), "{public}");
    }
    let private_key = fs::read_to_string(private_key).unwrap().lines().nth(1).unwrap().to_owned();
    let last = |text: &str, separator: char| text.rsplit(separator).next().unwrap().to_owned();
    let credentials = [last(&root, '_'), last(&process, '_'), last(&token, '.')];
    let others = [first, second, header.to_owned(), private_key, sealing_key];
    for secret in credentials.into_iter().chain(others).chain(PASSWORDS.map(str::to_owned)) {
        let found = written.lines_with(&secret);
        assert!(found.is_empty(), "{secret}: {found:#?}");
    }
}

/// No server answers, and settings are wrong: that is when most is reported.
#[test]
fn passwords_of_unreachable_servers_are_in_no_output() {
    let (written, own) = (Written::default(), tempfile::tempdir().unwrap());
    let variables = passwords(own.path(), [free_port(), free_port(), free_port()]);
    let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let listen = format!("127.0.0.1:{}", free_port());
    let admin = format!("127.0.0.1:{}", free_port());
    let set = [("engine", "kafka"), ("query.listen", &*listen), ("query.admin", &*admin), TRACE];
    let mut service = Service::start_with("query", &set, &environment);
    let reported = ["Redis is unreachable", "PostgreSQL is unreachable", "the log is unavailable"];
    let all = || reported.iter().all(|line| service.log().contains(line));
    assert!(wait_until(WITHIN, all), "{}", service.log());
    written.add("/readyz", http_get(admin.parse().unwrap(), "/readyz").unwrap().into_text());
    service.shut_down(WITHIN);
    written.add("the log", service.log());
    let arguments: Vec<String> =
        set.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]).collect();
    for command in [&["check-config"][..], &["doctor"]] {
        written.run(command, &arguments, &variables);
    }
    // A misspelled name, and values that are none.
    let [kafka, _, redis, postgres] = PASSWORDS;
    let misspelled = own.path().join("misspelled.toml");
    fs::write(&misspelled, format!("[kafka.properties]\n\"sasl.pasword\" = \"{kafka}\"\n")).unwrap();
    let misspelled = [&[("MILLRACE_CONFIG", misspelled.display().to_string())][..], &variables[1..]].concat();
    written.run(&["doctor"], &arguments, &misspelled);
    assert!(!written.lines_with("sasl.pasword").is_empty(), "{:?}", written.lines_with("kafka"));
    for (variable, value) in [
        ("MILLRACE_REDIS__URL", format!("http://u:{redis}@h/")),
        ("MILLRACE_POSTGRES__URL", format!("postgres://u:{postgres}@[h/d")),
        ("MILLRACE_POSTGRES__URL", format!("postgres://u:{postgres}@h/d?sslmode={postgres}")),
        ("MILLRACE_POSTGRES__URL", format!("postgres://u@h/d?pasword={postgres}")),
    ] {
        written.run(&["check-config"], &arguments, &[(variable, value)]);
    }
    for secret in PASSWORDS {
        let found = written.lines_with(secret);
        assert!(found.is_empty(), "{secret}: {found:#?}");
    }
}
