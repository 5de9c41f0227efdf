//! Encrypted TCP intake: messages, keys, and clients that do not make a handshake.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Output, Stdio};

use millrace_testkit::{Authority, TlsStream, free_port, wait_until};

use super::embedded::TcpUp;
use super::oracle::journal;
use crate::auth::Keys;
use crate::cluster::Cluster;
use crate::run::{WITHIN, stderr, stdout, tool};

/// The files of a server's certificate for `localhost`, and the authority that has signed it.
pub(crate) struct Encryption {
    pub(crate) authority: Authority,
    directory: tempfile::TempDir,
}

impl Encryption {
    pub(crate) fn new() -> Self {
        let made = Self { authority: Authority::new(), directory: tempfile::tempdir().unwrap() };
        made.authority.server().write(made.directory.path()).unwrap();
        made.write("ca.pem", made.authority.pem());
        made
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, content: String) {
        fs::write(self.file(name), content).unwrap();
    }

    /// Settings of a server with the certificate.
    pub(crate) fn settings(&self) -> [(&'static str, String); 2] {
        [("tls.certificate_file", self.text("server.pem")), ("tls.key_file", self.text("server.key"))]
    }

    pub(crate) fn connect(&self, server: SocketAddr) -> TlsStream {
        self.authority.connect(server, None, WITHIN).unwrap()
    }
}

/// Settings as a test's own.
pub(crate) fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

/// Sends, closes its direction with a `close_notify`, and returns every reply.
pub(crate) fn talk(mut stream: TlsStream, input: &str) -> String {
    stream.write_all(input.as_bytes()).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    rest(&mut stream)
}

pub(crate) fn rest(stream: &mut TlsStream) -> String {
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    replies
}

/// Runs `millrace send` with a key and one message.
fn send(server: &str, key: Option<&str>, more: &[&str]) -> Output {
    let mut send = tool(&["send", "-", "--client", "s", "--epoch", "2", "--patience", "5s", "--server", server]);
    send.args(more).envs(key.map(|key| ("MILLRACE_KEY", key)));
    let mut send = send.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A sender that gives up at once does not read it.
    let _ = writeln!(send.stdin.take().unwrap(), "world");
    send.wait_with_output().unwrap()
}

#[test]
fn messages_and_keys_are_encrypted_on_the_embedded_engine() {
    let (keys, encryption) = (Keys::new(), Encryption::new());
    let (sensor, reader) = (keys.create("sensor", &["intake:write"]), keys.create("reader", &["counts:read"]));
    let keys_file = keys.file().display().to_string();
    let own = encryption.settings();
    let auth = [("auth.mode", "keys"), ("auth.keys_file", &*keys_file), ("auth.max_failure_rate_per_ip", "0")];
    let tcp = TcpUp::start(&[&auth[..], &borrowed(&own)[..]].concat());
    let talk = |input: &str| talk(encryption.connect(tcp.server), input);

    // More than a record of TLS, in both directions.
    let frames = (1..=900).map(|n| format!("s {n} 200\n{}\n", "x".repeat(200))).collect::<Vec<_>>().concat();
    let replies = talk(&format!("HELLO s epoch=1 token={sensor}\n{frames}"));
    let acks = (1..=900).map(|n| format!("ACK {n}\n")).collect::<Vec<_>>().concat();
    assert!(replies.starts_with("OK ") && replies.ends_with(&acks), "{replies}");
    assert_eq!(talk("s 1 5\nhello\n"), "NACK 0 401 unauthenticated\n");
    assert_eq!(talk("HELLO s token=mk_1_2\n"), "NACK 0 401 unauthenticated\n");
    assert_eq!(talk(&format!("HELLO s token={reader}\n")), "NACK 0 403 forbidden\n");
    // A frame that is cut short by the end of the connection, without a `close_notify`, is not taken.
    let mut cut = encryption.connect(tcp.server);
    cut.write_all(format!("HELLO c epoch=1 token={sensor}\n- 1 5\nhel").as_bytes()).unwrap();
    cut.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(rest(&mut cut).ends_with("NACK 0 400 bad-frame\n"));

    let (ca, address) = (encryption.file("ca.pem").display().to_string(), tcp.server.port());
    let trusted = ["--ca-file", &*ca];
    let server = format!("tls://localhost:{address}");
    let sent = send(&server, Some(&sensor), &trusted);
    assert_eq!(sent.status.code(), Some(0), "{}", stderr(&sent));
    let refused = send(&server, None, &trusted);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("401"), "{}", stderr(&refused));
    let stranger = send(&server, Some(&sensor), &[]);
    assert!(
        stranger.status.code() == Some(2) && stderr(&stranger).contains("UnknownIssuer"),
        "{:?} {}",
        stranger.status,
        stderr(&stranger)
    );
    let unencrypted = send(&format!("localhost:{address}"), None, &[]);
    assert!(
        unencrypted.status.code() == Some(2) && stderr(&unencrypted).contains("tls://"),
        "{:?} {}",
        unencrypted.status,
        stderr(&unencrypted)
    );
    let clear = send("intake.example:1", Some(&sensor), &[]);
    assert!(stderr(&clear).contains("--allow-clear-key"), "{}", stderr(&clear));
    assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 901));
    assert!(journal(&tcp.journal).iter().all(|line| line.client == "key:sensor/s"));

    // A session ends with its key.
    let mut session = encryption.connect(tcp.server);
    session.write_all(format!("HELLO s epoch=3 token={sensor}\n").as_bytes()).unwrap();
    let mut first = [0; 3];
    session.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"OK ");
    keys.revoke("sensor");
    assert!(rest(&mut session).ends_with("\nNACK 0 401 unauthenticated\n"));
}

#[test]
fn messages_and_keys_are_encrypted_on_kafka() {
    const SUITE: &str = "encrypted TCP intake on Kafka";
    let (keys, encryption) = (Keys::new(), Encryption::new());
    let sensor = keys.create("sensor", &["intake:write"]);
    let process_key = keys.file().with_file_name("process.key");
    fs::write(&process_key, keys.create("processes", &["admin"])).unwrap();
    let Some(brokers) = millrace_testkit::kafka(SUITE) else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut settings = vec![
        ("command.tcp.enabled", "true".to_owned()),
        ("command.tcp.listen", server.to_string()),
        ("journal.directory", path.display().to_string()),
        ("auth.mode", "keys".to_owned()),
        ("auth.keys_file", keys.file().display().to_string()),
        ("auth.process_key_file", process_key.display().to_string()),
    ];
    settings.extend(encryption.settings());
    let Some(_cluster) = Cluster::with(brokers, SUITE, 1, &borrowed(&settings)) else { return };
    let replies = talk(encryption.connect(server), &format!("HELLO s epoch=1 token={sensor}\n- 1 5\nhello\n"));
    assert!(replies.starts_with("OK ") && replies.ends_with("\nACK 1\n"), "{replies}");
    let ca = encryption.file("ca.pem").display().to_string();
    let sent = send(&format!("tls://localhost:{}", server.port()), Some(&sensor), &["--ca-file", &ca]);
    assert_eq!(sent.status.code(), Some(0), "{}", stderr(&sent));
    assert!(wait_until(WITHIN, || journal(&path).len() == 2));
}

#[test]
fn a_handshake_ends_in_time_or_by_what_is_none() {
    let encryption = Encryption::new();
    let own = encryption.settings();
    let more = [("command.tcp.limits.max_connections", "3")];
    let tcp = TcpUp::start(&[&more[..], &borrowed(&own)[..]].concat());
    // Neither a client in clear nor a web page gets an answer in clear, or anything taken.
    for input in [&b"a 1 5\nhello\n"[..], b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut clear = TcpStream::connect(tcp.server).unwrap();
        clear.write_all(input).unwrap();
        let mut answer = Vec::new();
        let _ = clear.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"NACK") && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let refused = |reason: &str| tcp.up.metric(&format!("millrace_tls_refused_total{{reason=\"{reason}\"}}"));
    let open = || tcp.up.metric("millrace_tcp_connections");
    assert!(wait_until(WITHIN, || refused("failed") == 2 && open() == 0));
    // Clients that send nothing take every place, and lose it.
    let silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(tcp.server).unwrap()).collect();
    for mut silent in silent {
        silent.set_read_timeout(Some(WITHIN)).unwrap();
        let mut answer = Vec::new();
        assert!(silent.read_to_end(&mut answer).is_ok_and(|_| answer.is_empty()), "{answer:?}");
    }
    assert!(wait_until(WITHIN, || refused("timeout") == 3 && open() == 0));
    assert_eq!(talk(encryption.connect(tcp.server), "a 1 5\nhello\n"), "ACK 1\n");
}

#[test]
fn intake_beyond_loopback_needs_encryption() {
    let check = |more: &[&str]| {
        let flags = [&["auth.mode=keys", "command.tcp.listen=0.0.0.0:8084"][..], more].concat();
        let flags = flags.into_iter().flat_map(|flag| ["--set", flag]);
        let output = tool(&["check-config"]).args(flags).output().unwrap();
        (output.status.code(), [stdout(&output), stderr(&output)].concat())
    };
    let keys = Keys::new();
    let file = format!("auth.keys_file={}", keys.file().display());
    let (code, text) = check(&[&file]);
    assert!(code == Some(78) && text.contains("command.tcp.listen") && text.contains("tls.certificate_file"), "{text}");
    let upstream = check(&[&file, "tls.terminated_upstream=true"]);
    assert_eq!(upstream.0, Some(0), "{}", upstream.1);
    let encryption = Encryption::new();
    let [certificate, key] = encryption.settings().map(|(key, value)| format!("{key}={value}"));
    let encrypted = check(&[&file, &certificate, &key]);
    assert_eq!(encrypted.0, Some(0), "{}", encrypted.1);
}
