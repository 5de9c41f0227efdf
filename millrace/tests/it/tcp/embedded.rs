//! On the embedded engine.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use millrace_testkit::{Response, Service, free_port, http_get, wait_until};

use super::client::{Client, Fate};
use super::oracle::{assert_right, journal};
use crate::run::{Up, WITHIN, stderr, stdout, tool};

/// A running `millrace up` with TCP and a journal.
pub(crate) struct TcpUp {
    pub(crate) up: Up,
    pub(crate) server: SocketAddr,
    pub(crate) journal: PathBuf,
    _directory: tempfile::TempDir,
}

impl TcpUp {
    pub(crate) fn start(more: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal");
        let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (listen, path) = (server.to_string(), journal.display().to_string());
        let own = [("command.tcp.enabled", "true"), ("command.tcp.listen", &listen), ("journal.directory", &path)];
        let up = Up::with(&[&own[..], more].concat());
        Self { up, server, journal, _directory: directory }
    }

    /// Runs clients at the same time, each on a thread of its own.
    pub(crate) fn run(&self, clients: Vec<Client>) -> Vec<(Client, Vec<Fate>)> {
        run_all(clients, &[self.server], &Arc::default())
    }
}

/// Runs clients at the same time against servers.
pub(crate) fn run_all(
    clients: Vec<Client>,
    servers: &[SocketAddr],
    acked: &Arc<AtomicU64>,
) -> Vec<(Client, Vec<Fate>)> {
    let start = |client: Client| {
        let (servers, acked) = (servers.to_vec(), acked.clone());
        thread::spawn(move || {
            let fates = client.run(&servers, WITHIN * 2, &acked);
            (client, fates)
        })
    };
    let threads: Vec<_> = clients.into_iter().map(start).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

pub(crate) fn clients(count: u64, messages: usize) -> Vec<Client> {
    let client = |n: u64| {
        let epoch = n.is_multiple_of(2).then_some(n + 7);
        Client::random(&format!("client{n}"), epoch, messages, n + 1)
    };
    (0..count).map(client).collect()
}

#[test]
fn the_line_of_the_readme_is_in_the_journal() {
    let tcp = TcpUp::start(&[]);
    let replies = super::hostile::talk(tcp.server, b"sensor7 1 5\nhello\n");
    assert_eq!(replies, "ACK 1\n");
    assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 1));
    let cat = tcp.up.tool(&["journal", "cat"]);
    let text = stdout(&cat);
    assert!(cat.status.success() && text.ends_with("Z sensor7 1 9a71bb4c hello\n"), "{text} {}", stderr(&cat));
    let verify = tcp.up.tool(&["journal", "verify"]);
    assert!(verify.status.success() && stdout(&verify).starts_with("1 records in 1 segments"), "{}", stdout(&verify));
}

#[test]
fn every_acknowledged_message_is_in_the_journal_once_whatever_dies() {
    let mut tcp = TcpUp::start(&[("journal.segment_size", "64KiB")]);
    let acked = Arc::new(AtomicU64::new(0));
    let running = {
        let (server, acked) = (tcp.server, acked.clone());
        thread::spawn(move || run_all(clients(12, 2_500), &[server], &acked))
    };
    for kills in 1..=5 {
        assert!(wait_until(WITHIN, || acked.load(Ordering::Relaxed) >= kills * 3_000), "{kills}");
        tcp.up.service.kill();
        thread::sleep(Duration::from_millis(20 * kills));
        tcp.up.service.restart();
        tcp.up.service.wait_ready(tcp.up.command);
    }
    let fates = running.join().unwrap();
    assert!(fates.iter().all(|(_, fates)| fates.iter().all(|fate| *fate != Fate::Unknown)));
    assert_right(&tcp.journal, &fates, WITHIN);
    let verify = tcp.up.tool(&["journal", "verify", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&verify.stdout).unwrap();
    assert!(verify.status.success(), "{found}");
    assert_eq!(found["records"], journal(&tcp.journal).len(), "{found}");
    assert!(found["segments"].as_u64().unwrap() > 5, "{found}");
}

#[test]
fn a_journal_that_cannot_be_written_stops_no_intake_and_catches_up() {
    let tcp = TcpUp::start(&[("journal.segment_size", "64KiB")]);
    let mut fates = tcp.run(clients(2, 200));
    assert_right(&tcp.journal, &fates, WITHIN);
    // Directories stand in the way of every segment to come.
    let next = journal(&tcp.journal).len();
    let obstacles: Vec<PathBuf> = (next..next + 2_000).map(|n| tcp.journal.join(format!("{n:020}.log"))).collect();
    for path in &obstacles {
        std::fs::create_dir_all(path).unwrap();
    }
    let more: Vec<Client> = (0..2).map(|n| Client::random(&format!("more{n}"), Some(1), 800, n + 99)).collect();
    let sent = tcp.run(more);
    assert!(sent.iter().all(|(_, fates)| fates.iter().all(|fate| *fate != Fate::Unknown)), "intake goes on");
    for path in &obstacles {
        std::fs::remove_dir(path).unwrap();
    }
    fates.extend(sent);
    assert_right(&tcp.journal, &fates, WITHIN);
}

#[test]
fn the_journal_goes_on_in_another_directory_only_if_it_is_empty_of_others() {
    let tcp = TcpUp::start(&[]);
    assert_eq!(super::hostile::talk(tcp.server, b"a 1 1\nx\n"), "ACK 1\n");
    assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 1));
    std::fs::write(tcp.journal.join("journal.position.bak"), "").unwrap();
    let missing = tcp.up.directory.path().join("nothing");
    let cat = tool(&["journal", "cat", "--directory", missing.to_str().unwrap()]).output().unwrap();
    assert!(!cat.status.success() && stderr(&cat).contains("no journal here"), "{}", stderr(&cat));
    let none = tool(&["journal", "cat"]).output().unwrap();
    assert!(!none.status.success() && stderr(&none).contains("journal.directory"), "{}", stderr(&none));
    let from = tcp.up.tool(&["journal", "cat", "--from", "1"]);
    assert_eq!((from.status.success(), stdout(&from).as_str()), (true, ""));
    let from = tcp.up.tool(&["journal", "cat", "--from", "2020-01-01", "--until", "1"]);
    assert!(stdout(&from).ends_with("a 1 883dd08a x\n") || stdout(&from).contains(" a 1 "), "{}", stdout(&from));
}

/// A journal names the record that it wrote last. With another log, whose offsets extend past it, it would leave out messages.
#[test]
fn a_journal_of_another_log_is_refused_and_doctor_explains_it() {
    let [mut first, mut second] = ["hello", "world"].map(|message| {
        let tcp = TcpUp::start(&[]);
        assert_eq!(super::hostile::talk(tcp.server, format!("a 1 5\n{message}\n").as_bytes()), "ACK 1\n");
        assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 1));
        tcp
    });
    for tcp in [&mut first, &mut second] {
        assert!(tcp.up.service.shut_down(WITHIN).is_some_and(|status| status.success()), "{}", tcp.up.service.log());
    }
    let own = stdout(&second.up.tool(&["doctor"]));
    assert!(own.contains("ok    journal: the log has the records"), "{own}");
    let directory = first.journal.display().to_string();
    // The name that the second log does not know: it refuses another directory for a name that it does.
    let settings = second.up.settings_with(&[("journal.directory", &directory), ("journal.name", "other")]);
    let arguments = settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
    let doctor = tool(&["doctor"]).args(arguments).output().unwrap();
    let found = stdout(&doctor);
    let why = "intake.journal/0: the record before offset 1 is not the one that was written last";
    assert!(found.contains(&format!("FAIL  journal: {why}")) && found.contains("millrace journal adopt"), "{found}");
    assert_eq!(doctor.status.code(), Some(1));

    let mut third = Service::start("up", &settings);
    let ready = || http_get(second.up.admin, "/readyz").map_or(String::new(), Response::into_text);
    assert!(wait_until(WITHIN, || ready().contains(why)), "{}: {}", ready(), third.log());
    let listens = || TcpStream::connect(second.server).is_ok();
    assert!(wait_until(WITHIN, listens), "intake goes on: {}", third.log());
    assert_eq!(super::hostile::talk(second.server, b"a 2 5\nagain\n"), "ACK 2\n", "intake goes on");
    assert_eq!(journal(&first.journal).len(), 1);
    let _ = third.shut_down(WITHIN);
}
