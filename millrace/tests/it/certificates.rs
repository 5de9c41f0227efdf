//! Clients that show a certificate in place of a key, over HTTP and TCP.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use millrace_testkit::{Authority, Certificate, Response, free_port, http, https, not_run, repository, wait_until};

use crate::auth::{Keys, bearer};
use crate::cluster::Cluster;
use crate::run::{Up, WITHIN, stderr, stdout, tool};
use crate::tcp::{Encryption, TcpUp, borrowed, journal, talk_encrypted};

const NAME: &str = "sensor7.example";

/// A keys file, the server's certificate, and the authority of the clients.
struct Fixture {
    keys: Keys,
    encryption: Encryption,
    clients: Authority,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { keys: Keys::new(), encryption: Encryption::new(), clients: Authority::new() };
        fixture.encryption.write("clients.pem", fixture.clients.pem());
        fixture
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.encryption.settings().to_vec();
        settings.extend([
            ("tls.client_ca_file", self.encryption.text("clients.pem")),
            ("auth.mode", "keys".to_owned()),
            ("auth.keys_file", self.keys.file().display().to_string()),
            ("auth.max_failure_rate_per_ip", "0".to_owned()),
        ]);
        settings
    }

    /// An entry for certificates with this name.
    fn allow(&self, name: &str, san: &str, scopes: &[&str]) {
        assert_eq!(self.keys.create_with(name, scopes, &["--san", san]), "", "there is no key to print");
    }

    /// A request on a connection of its own.
    fn request(
        &self,
        address: SocketAddr,
        certificate: Option<&Certificate>,
        (method, target): (&str, &str),
        headers: &[(&str, &str)],
    ) -> std::io::Result<Response> {
        let mut stream = self.encryption.authority.connect(address, certificate, WITHIN)?;
        let close = [&[("connection", "close")], headers].concat();
        https(&mut stream, method, target, &close, "")
    }
}

#[test]
fn a_certificate_is_a_principal_over_http() {
    let fixture = Fixture::new();
    fixture.allow("sensor", NAME, &["counts:read", "topics:manage"]);
    let key = fixture.keys.create("shop", &["events:write"]);
    let up = Up::with(&borrowed(&fixture.settings()));
    let right = fixture.clients.sign(&["unknown.example", "Sensor7.example"]);
    let request = |certificate, (address, method, target), headers: &[(&str, &str)]| {
        fixture.request(address, certificate, (method, target), headers).unwrap()
    };
    let read = (up.query, "GET", "/status");
    let write = (up.command, "POST", "/analytics?timestamp=1&user=a&click");
    let bearer = bearer(&key);
    let header = [("authorization", &*bearer)];

    assert_eq!(request(Some(&right), read, &[]).status, 200);
    let lacks = request(Some(&right), write, &[]);
    assert_eq!((lacks.status, &*lacks.code()), (403, "forbidden"));
    let topic = request(Some(&right), (up.command, "PUT", "/v1/topics/t"), &[]);
    assert!(topic.status == 201 && topic.text().contains("\"cert:sensor7.example\""), "{topic:?}");
    // A header wins, whatever it has.
    assert_eq!(request(Some(&right), write, &header).status, 204);
    assert_eq!(request(Some(&right), read, &header).status, 403);
    assert_eq!(request(Some(&right), read, &[("authorization", "Bearer mk_1_2")]).status, 401);
    // A browser shows a certificate by itself.
    let foreign = [("origin", "https://elsewhere.example")];
    let refused = request(Some(&right), (up.command, "PUT", "/v1/topics/u"), &foreign);
    assert_eq!((refused.status, &*refused.code()), (403, "cross-site"));

    // None is needed where none was: a key is as good, and health needs neither.
    assert_eq!(request(None, write, &header).status, 204);
    let none = request(None, read, &[]);
    assert_eq!((none.status, &*none.code()), (401, "unauthenticated"));
    assert_eq!(request(None, (up.query, "GET", "/livez"), &[]).status, 200);

    let unknown = fixture.clients.sign(&["sensor8.example"]);
    let refused = request(Some(&unknown), read, &[]);
    assert_eq!((refused.status, &*refused.code()), (401, "unauthenticated"));
    let challenges = refused.header_values("www-authenticate");
    assert!(challenges[0].contains("invalid_token"), "{challenges:?}");
    assert_eq!(request(Some(&unknown), write, &header).status, 204);

    // These end at the handshake.
    let failed = || up.metric("millrace_tls_refused_total{reason=\"failed\"}");
    let before = failed();
    let (expired, server) = (fixture.clients.sign_expired(&[NAME]), fixture.clients.sign_for_servers(&[NAME]));
    for (n, other) in (1..).zip([Authority::new().sign(&[NAME]), expired, server]) {
        assert!(fixture.request(up.query, Some(&other), ("GET", "/livez"), &header).is_err());
        assert!(wait_until(WITHIN, || failed() == before + n));
    }

    fixture.keys.revoke("sensor");
    let status = || request(Some(&right), read, &[]).status;
    assert!(wait_until(WITHIN, || status() == 401));
}

#[test]
fn a_live_stream_ends_with_the_entry_of_its_certificate() {
    let fixture = Fixture::new();
    fixture.allow("desk", NAME, &["counts:read"]);
    let up = Up::with(&borrowed(&fixture.settings()));
    let right = fixture.clients.sign(&[NAME]);
    let mut live = fixture.encryption.authority.connect(up.query, Some(&right), WITHIN).unwrap();
    live.write_all(b"GET /analytics/live HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let streams = || up.metric("millrace_query_live_streams");
    assert!(wait_until(WITHIN, || streams() == 1));
    fixture.keys.revoke("desk");
    // Before it is read: a stream that goes on would be read forever.
    assert!(wait_until(WITHIN, || streams() == 0));
    let mut rest = Vec::new();
    // It is cut off, so that no client takes it for complete.
    let _ = live.read_to_end(&mut rest);
    assert!(rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_certificate_is_a_principal_over_tcp() {
    let fixture = Fixture::new();
    fixture.allow("sensor", NAME, &["intake:write"]);
    fixture.allow("reader", "spiffe://example/reader", &["counts:read"]);
    let key = fixture.keys.create("shop", &["intake:write"]);
    let tcp = TcpUp::start(&borrowed(&fixture.settings()));
    let authority = &fixture.encryption.authority;
    let talk = |certificate: Option<&Certificate>, input: &str| {
        talk_encrypted(authority.connect(tcp.server, certificate, WITHIN).unwrap(), input)
    };
    let right = fixture.clients.sign(&[NAME]);
    let reader = fixture.clients.sign(&["spiffe://example/reader"]);
    let unknown = fixture.clients.sign(&["sensor8.example"]);
    let unauthenticated = "NACK 0 401 unauthenticated\n";

    // With and without a HELLO.
    assert_eq!(talk(Some(&right), "s 1 1\nx\nPING\n"), "ACK 1\nPONG\n");
    let hello = talk(Some(&right), "HELLO s epoch=1\n- 1 1\nx\n");
    assert!(hello.starts_with("OK ") && hello.ends_with("\nACK 1\n"), "{hello}");
    // A token wins, whatever it is.
    let token = talk(Some(&unknown), &format!("HELLO s token={key}\n- 2 1\nx\n"));
    assert!(token.ends_with("\nACK 2\n"), "{token}");
    assert_eq!(talk(Some(&right), "HELLO s token=mk_1_2\n- 3 1\nx\n"), unauthenticated);
    for (certificate, reply) in
        [(Some(&reader), "NACK 0 403 forbidden\n"), (Some(&unknown), unauthenticated), (None, unauthenticated)]
    {
        assert_eq!((&*talk(certificate, "s 4 1\nx\n"), &*talk(certificate, "HELLO s\n")), (reply, reply));
    }
    let senders = || journal(&tcp.journal).into_iter().map(|line| line.client).collect::<Vec<_>>();
    assert!(wait_until(WITHIN, || senders().len() == 3), "{:?}", senders());
    let mut senders = senders();
    senders.sort();
    assert_eq!(senders, ["cert:sensor7.example/s", "cert:sensor7.example/s", "key:shop/s"]);

    for other in [Authority::new().sign(&[NAME]), fixture.clients.sign_expired(&[NAME])] {
        let answer = authority.connect(tcp.server, Some(&other), WITHIN).and_then(|mut stream| {
            stream.write_all(b"s 5 1\nx\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        });
        assert!(answer.is_err(), "{answer:?}");
    }

    let mut session = authority.connect(tcp.server, Some(&right), WITHIN).unwrap();
    session.write_all(b"s 6 1\nx\n").unwrap();
    let mut ack = [0; 6];
    session.read_exact(&mut ack).unwrap();
    assert_eq!(&ack, b"ACK 6\n");
    fixture.keys.revoke("sensor");
    let mut rest = String::new();
    session.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, unauthenticated);
    assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 4));
}

/// OpenSSL is the other end, in the example in Python.
#[test]
fn clients_of_other_libraries_show_certificates_and_keys_over_tcp() {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        return not_run("the Python example over TLS", "python3", "it is not installed");
    }
    let fixture = Fixture::new();
    fixture.allow("sensor", NAME, &["intake:write"]);
    let key = fixture.keys.create("shop", &["intake:write"]);
    let tcp = TcpUp::start(&borrowed(&fixture.settings()));
    let own = fixture.clients.sign(&[NAME]);
    fixture.encryption.write("own.pem", [own.cert.pem(), own.signing_key.serialize_pem()].concat());
    let send = |variables: &[(&str, &str)]| {
        let mut command = Command::new("python3");
        command.arg(repository().join("examples/tcp/client.py"));
        command
            .args(["py", "localhost", &tcp.server.port().to_string()])
            .env("CA_FILE", fixture.encryption.file("ca.pem"));
        command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(&b"a message\n".repeat(2_000));
        child.wait_with_output().unwrap()
    };
    let file = fixture.encryption.text("own.pem");
    for right in [("CERTIFICATE_FILE", &*file), ("TOKEN", &*key)] {
        let output = send(&[right]);
        assert_eq!(output.status.code(), Some(0), "{} {}", right.0, stderr(&output));
    }
    let refused = send(&[("TOKEN", "mk_1_2")]);
    assert!(refused.status.code() == Some(1) && stderr(&refused).contains("401"), "{}", stderr(&refused));
    let lines = |client: &str| journal(&tcp.journal).iter().filter(|line| line.client == client).count();
    assert!(wait_until(WITHIN, || lines("cert:sensor7.example/py") == 2_000 && lines("key:shop/py") == 2_000));
}

#[test]
fn entries_of_certificates_are_listed_and_unique() {
    let fixture = Fixture::new();
    fixture.allow("sensor", NAME, &["intake:write"]);
    let keys =
        |arguments: &[&str]| tool(&["keys"]).args(arguments).arg("--file").arg(fixture.keys.file()).output().unwrap();
    let listed = stdout(&keys(&["list"]));
    assert!(listed.contains("cert:sensor7.example"), "{listed}");
    for (san, problem) in [(NAME, "has this san already"), ("Sensor8", "DNS name in lower case"), ("", "san must be")] {
        let refused = keys(&["create", "other", "--scope", "admin", "--san", san]);
        assert!(!refused.status.success() && stderr(&refused).contains(problem), "{san}: {}", stderr(&refused));
    }
    fixture.keys.revoke("sensor");
    assert_eq!(stdout(&keys(&["list", "--json"])).trim(), "[]");
}

#[test]
fn certificates_are_requested_only_where_they_count() {
    let fixture = Fixture::new();
    let check = |left_out: &[&str]| {
        let kept = |key: &str| !left_out.iter().any(|prefix| key.starts_with(prefix));
        let settings = fixture.settings().into_iter().filter(|(key, _)| kept(key));
        let flags = settings.flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
        let output = tool(&["check-config"]).args(flags).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, text) = check(&[]);
    assert_eq!(code, Some(0), "{text}");
    for left_out in [&["auth."][..], &["tls.certificate", "tls.key"]] {
        let (code, text) = check(left_out);
        assert!(code == Some(78) && text.contains("tls.client_ca_file"), "{left_out:?}: {text}");
    }
    fixture.encryption.write("clients.pem", "no certificate".to_owned());
    let (code, text) = check(&[]);
    assert!(code == Some(78) && text.contains("clients.pem"), "{text}");
}

#[test]
fn calls_to_coordinators_beyond_loopback_are_encrypted_and_their_certificates_checked() {
    const SUITE: &str = "encrypted calls on Kafka";
    let fixture = Fixture::new();
    let process_key = fixture.keys.file().with_file_name("process.key");
    std::fs::write(&process_key, fixture.keys.create("processes", &["admin"])).unwrap();
    let key = bearer(&fixture.keys.create("shop", &["topics:manage"]));
    let mut settings = fixture.settings();
    settings.extend([
        ("auth.process_key_file", process_key.display().to_string()),
        ("tls.process_ca_file", fixture.encryption.text("ca.pem")),
    ]);
    let Some(brokers) = millrace_testkit::kafka(SUITE) else { return };
    let Some(mut cluster) = Cluster::with(brokers, SUITE, 0, &borrowed(&settings)) else { return };
    let port = free_port();
    let beyond =
        [("delivery.listen", format!("0.0.0.0:{port}")), ("delivery.url", format!("https://localhost:{port}"))];
    cluster.add_with("delivery", &beyond).wait_ready();
    cluster.add("command").wait_ready();
    // This one trusts the authority of the clients alone.
    cluster.add_with("command", &[("tls.process_ca_file", fixture.encryption.text("clients.pem"))]).wait_ready();

    let commands = cluster.publics("command");
    let create = |command, topic: &str| {
        let target = format!("/v1/topics/{topic}");
        fixture.request(command, None, ("PUT", &*target), &[("authorization", &*key)]).unwrap()
    };
    let created = || create(commands[0], "t").status;
    assert!(wait_until(WITHIN, || matches!(created(), 200 | 201)), "{}", created());
    let refused = create(commands[1], "u");
    assert_eq!((refused.status, &*refused.code()), (503, "unavailable"), "{refused:?}");
    let internal = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(http(internal, "POST", millrace_contracts::topics::CALLS_PATH, &[], "").is_err(), "nothing in clear");
}
