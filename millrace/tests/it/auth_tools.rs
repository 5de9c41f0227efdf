//! Authentication for the tools and for TCP intake; secrets; a key revoked under load.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use millrace_testkit::{Connection, Service, free_port, http, http_get, request, wait_until};

use crate::auth::{Keys, bearer, id};
use crate::cluster::Cluster;
use crate::run::{Up, WITHIN, settings, stderr, stdout, tool};
use crate::tcp::journal;

/// Runs a tool with the settings of `up` and a key in the environment.
fn with_env(up: &Up, key: &str, arguments: &[&str]) -> Output {
    tool(arguments).args(up.arguments()).env("MILLRACE_KEY", key).output().unwrap()
}

#[test]
fn tools_show_a_key_from_environment_file_or_standard_input() {
    let keys = Keys::new();
    let key = keys.create("tools", &["events:write", "counts:read"]);
    let up = keys.up();
    let load = ["load", "--events", "200", "--users", "20", "--hours", "2", "--connections", "2", "--threads", "1"];

    let output = with_env(&up, &key, &load);
    assert!(output.status.success(), "{} {}", stdout(&output), stderr(&output));
    let without = up.tool(&[&load[..], &["--settle", "1s"]].concat());
    assert!(!without.status.success() && stderr(&without).contains("401 (unauthenticated"), "{}", stderr(&without));

    let file = keys.file().with_file_name("key");
    fs::write(&file, format!("{key}\n")).unwrap();
    let file = file.to_str().unwrap();
    let events = keys.file().with_file_name("events.ndjson");
    fs::write(&events, "{\"timestamp\":123,\"user\":\"ann\",\"event\":\"click\"}\n").unwrap();
    let import = up.tool(&["import", events.to_str().unwrap(), "--key-file", file]);
    assert!(import.status.success(), "{}", stderr(&import));
    let refused = up.tool(&["import", events.to_str().unwrap(), "--again"]);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("401"), "{}", stderr(&refused));

    let hours = ["export", "--from", "0", "--to", "3600000", "--key-file", "-"];
    let export = || {
        let mut export = tool(&hours);
        export.args(up.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut export = export.spawn().unwrap();
        writeln!(export.stdin.take().unwrap(), "{key}").unwrap();
        export.wait_with_output().unwrap()
    };
    assert!(wait_until(WITHIN, || stdout(&export()).contains(",1,1,0")), "{:?}", export());

    let not_a_key = with_env(&up, "canary", &["export", "--from", "0", "--to", "1"]);
    let text = stderr(&not_a_key);
    assert!(!not_a_key.status.success() && text.contains("MILLRACE_KEY") && !text.contains("canary"), "{text}");
    // The admin listener is on loopback.
    for command in [&["topics"][..], &["doctor"], &["tail", "analytics.events"], &["verify"]] {
        let output = up.tool(command);
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    }
}

/// The reply to a client without a valid key.
const UNAUTHENTICATED: &str = "NACK 0 401 unauthenticated\n";

pub(crate) struct Tcp {
    up: Up,
    pub(crate) server: SocketAddr,
    journal: std::path::PathBuf,
}

pub(crate) fn tcp(keys: &Keys) -> Tcp {
    let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let journal = keys.file().with_file_name("journal");
    let own = [
        ("command.tcp.enabled", "true"),
        ("command.tcp.listen", &*server.to_string()),
        ("journal.directory", journal.to_str().unwrap()),
    ];
    Tcp { up: keys.up_with(&own), server, journal }
}

fn lines(server: SocketAddr, text: &str) -> String {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect(server).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_tcp_client_says_hello_with_its_key() {
    let keys = Keys::new();
    let (sensor, reader) = (keys.create("sensor", &["intake:write"]), keys.create("reader", &["counts:read"]));
    let tcp = tcp(&keys);
    for first in
        ["s 1 5\nhello\n", "PING\n", "BYE\n", "HELLO s\n", "HELLO s token=x\n", "HELLO s epoch=1 token=mk_1_2\n"]
    {
        assert_eq!(lines(tcp.server, first), UNAUTHENTICATED, "{first}");
    }
    assert_eq!(lines(tcp.server, &format!("HELLO s token={reader}\ns 1 1\nx\n")), "NACK 0 403 forbidden\n");
    let answer = lines(tcp.server, &format!("HELLO s epoch=1 token={sensor}\ns 1 5\nhello\n"));
    assert!(answer.starts_with("OK ") && answer.ends_with("\nACK 1\n"), "{answer}");

    let send = |key: Option<&str>| {
        let address = tcp.server.to_string();
        let mut send = tool(&["send", "-", "--client", "s", "--epoch", "2", "--server", &address]);
        send.envs(key.map(|key| ("MILLRACE_KEY", key))).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut send = send.spawn().unwrap();
        writeln!(send.stdin.take().unwrap(), "world").unwrap();
        send.wait_with_output().unwrap()
    };
    assert_eq!(send(Some(&sensor)).status.code(), Some(0));
    let refused = send(None);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("401"), "{}", stderr(&refused));
    let senders = || journal(&tcp.journal).into_iter().map(|line| line.client).collect::<Vec<_>>();
    assert!(wait_until(WITHIN, || senders() == ["key:sensor/s"; 2]), "{:?}", senders());

    // A session that goes on for long ends with its key, and not before what was read is answered.
    let mut session = std::net::TcpStream::connect(tcp.server).unwrap();
    session.write_all(format!("HELLO s epoch=3 token={sensor}\n").as_bytes()).unwrap();
    assert!(wait_until(WITHIN, || tcp.up.metric("millrace_tcp_connections") == 1));
    keys.revoke("sensor");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut session, &mut answer).unwrap();
    assert!(answer.starts_with("OK ") && answer.ends_with(UNAUTHENTICATED), "{answer}");
    assert_eq!(tcp.up.metric("millrace_tcp_closed_total{reason=\"forbidden\"}"), 1);
}

#[test]
fn secrets_are_in_no_output() {
    let keys = Keys::new();
    let (all, pixel) = (keys.create("root", &["admin"]), keys.create("page", &["pixel:write"]));
    let unknown = keys.create("gone", &["admin"]);
    keys.revoke("gone");
    let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut up = keys.up_with(&[
        ("telemetry.level", "trace,fjall=info,lsm_tree=info"),
        ("command.tcp.enabled", "true"),
        ("command.tcp.listen", &server.to_string()),
    ]);
    let basic = {
        use base64::Engine as _;
        base64::prelude::BASE64_STANDARD.encode(format!(":{all}"))
    };
    for value in [bearer(&all), bearer(&unknown), format!("Basic {basic}"), all.clone()] {
        for (address, path) in [(up.command, "/v1/topics"), (up.query, "/status"), (up.query, "/nothing")] {
            let response = http(address, "GET", path, &[("authorization", &value)], "").unwrap();
            assert!(!response.text().contains(&all) && !response.text().contains(&unknown));
        }
    }
    for key in [&pixel, &all] {
        http_get(up.command, &format!("/pixel.gif?user=a&key={key}")).unwrap();
    }
    let by_mistake = format!("/analytics?timestamp=1&user=a&click&key={all}");
    let problem = http(up.command, "POST", &by_mistake, &[("authorization", &*bearer(&all))], "").unwrap();
    assert_eq!(problem.status, 400);
    for key in [&all, &unknown] {
        lines(server, &format!("HELLO s token={key}\n"));
    }
    let mut outputs = vec![problem.into_text()];
    for command in [&["check-config"][..], &["doctor"], &["topics"]] {
        let output = with_env(&up, &all, command);
        outputs.extend([stdout(&output), stderr(&output)]);
    }
    outputs.push(http_get(up.admin, "/metrics").unwrap().into_text());
    assert!(up.service.shut_down(WITHIN).is_some_and(|status| status.success()));
    outputs.push(up.service.log());
    assert!(outputs.last().unwrap().contains("TRACE"), "the log is that of the level trace");
    for secret in [&all, &pixel, &unknown, &basic] {
        let secret = secret.rsplit('_').next().unwrap();
        let found: Vec<&str> =
            outputs.iter().flat_map(|text| text.lines()).filter(|line| line.contains(secret)).take(3).collect();
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn a_revoked_key_is_refused_under_load_and_no_other_request_fails() {
    let keys = Keys::new();
    let (kept, revoked) = (keys.create("kept", &["events:write"]), keys.create("old", &["events:write"]));
    let up = keys.up();
    let (stop, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
    // Returns the statuses after the first 204s.
    let post = |key: &str| {
        let mut connection = Connection::open(up.command, WITHIN).unwrap();
        let mut statuses = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let target = "/analytics?timestamp=123&user=a&click";
            let answer = connection.exchange(request("POST", target, &[("authorization", &bearer(key))], "")).unwrap();
            accepted.fetch_add(u64::from(answer.status == 204), Ordering::Relaxed);
            if statuses.last() != Some(&answer.status) {
                statuses.push(answer.status);
            }
            if answer.status == 401 {
                break;
            }
        }
        statuses
    };
    thread::scope(|scope| {
        let ends: Vec<_> = (0..4).map(|_| scope.spawn(|| post(&revoked))).collect();
        let stays: Vec<_> = (0..4).map(|_| scope.spawn(|| post(&kept))).collect();
        let count = || accepted.load(Ordering::Relaxed);
        assert!(wait_until(WITHIN, || count() > 500));
        keys.revoke(&id(&revoked));
        for thread in ends {
            assert_eq!(thread.join().unwrap(), [204, 401]);
        }
        let then = count();
        assert!(wait_until(WITHIN, || count() > then + 500));
        stop.store(true, Ordering::Relaxed);
        for thread in stays {
            assert_eq!(thread.join().unwrap(), [204]);
        }
    });
}

#[test]
fn processes_show_each_other_a_key_and_the_principal_goes_with_a_call() {
    const SUITE: &str = "keys on Kafka";
    let keys = Keys::new();
    let file = keys.file().with_file_name("process.key");
    fs::write(&file, keys.create("processes", &["admin"])).unwrap();
    let scopes = ["topics:manage", "topics:publish", "topics:subscribe"];
    let (alice, bob) = (keys.create("alice", &scopes), keys.create("bob", &scopes));
    let (keys_file, file) = (keys.file().display().to_string(), file.display().to_string());
    let settings = [("auth.mode", "keys"), ("auth.keys_file", &*keys_file), ("auth.process_key_file", &*file)];
    let Some(brokers) = millrace_testkit::kafka(SUITE) else { return };
    let Some(cluster) = Cluster::with(brokers, SUITE, 2, &settings) else { return };
    let call = |address, key: &str, method: &str, path: &str| {
        let headers = [("authorization", &*bearer(key)), ("content-type", "application/json")];
        let response = http(address, method, path, &headers, "").unwrap();
        (response.status, serde_json::from_str::<serde_json::Value>(response.text()).unwrap_or_default())
    };
    // Enough topics that both coordinators have some.
    let commands = cluster.publics("command");
    for n in 0..8 {
        let path = format!("/v1/topics/t{n}");
        let (status, topic) = call(commands[n % 2], &alice, "PUT", &path);
        assert_eq!((status, topic["owner"].as_str()), (201, Some("key:alice")), "{topic}");
        assert_eq!(call(commands[(n + 1) % 2], &bob, "POST", &format!("{path}/messages")).0, 403);
        assert_eq!(call(commands[(n + 1) % 2], &alice, "POST", &format!("{path}/messages")).0, 201);
    }
    for internal in cluster.publics("delivery") {
        let calls = millrace_contracts::topics::CALLS_PATH;
        assert_eq!(http(internal, "POST", calls, &[], "").unwrap().status, 401);
        assert_eq!(call(internal, &alice, "POST", calls).0, 403, "nobody but a process acts for others");
    }
}

#[test]
fn tools_speak_tls_to_a_server_that_their_authority_vouches_for() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, pem: String| {
        let path = directory.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("cert.pem", made.cert.pem()), file("key.pem", made.signing_key.serialize_pem()));
    let mut settings = settings(directory.path());
    settings.extend([("tls.certificate_file", certificate.clone()), ("tls.key_file", key)]);
    let given: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut service = Service::start("up", &given);
    let address = |key| settings.iter().find(|(name, _)| *name == key).unwrap().1.parse::<SocketAddr>().unwrap();
    service.wait_ready(address("command.admin"));
    let (command, query) = (address("command.listen").port(), address("query.listen").port());
    let load =
        tool(&["load", "--events", "200", "--users", "20", "--hours", "2", "--connections", "2", "--threads", "1"])
            .args([
                "--command",
                &format!("https://localhost:{command}"),
                "--query",
                &format!("https://localhost:{query}"),
            ])
            .args(["--ca-file", &certificate])
            .output()
            .unwrap();
    assert!(load.status.success(), "{} {}", stdout(&load), stderr(&load));
    let export = |url: String, more: &[&str]| {
        let output = tool(&["export", "--from", "0", "--to", "1", "--query", &url]).args(more).output().unwrap();
        (output.status.success(), stderr(&output))
    };
    let trusted = ["--ca-file", &*certificate];
    assert!(export(format!("https://localhost:{query}"), &trusted).0);
    let (right, problem) = export(format!("https://localhost:{query}"), &[]);
    assert!(!right && problem.contains("UnknownIssuer"), "{problem}");
    let (right, problem) = export(format!("https://127.0.0.1:{query}"), &trusted);
    assert!(!right && problem.contains("not valid for"), "{problem}");
    assert!(!export(format!("http://localhost:{query}"), &[]).0, "nothing in clear");
}
