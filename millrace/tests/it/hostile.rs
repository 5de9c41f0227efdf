//! Clients that take what the whole process needs.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use millrace_testkit::{Child, http, http_get, millrace_bin, wait_until};

use crate::run::{self, WITHIN};

/// Idle connections take what the listeners share; the log keeps its files, and the listeners a few connections each.
#[test]
fn idle_connections_leave_files_to_the_log() {
    const FILES: usize = 400;
    let directory = tempfile::tempdir().unwrap();
    let mut settings = run::settings(directory.path());
    settings.push(("command.tcp.enabled", "false".into()));
    // No timeout ends an idle connection within the test.
    settings.extend(["command.limits.head_timeout", "query.limits.head_timeout"].map(|key| (key, "1h".into())));
    let address = |key| settings.iter().find(|(name, _)| *name == key).unwrap().1.parse::<SocketAddr>().unwrap();
    let (command, query, admin) = (address("command.listen"), address("query.listen"), address("command.admin"));

    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" up \"$@\"")]).arg(millrace_bin());
    for (key, value) in &settings {
        limited.args(["--set", &format!("{key}={value}")]);
    }
    let mut process = Child::spawn(&mut limited, &directory.path().join("log")).unwrap();
    let ready = || http_get(admin, "/readyz").is_ok_and(|response| response.status == 200);
    assert!(wait_until(WITHIN, ready), "{}", process.log());

    let connect = |address| (0..FILES).map_while(move |_| TcpStream::connect(address).ok());
    let idle: Vec<_> = connect(command).chain(connect(query)).collect();
    assert!(idle.len() > FILES, "{}", idle.len());
    let post = || http(command, "POST", "/analytics?timestamp=1&user=a&click", &[], "").is_ok_and(|r| r.status == 204);
    for _ in 0..3 {
        // A connection that is refused makes others give way.
        assert!(wait_until(WITHIN, post), "{}", process.log());
    }
    assert!(ready(), "{}", process.log());
    let counted = || http_get(query, "/analytics?timestamp=1").is_ok_and(|hour| hour.text().contains("clicks,3\n"));
    assert!(wait_until(WITHIN, counted), "{}", process.log());
    assert!(process.ended().is_none() && !process.log().contains("Too many open files"), "{}", process.log());
}
