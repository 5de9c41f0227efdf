//! `millrace send`, and the examples.

use std::io::Write as _;
use std::process::{Command, Stdio};

use millrace_testkit::{millrace_bin, not_run, repository, wait_until};

use super::embedded::TcpUp;
use super::oracle::journal;
use crate::run::{WITHIN, tool};

fn sends(mut command: Command, input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn lines_are_sent_once_and_what_was_refused_is_reported() {
    let mut tcp = TcpUp::start(&[]);
    let send = |arguments: &[&str]| {
        let address = tcp.server.to_string();
        let mut command = tool(&["send", "--client", "s1", "--epoch", "5", "--json", "--server", &address]);
        command.args(arguments);
        command
    };
    let long = "x".repeat(300);
    let input = format!("one\n\n{long}\nfour\r\nlast");
    let (code, report, errors) = sends(send(&["-"]), input.as_bytes());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap_or_else(|_| panic!("{report} {errors}"));
    assert_eq!((code, &report["acknowledged"], &report["refused"]["too-large"]), (Some(1), &4.into(), &1.into()));
    assert!(errors.contains("line 3 is longer than 256 bytes"), "{errors}");
    // The same again, with the same epoch: nothing is stored twice.
    let (code, _, _) = sends(send(&["-"]), input.as_bytes());
    assert_eq!(code, Some(1));
    let expected: Vec<(u64, &[u8])> = vec![(1, b"one"), (2, b""), (4, b"four\r"), (5, b"last")];
    let lines = || journal(&tcp.journal);
    assert!(wait_until(WITHIN, || lines().len() == 4));
    assert_eq!(lines().iter().map(|line| (line.seq, &line.payload[..])).collect::<Vec<_>>(), expected);

    let address = tcp.server.to_string();
    let gives_up = ["--client", "s2", "--epoch", "9", "--server", &address, "--patience", "1s", "-"];
    tcp.up.service.kill();
    let mut command = tool(&["send"]);
    command.args(gives_up);
    let (code, _, errors) = sends(command, b"one\n");
    assert_eq!(code, Some(75), "{errors}");
    assert!(errors.contains("--epoch 9"), "{errors}");
    let usage = tool(&["send"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn the_examples_are_clients() {
    let tcp = TcpUp::start(&[]);
    let input = (0..3_000).map(|n| format!("message {n}\n")).collect::<Vec<_>>().concat();
    let folder = repository().join("examples/tcp");
    let mut expected = 0;
    let python = Command::new("python3").arg("--version").output();
    if python.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("python3");
        command.arg(folder.join("client.py")).args(["py", "127.0.0.1", &tcp.server.port().to_string()]);
        let (code, _, errors) = sends(command, input.as_bytes());
        assert_eq!(code, Some(0), "{errors}");
        expected += 3_000;
    } else {
        not_run("the Python example", "python3", "it is not installed");
    }
    let netcat = Command::new("nc").arg("-h").output();
    if netcat.is_ok() {
        let mut command = Command::new(folder.join("netcat.sh"));
        command.args(["nc", "hello", "a second message"]).env("PORT", tcp.server.port().to_string());
        let (code, replies, errors) = sends(command, b"");
        assert!(code == Some(0) && replies.ends_with("ACK 1\nACK 2\nBYE\n"), "{replies} {errors}");
        expected += 2;
    } else {
        not_run("the netcat example", "nc", "it is not installed");
    }
    let rust = millrace_bin().with_file_name("examples").join("tcp-client");
    if rust.is_file() {
        let mut command = Command::new(rust);
        command.args(["rs", &tcp.server.to_string()]);
        let (code, _, errors) = sends(command, input.as_bytes());
        assert_eq!(code, Some(0), "{errors}");
        expected += 3_000;
    } else {
        not_run("the Rust example", "target/debug/examples/tcp-client", "it is not built");
    }
    let lines = || journal(&tcp.journal);
    assert!(wait_until(WITHIN, || lines().len() == expected), "{} of {expected}", lines().len());
    for client in ["py", "rs"] {
        let own = lines().into_iter().filter(|line| line.client == client);
        for (n, line) in own.enumerate() {
            assert_eq!((line.seq, &line.payload), (n as u64 + 1, &format!("message {n}").into_bytes()));
        }
    }
}
