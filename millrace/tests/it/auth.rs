//! Authentication from the outside: keys, scopes, revocation.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use millrace_service::auth::routes::ROUTES;
use millrace_service::auth::{Access, RouteAccess, Scope};
use millrace_testkit::{ApiDocument, Connection, Response, free_port, http, http_get, repository, request, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::run::{Up, WITHIN, metric, stderr, stdout, tool};

/// A keys file of a test, and its keys by name.
pub(crate) struct Keys {
    directory: TempDir,
}

impl Keys {
    /// An empty file.
    pub(crate) fn new() -> Self {
        let keys = Self { directory: tempfile::tempdir().unwrap() };
        let first = keys.create("first", &["admin"]);
        keys.revoke(&id(&first));
        keys
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("keys.toml")
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let output = tool(&["keys"]).args(arguments).arg("--file").arg(self.file()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        output
    }

    /// A new key.
    pub(crate) fn create(&self, name: &str, scopes: &[&str]) -> String {
        self.create_with(name, scopes, &[])
    }

    /// A new key, with more options.
    pub(crate) fn create_with(&self, name: &str, scopes: &[&str], more: &[&str]) -> String {
        let scopes = scopes.join(",");
        stdout(&self.run(&[&["create", name, "--scope", &scopes], more].concat())).trim().to_owned()
    }

    pub(crate) fn revoke(&self, key: &str) {
        self.run(&["revoke", key]);
    }

    /// `millrace up` that reads this file.
    pub(crate) fn up(&self) -> Up {
        self.up_with(&[])
    }

    /// With settings of a test's own.
    pub(crate) fn up_with(&self, more: &[(&'static str, &str)]) -> Up {
        let file = self.file().display().to_string();
        // Tests fail to authenticate more often than a client should.
        let own = [("auth.mode", "keys"), ("auth.keys_file", &*file), ("auth.max_failure_rate_per_ip", "0")];
        Up::with(&[&own, more].concat())
    }
}

pub(crate) fn id(key: &str) -> String {
    key.split('_').nth(1).unwrap().to_owned()
}

pub(crate) fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn with_key(address: SocketAddr, method: &str, path: &str, key: &str) -> Response {
    let headers = [("authorization", &*bearer(key)), ("accept", "text/none"), ("content-type", "application/json")];
    http(address, method, path, &headers, "").unwrap()
}

/// Waits until a request with the key has this status.
fn wait_status(address: SocketAddr, path: &str, key: &str, status: u16) {
    let is = || with_key(address, "GET", path, key).status == status;
    assert!(wait_until(WITHIN, is), "{path} does not become {status}");
}

/// A path of a template.
fn filled(template: &str) -> String {
    let part = |part: &str| match part.split_once('}') {
        Some((_, verb)) => format!("1{verb}"),
        None => part.to_owned(),
    };
    template.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// The scopes of an operation's requirements for bearers; `None` if it needs no credential.
fn scopes(operation: &Value) -> Option<Vec<&str>> {
    let requirements = operation["security"].as_array().expect("every operation has its security");
    if requirements.is_empty() {
        return None;
    }
    Some(requirements.iter().filter_map(|one| one["bearer"].as_array()).flatten().filter_map(Value::as_str).collect())
}

#[test]
fn every_route_needs_its_scope() {
    let keys = Keys::new();
    let by_scope: BTreeMap<&str, String> =
        Scope::ALL.iter().map(|scope| (scope.as_str(), keys.create("walker", &[scope.as_str()]))).collect();
    let unknown = keys.create("gone", &["admin"]);
    keys.revoke("gone");
    let up = keys.up();
    for (name, address) in [("command", up.command), ("query", up.query)] {
        let document = ApiDocument::load(name);
        for (template, method, operation) in document.operations().filter(|(_, method, _)| *method != "head") {
            let (method, path) = (method.to_uppercase(), filled(template));
            let at = format!("{method} {template}");
            let without = http(address, &method, &path, &[("accept", "text/none")], "").unwrap();
            let Some(needed) = scopes(operation) else {
                assert!(without.status != 401 && ["/livez", "/readyz"].contains(&template), "{at}");
                continue;
            };
            assert_ne!(needed, ["admin"], "{at} is not in the table of routes");
            assert_eq!((without.status, &*without.code()), (401, "unauthenticated"), "{at}");
            let challenges = without.header_values("www-authenticate");
            assert!(
                challenges[0].starts_with("Bearer ") && challenges[1].starts_with("Basic "),
                "{at}: {challenges:?}"
            );
            let revoked = with_key(address, &method, &path, &unknown);
            assert_eq!(revoked.status, 401, "{at}");
            assert!(revoked.header_values("www-authenticate")[0].contains("invalid_token"), "{at}");
            for (scope, key) in &by_scope {
                let response = with_key(address, &method, &path, key);
                let challenge = response.header("www-authenticate");
                if needed.is_empty() || needed.contains(scope) || *scope == "admin" {
                    // A topic may belong to another principal; that is no challenge.
                    assert!(response.status != 401 && challenge.is_none(), "{at} with {scope}: {response:?}");
                } else {
                    assert_eq!((response.status, &*response.code()), (403, "forbidden"), "{at} with {scope}");
                    let challenge = challenge.unwrap();
                    let named = format!("error=\"insufficient_scope\", scope=\"{}\"", needed.join(" "));
                    assert!(challenge.contains(&named), "{at}: {challenge}");
                }
            }
        }
        let stranger = http_get(address, "/no/such/path").unwrap();
        assert_eq!(stranger.status, 401, "{name}: what there is not is nobody's business, either");
        assert_eq!(with_key(address, "GET", "/no/such/path", &by_scope["counts:read"]).status, 404);
    }
}

#[test]
fn the_document_has_the_table_of_routes() {
    let file = repository().join("docs/authentication.md");
    let text = fs::read_to_string(&file).unwrap();
    let needs = |access| match access {
        Access::Open => "none".to_owned(),
        Access::Credential => "credential".to_owned(),
        Access::Pixel => "`events:write`; `pixel:write` in `key=`".to_owned(),
        Access::Scopes(scopes) => scopes.iter().map(|scope| format!("`{scope}`")).collect::<Vec<_>>().join(", "),
    };
    let row = |row: &RouteAccess| {
        let methods = row.methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ");
        format!("| {methods} | `{}` | {} |\n", row.path, needs(row.access))
    };
    let rows: String = ROUTES.iter().map(row).collect();
    let (head, rest) = text.split_once("scope, any of |\n|---|---|---|\n").unwrap();
    let (listed, tail) = rest.split_once("| | TCP").unwrap();
    if std::env::var_os("UPDATE").is_some() {
        let text = [head, "scope, any of |\n|---|---|---|\n", &rows, "| | TCP", tail].concat();
        return fs::write(file, text).unwrap();
    }
    assert!(listed == rows, "UPDATE=1 cargo test -p millrace --test it auth writes the table");
}

#[test]
fn the_pixel_takes_a_key_that_is_good_for_nothing_else() {
    let keys = Keys::new();
    let (pixel, writer) = (keys.create("page", &["pixel:write"]), keys.create("shop", &["events:write"]));
    let up = keys.up();
    let get = |query: &str| http_get(up.command, &format!("/pixel.gif?user=a{query}")).unwrap().status;
    assert_eq!(get(&format!("&key={pixel}")), 200);
    assert_eq!(get(&format!("&key={writer}")), 403, "a key that can do more has no business in a URL");
    assert_eq!((get(""), get("&key=mk_1_2")), (401, 401));
    assert_eq!(with_key(up.command, "GET", "/pixel.gif?user=a", &writer).status, 200);
    assert_eq!(with_key(up.command, "POST", "/analytics?timestamp=1&user=a&click", &pixel).status, 403);
    let in_url = http(up.command, "POST", &format!("/analytics?timestamp=1&user=a&click&key={writer}"), &[], "");
    assert_eq!(in_url.unwrap().status, 401);
    let output = tool(&["keys", "create", "x", "--scope", "pixel:write,counts:read", "--file"])
        .arg(keys.file())
        .output()
        .unwrap();
    assert!(!output.status.success() && stderr(&output).contains("only scope"), "{}", stderr(&output));
}

#[test]
fn a_principal_owns_its_topics() {
    let keys = Keys::new();
    let scopes = ["topics:manage", "topics:publish", "topics:subscribe"];
    let (alice, bob) = (keys.create("alice", &scopes), keys.create("bob", &scopes));
    let (alices_next, admin) = (keys.create("alice", &scopes), keys.create("root", &["admin"]));
    let up = keys.up();
    let call = |key: &str, method: &str, path: &str, body: Value| {
        let (key, body) = (bearer(key), if body.is_null() { String::new() } else { body.to_string() });
        let headers = [("authorization", &*key), ("content-type", "application/json")];
        let response = http(up.command, method, path, &headers, &body).unwrap();
        (response.status, serde_json::from_str::<Value>(response.text()).unwrap_or_default())
    };
    let (status, topic) = call(&alice, "PUT", "/v1/topics/orders", Value::Null);
    assert_eq!((status, &topic["owner"]), (201, &json!("key:alice")));
    let message = "/v1/topics/orders/messages";
    assert_eq!(call(&bob, "POST", message, json!("x")).0, 403);
    assert_eq!(call(&bob, "PUT", "/v1/topics/orders", Value::Null).0, 409);
    assert_eq!(call(&bob, "POST", "/v1/topics/none/messages", json!("x")).0, 404);
    assert_eq!(call(&alices_next, "POST", message, json!("x")).0, 201, "another key of the same principal");
    assert_eq!(call(&admin, "POST", message, json!("x")).0, 201);
    let grant = "/v1/topics/orders/grants/key%3Abob";
    assert_eq!(call(&bob, "PUT", grant, json!({"publish": true})).0, 403);
    assert_eq!(call(&alice, "PUT", grant, json!({"publish": true})).0, 200);
    assert_eq!(call(&bob, "POST", message, json!("x")).0, 201);
    assert_eq!(call(&bob, "DELETE", "/v1/topics/orders", Value::Null).0, 403);
}

#[test]
fn a_browser_gets_in_with_a_password_and_no_other_site_with_it() {
    let keys = Keys::new();
    let key = keys.create("desk", &["counts:read", "topics:manage"]);
    let up = keys.up();
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("me:{key}")));
    let send = |address, method: &str, path: &str, more: &[(&str, &str)]| {
        http(address, method, path, &[&[("authorization", &*basic)], more].concat(), "").unwrap()
    };
    let page = send(up.query, "GET", "/", &[]);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let foreign = [("origin", "https://elsewhere.example")];
    let refused = send(up.command, "PUT", "/v1/topics/t", &foreign);
    assert_eq!((refused.status, &*refused.code()), (403, "cross-site"));
    assert_eq!(send(up.command, "PUT", "/v1/topics/t", &[]).status, 201);
    assert_eq!(send(up.query, "GET", "/", &foreign).status, 200);
}

#[test]
fn keys_change_without_a_restart_and_what_they_opened_ends() {
    let keys = Keys::new();
    let key = keys.create("desk", &["counts:read", "topics:manage", "topics:subscribe"]);
    let up = keys.up();
    wait_status(up.query, "/status", &key, 200);
    let later = keys.create("later", &["counts:read"]);
    wait_status(up.query, "/status", &later, 200);

    // A long poll and a live stream, which would go on for long.
    for path in ["/v1/topics/t", "/v1/topics/t/subscriptions/s"] {
        let headers = [("authorization", &*bearer(&key)), ("content-type", "application/json")];
        let body = if path.ends_with("/s") { r#"{"mode":"pull"}"# } else { "" };
        assert_eq!(http(up.command, "PUT", path, &headers, body).unwrap().status, 201, "{path}");
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", bearer(&key));
    let mut poll = Connection::open(up.command, WITHIN).unwrap();
    poll.write_all(get("/v1/topics/t/subscriptions/s/messages?wait=30s")).unwrap();
    let mut live = Connection::open(up.query, WITHIN).unwrap();
    live.write_all(get("/analytics/live")).unwrap();
    let streams = || metric(up.admin, "millrace_query_live_streams");
    assert!(wait_until(WITHIN, || streams() == 1));

    keys.revoke("desk");
    assert_eq!(poll.exchange("").unwrap().status, 401, "the long poll ends");
    assert!(wait_until(WITHIN, || streams() == 0), "the live stream ends");
    wait_status(up.query, "/status", &key, 401);
    assert_eq!(with_key(up.query, "GET", "/status", &later).status, 200);
}

#[test]
fn a_broken_keys_file_leaves_the_last_keys_valid() {
    let keys = Keys::new();
    let key = keys.create("desk", &["counts:read"]);
    let up = keys.up();
    let ready = || http_get(up.admin, "/readyz").unwrap().into_text();
    wait_status(up.query, "/status", &key, 200);
    let good = fs::read(keys.file()).unwrap();
    fs::write(keys.file(), "[[key]]\nname = 1\n").unwrap();
    let warned = || ready().contains("warning: auth: cannot read the keys; what was read last stays in use");
    assert!(wait_until(WITHIN, warned), "{}", ready());
    assert!(ready().starts_with("ready\n") && ready().contains("line 2"), "{}", ready());
    assert_eq!(up.metric("millrace_auth_stale"), 1);
    assert_eq!(with_key(up.query, "GET", "/status", &key).status, 200);
    fs::remove_file(keys.file()).unwrap();
    assert!(wait_until(WITHIN, || ready().contains("No such file")), "{}", ready());
    assert_eq!(with_key(up.query, "GET", "/status", &key).status, 200);
    fs::write(keys.file(), good).unwrap();
    assert!(wait_until(WITHIN, || ready() == "ready\n"), "{}", ready());
    assert_eq!((up.metric("millrace_auth_stale"), up.metric("millrace_auth_keys")), (0, 1));
    assert!(up.service.log().contains("cannot read the keys"));
}

#[test]
fn nothing_starts_with_keys_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    let run = |command: &str, more: &[&str]| {
        let settings = [format!("auth.keys_file={}", file.display()), "auth.mode=keys".into()];
        let settings =
            settings.iter().map(String::as_str).chain(["command.tcp.enabled=false"]).chain(more.iter().copied());
        let flags = settings.flat_map(|setting| ["--set", setting]);
        let output = tool(&[command]).args(flags).current_dir(directory.path()).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    for command in ["up", "check-config"] {
        let (code, text) = run(command, &[]);
        assert!(code == Some(78) && text.contains("keys.toml") && text.contains("No such file"), "{command}: {text}");
    }
    assert!(!Path::new(&directory.path().join("data")).exists(), "it ends before it opens the log");
    let (code, text) = run("check-config", &["query.listen=0.0.0.0:8082"]);
    assert!(code == Some(78) && text.contains("tls.terminated_upstream"), "{text}");
    let (code, text) = run("check-config", &["auth.mode=off", "query.listen=0.0.0.0:8082"]);
    assert!(code == Some(78) && text.contains("auth.allow_off_beyond_loopback"), "{text}");
}

#[test]
fn an_admin_listener_on_loopback_serves_this_machine_by_name() {
    let up = Up::start();
    let get = |host| get_as(up.admin, "/metrics", host);
    assert_eq!((get("localhost:1"), get("127.0.0.1"), get("[::1]:2")), (200, 200, 200));
    assert_eq!((get("elsewhere.example"), get("127.0.0.1.example")), (403, 403));
}

#[test]
fn an_admin_listener_beyond_loopback_needs_the_scope_admin() {
    let keys = Keys::new();
    let all = Scope::ALL.iter().map(|scope| scope.as_str());
    let others: Vec<&str> = all.filter(|scope| !["admin", "pixel:write"].contains(scope)).collect();
    let (root, desk) = (keys.create("root", &["admin"]), keys.create("desk", &others));
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    // On all addresses of this machine, so on others than loopback, too.
    let listen = format!("0.0.0.0:{}", address.port());
    let _up = keys.up_with(&[("command.admin", &listen), ("tls.terminated_upstream", "true")]);
    for (method, path) in [
        ("GET", "/metrics"),
        ("GET", "/admin/topics"),
        ("GET", "/admin/tail"),
        ("GET", "/admin/verify"),
        ("GET", "/admin/progress"),
        ("PUT", "/admin/rebuild"),
        ("GET", "/no/such/path"),
    ] {
        let without = http(address, method, path, &[], "").unwrap();
        assert_eq!((without.status, &*without.code()), (401, "unauthenticated"), "{path}");
        let lesser = with_key(address, method, path, &desk);
        assert_eq!((lesser.status, &*lesser.code()), (403, "forbidden"), "{path}");
        assert!(lesser.header("www-authenticate").unwrap().contains("scope=\"admin\""), "{path}: {lesser:?}");
    }
    for path in ["/metrics", "/admin/topics", "/no/such/path"] {
        let status = with_key(address, "GET", path, &root).status;
        assert!(![401, 403].contains(&status), "{path}: {status}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(http_get(address, path).unwrap().status, 200, "{path}");
    }
}

#[test]
fn without_authentication_public_listeners_on_loopback_serve_known_hosts() {
    let up = Up::with(&[("auth.allowed_hosts", r#"["proxy.example"]"#)]);
    for (address, path) in [(up.command, "/openapi.json"), (up.query, "/status")] {
        for (host, status) in
            [("localhost:1", 200), ("192.0.2.1", 200), ("proxy.example", 200), ("elsewhere.example", 403)]
        {
            assert_eq!(get_as(address, path, host), status, "{path} {host}");
        }
        assert_eq!(get_as(address, "/readyz", "elsewhere.example"), 200, "a probe");
    }
}

/// The status of a `GET` with this `Host`.
fn get_as(address: SocketAddr, path: &str, host: &str) -> u16 {
    let request = request("GET", path, &[("host", host), ("connection", "close")], "");
    Connection::open(address, WITHIN).unwrap().exchange(request).unwrap().status
}

#[test]
fn keys_are_listed_without_secrets_and_revoked_by_id_or_name() {
    let keys = Keys::new();
    let (a, b) = (keys.create("twin", &["counts:read"]), keys.create("twin", &["counts:read"]));
    let list = stdout(&keys.run(&["list"]));
    assert!(list.contains(&id(&a)) && list.contains("counts:read") && !list.contains(a.rsplit('_').next().unwrap()));
    let refused = tool(&["keys", "revoke", "twin", "--file"]).arg(keys.file()).output().unwrap();
    assert!(stderr(&refused).contains(&id(&b)), "{}", stderr(&refused));
    keys.revoke(&id(&a));
    keys.revoke("twin");
    assert_eq!(stdout(&keys.run(&["list", "--json"])).trim(), "[]");
    let text = fs::read_to_string(keys.file()).unwrap();
    assert!(!text.contains(&a) && !text.contains(&b));
}
