//! The guard of push against a DNS server of the test's own, which answers with what no honest one does.
//!
//! Names are resolved by the system, so the test runs itself again in a network namespace: public addresses are those of
//! its loopback interface there, and its DNS server is the only one.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use millrace_contracts::Code;
use millrace_contracts::topics::AttemptError;
use millrace_testkit::not_run;

use super::attempt::{Attempted, Sender};
use super::target::Targets;

const SELF: &str = "push::namespace_tests::push_connects_to_vetted_addresses_alone";
/// Set within the namespace.
const INSIDE: &str = "MILLRACE_TEST_NAMESPACE";
/// `$1` and `$2` replace the system's files; the rest is the command.
const SETUP: &str = r#"
    ip link set lo up && ip addr add 93.184.216.34/32 dev lo && ip addr add 93.184.216.35/32 dev lo || exit
    ip addr add 2606:4700::1111/128 dev lo || true
    mount --bind "$1" /etc/resolv.conf || exit
    [ ! -e /etc/nsswitch.conf ] || mount --bind "$2" /etc/nsswitch.conf || exit
    shift 2
    exec "$@"
"#;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const PROXY: &str = "93.184.216.35:3128";
const PORT: u16 = 8080;

#[test]
fn push_connects_to_vetted_addresses_alone() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(inside());
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).unwrap();
        directory.path().join(name)
    };
    let files = [file("resolv", "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n"), file("nss", "hosts: dns\n")];
    let namespace = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", SETUP, "sh"]).args(&files);
        command
    };
    let possible = match namespace().arg("true").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    };
    if let Err(why) = possible {
        return not_run("push: DNS", "network namespaces", &why);
    }
    let mut again = namespace();
    again.arg(std::env::current_exe().unwrap()).args(["--exact", SELF, "--nocapture"]).env(INSIDE, "1");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        again.env(name, format!("http://{PROXY}"));
    }
    let output = again.output().unwrap();
    let report = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && report.contains("1 passed"), "{report}");
}

async fn inside() {
    let dns = Dns::start();
    let public = Endpoint::start((PUBLIC, PORT).into());
    let private = Endpoint::start((Ipv4Addr::LOCALHOST, PORT).into());
    let proxy = Endpoint::start(PROXY.parse().unwrap());
    let sender = Sender::new(Targets::default()).unwrap();
    let send = async |name: &str, path: &str| {
        let url = format!("http://{name}:{PORT}/{path}");
        sender.send(&url, Duration::from_secs(10), HeaderMap::new(), b"x".to_vec()).await
    };
    // At creation.
    let vetted = async |name: &str| {
        let url = sender.targets.check_url(&format!("http://{name}:{PORT}/")).unwrap();
        sender.targets.check_name(&url).await.map_err(|refusal| refusal.code)
    };
    let outcome = |attempted: &Attempted| (attempted.error, attempted.status);

    assert_eq!(vetted("public.test").await, Ok(()));
    assert_eq!(outcome(&send("public.test", "").await), (None, Some(204)));
    assert_eq!(sender.targets.addresses("http://public.test/").await, [IpAddr::V4(PUBLIC)]);

    for name in [
        "loopback.test",
        "one-of-several.test",
        "one-of-both-families.test",
        "private-v6.test",
        "mapped.test",
        "nat64.test",
        "metadata.test",
        "chain.test",
    ] {
        assert_eq!(vetted(name).await, Err(Code::BlockedTarget), "{name}");
        assert_eq!(outcome(&send(name, "").await), (Some(AttemptError::BlockedTarget), None), "{name}");
        assert!(sender.targets.addresses(&format!("http://{name}/")).await.is_empty(), "{name}");
    }

    // Public at creation, private at the connection.
    assert_eq!(vetted("rebound.test").await, Ok(()));
    assert_eq!(outcome(&send("rebound.test", "").await), (Some(AttemptError::BlockedTarget), None));
    // Private right after the look-up: the connection goes to the address that was vetted, without another look-up.
    assert_eq!(outcome(&send("rebound-later.test", "").await), (None, Some(204)));
    assert_eq!(dns.lookups("rebound-later.test"), 1);
    assert_eq!(outcome(&send("rebound-later.test", "").await), (Some(AttemptError::BlockedTarget), None));

    // A name without an address may get one later.
    assert_eq!(vetted("none.test").await, Ok(()));
    assert_eq!(outcome(&send("none.test", "").await), (Some(AttemptError::Dns), None));

    assert_eq!(outcome(&send("public.test", "redirect").await), (Some(AttemptError::Redirect), Some(302)));

    // The only address is IPv6, if this machine has that.
    if let Ok(listener) = TcpListener::bind((PUBLIC_V6, PORT)) {
        let v6 = Endpoint::serve(listener);
        assert_eq!(outcome(&send("public-v6.test", "").await), (None, Some(204)));
        assert_eq!(v6.connections(), 1);
    }
    assert_eq!(public.connections(), 3);
    assert_eq!((private.connections(), proxy.connections()), (0, 0));

    // With the operator's leave, and only for the network that has it.
    let allowed = Targets { allowed: vec!["127.0.0.0/8".parse().unwrap()] };
    let sender = Sender::new(allowed).unwrap();
    let send = async |name: &str| {
        let url = format!("http://{name}:{PORT}/");
        sender.send(&url, Duration::from_secs(10), HeaderMap::new(), b"x".to_vec()).await
    };
    assert_eq!(outcome(&send("loopback.test").await), (None, Some(204)));
    assert_eq!(outcome(&send("one-of-several.test").await), (Some(AttemptError::BlockedTarget), None));
    assert_eq!((private.connections(), proxy.connections()), (1, 0));
}

/// An HTTP server that counts its connections, each for one request.
struct Endpoint(Arc<AtomicUsize>);

impl Endpoint {
    fn start(address: SocketAddr) -> Self {
        Self::serve(TcpListener::bind(address).unwrap())
    }

    fn serve(listener: TcpListener) -> Self {
        let endpoint = Self(Arc::default());
        let count = endpoint.0.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = answer(&stream.unwrap());
            }
        });
        endpoint
    }

    fn connections(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line)? > 0 && line != "\r\n" {
        head.push_str(&line);
        line.clear();
    }
    // The body is one byte.
    reader.read_exact(&mut [0])?;
    let status = if head.starts_with("POST /redirect ") {
        format!("302 Found\r\nlocation: http://127.0.0.1:{PORT}/")
    } else {
        "204 No Content".to_owned()
    };
    stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes())
}

/// A record of the test's zone.
enum Record {
    Address(IpAddr),
    /// The name that a name stands for.
    Alias(&'static str),
}

/// The records of a name in its n-th look-up.
fn zone(name: &str, lookup: usize) -> Vec<Record> {
    let v4 = |a, b, c, d| Record::Address(Ipv4Addr::new(a, b, c, d).into());
    let v6 = |text: &str| Record::Address(IpAddr::V6(text.parse().unwrap()));
    let public = || Record::Address(PUBLIC.into());
    match name {
        "public.test" => vec![public()],
        "public-v6.test" => vec![Record::Address(PUBLIC_V6.into())],
        "rebound.test" | "rebound-later.test" if lookup == 0 => vec![public()],
        "loopback.test" | "rebound.test" | "rebound-later.test" => vec![v4(127, 0, 0, 1)],
        "one-of-several.test" => vec![public(), v4(10, 0, 0, 1), v4(93, 184, 216, 35)],
        "one-of-both-families.test" => vec![public(), v6("fd00:ec2::254")],
        "private-v6.test" => vec![v6("fd00:ec2::254")],
        "mapped.test" => vec![v6("::ffff:169.254.169.254")],
        "nat64.test" => vec![v6("64:ff9b::169.254.169.254")],
        "instance.internal.test" => vec![Record::Address(METADATA.into())],
        "metadata.test" => vec![Record::Alias("instance.internal.test")],
        "chain.test" => vec![Record::Alias("metadata.test")],
        _ => Vec::new(),
    }
}

/// A DNS server at 127.0.0.1 (RFC 1035).
struct Dns(Arc<Mutex<BTreeMap<String, usize>>>);

impl Dns {
    fn start() -> Self {
        let dns = Self(Arc::default());
        let (lookups, socket) = (dns.0.clone(), UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap());
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                let response = respond(&query[..length], &mut lookups.lock().unwrap());
                socket.send_to(&response, client).unwrap();
            }
        });
        dns
    }

    /// How often the IPv4 addresses of a name were looked up.
    fn lookups(&self, name: &str) -> usize {
        self.0.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

fn respond(query: &[u8], lookups: &mut BTreeMap<String, usize>) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let (mut name, kind) = (labels.join("."), u16::from_be_bytes([query[at + 1], query[at + 2]]));
    // The query for IPv6 addresses of the same look-up comes beside it.
    let seen = lookups.entry(name.clone()).or_default();
    let lookup = *seen;
    *seen += usize::from(kind == A);
    let mut records = zone(&name, lookup);
    let exists = !records.is_empty();
    let (mut answers, mut count) = (Vec::new(), 0_u16);
    while let Some(record) = records.pop() {
        let (record_kind, data) = match record {
            Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            Record::Alias(target) => (CNAME, encoded(target)),
        };
        if record_kind == kind || record_kind == CNAME {
            answers.extend(encoded(&name));
            for field in [record_kind, 1, 0, 0, u16::try_from(data.len()).unwrap()] {
                answers.extend(field.to_be_bytes());
            }
            answers.extend(data);
            count += 1;
        }
        if let Record::Alias(target) = record {
            target.clone_into(&mut name);
            records = zone(target, 0);
        }
    }
    // A response, recursion available; a name without records does not exist.
    let flags: u16 = if exists { 0x8180 } else { 0x8183 };
    let mut response = query[..2].to_vec();
    for field in [flags, 1, count, 0, 0] {
        response.extend(field.to_be_bytes());
    }
    response.extend(&query[12..at + 5]);
    response.extend(answers);
    response
}

fn encoded(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}
