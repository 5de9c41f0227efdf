//! Slow, broken and hostile clients, and the protocol's edges over a socket.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millrace_testkit::wait_until;

use super::embedded::{TcpUp, clients};
use super::oracle::{assert_right, journal};
use crate::run::WITHIN;

/// Sends, ends the input, and returns every reply.
pub(crate) fn talk(server: SocketAddr, input: &[u8]) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(input).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    rest(&mut stream)
}

fn rest(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    replies
}

fn reply(stream: &mut TcpStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\n") && stream.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn each_kind_of_bad_input_is_answered_and_harms_nobody() {
    let tcp = TcpUp::start(&[]);
    let many: Vec<u8> = (1..=100).flat_map(|n| format!("b {n} 1\nx\n").into_bytes()).collect();
    let large = [b"a 1 1048576\n", &vec![b'x'; 1 << 20][..], b"\na 2 1\nx\n"].concat();
    // Of more than 1 MiB, a reset may destroy the reply.
    let endless = vec![b'a'; 512 << 10];
    for (input, replies) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "NACK 0 400 bad-frame\n"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "NACK 0 400 bad-frame\n"),
        (&endless, "NACK 0 400 bad-frame\n"),
        (b"a 1 5\nhello!", "NACK 0 400 bad-frame\n"),
        (b"a 1 5\nhel", "NACK 0 400 bad-frame\n"),
        (b"a 1 99999999999999999999\n", "NACK 1 413 too-large max=256\n"),
        (&large, "NACK 1 413 too-large max=256\nACK 2\n"),
        (b"PING\nBYE\n", "PONG\nBYE\n"),
        (b"", ""),
    ] {
        assert_eq!(talk(tcp.server, input), replies, "{:?}", String::from_utf8_lossy(&input[..input.len().min(60)]));
    }
    assert_eq!(talk(tcp.server, &many).lines().count(), 100);
    assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 101));
}

#[test]
fn a_frame_by_the_byte_and_one_cut_by_a_reset() {
    let tcp = TcpUp::start(&[]);
    let mut slow = TcpStream::connect(tcp.server).unwrap();
    slow.set_nodelay(true).unwrap();
    for byte in b"HELLO a epoch=1\n- 1 5\nhello\n" {
        slow.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    assert!(reply(&mut slow).starts_with("OK max=256 window=1024 idle=60"));
    assert_eq!(reply(&mut slow), "ACK 1\n");
    let mut cut = TcpStream::connect(tcp.server).unwrap();
    cut.write_all(b"b 1 5\nhel").unwrap();
    drop(cut);
    slow.write_all(b"- 2 1\nx\n").unwrap();
    assert_eq!(reply(&mut slow), "ACK 2\n");
    assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 2));
}

#[test]
fn idle_slow_and_deaf_connections_are_closed() {
    let limits = [
        ("command.tcp.limits.idle_timeout", "1s"),
        ("command.tcp.limits.frame_timeout", "1s"),
        ("command.tcp.limits.write_timeout", "1s"),
    ];
    let tcp = TcpUp::start(&limits);
    let mut idle = TcpStream::connect(tcp.server).unwrap();
    let mut partial = TcpStream::connect(tcp.server).unwrap();
    partial.write_all(b"a 1 5\nhel").unwrap();
    let mut pinging = TcpStream::connect(tcp.server).unwrap();
    let mut deaf = TcpStream::connect(tcp.server).unwrap();
    let listener = thread::spawn(move || {
        let ping = b"PING\n".repeat(10_000);
        // Replies are not read: the server stops reading, then closes.
        let began = Instant::now();
        while deaf.write_all(&ping).is_ok() {
            assert!(began.elapsed() < WITHIN);
        }
    });
    for _ in 0..8 {
        pinging.write_all(b"PING\n").unwrap();
        assert_eq!(reply(&mut pinging), "PONG\n");
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(rest(&mut idle), "NACK 0 408 idle\n");
    assert_eq!(rest(&mut partial), "NACK 0 408 partial\n");
    listener.join().unwrap();
}

#[test]
fn a_good_client_is_served_beside_many_bad_ones() {
    let tcp = TcpUp::start(&[("command.tcp.limits.max_connections", "600")]);
    let idle: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(tcp.server).unwrap()).collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hostile: Vec<_> = (0..8)
        .map(|n: usize| {
            let (server, stop) = (tcp.server, stop.clone());
            thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(server) else { continue };
                    let _ = match n % 4 {
                        0 => stream.write_all(&[0xff; 5_000]),
                        1 => stream.write_all(b"h 1 200\nhalf"),
                        2 => stream.write_all(&[&b"h 1 1000000\n"[..], &vec![0; 100_000]].concat()),
                        _ => stream.write_all(&b"PING\n".repeat(20_000)),
                    };
                    thread::sleep(Duration::from_millis(5));
                }
            })
        })
        .collect();
    let fates = tcp.run(clients(2, 400));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for thread in hostile {
        thread.join().unwrap();
    }
    assert_right(&tcp.journal, &fates, WITHIN);
    drop(idle);
}

#[test]
fn one_connection_too_many_is_refused_politely() {
    let tcp = TcpUp::start(&[("command.tcp.limits.max_connections", "2")]);
    let mut first = TcpStream::connect(tcp.server).unwrap();
    first.write_all(b"a 1 1\nx\n").unwrap();
    assert_eq!(reply(&mut first), "ACK 1\n");
    let _second = TcpStream::connect(tcp.server).unwrap();
    let mut third = TcpStream::connect(tcp.server).unwrap();
    assert_eq!(rest(&mut third), "NACK 0 429 too-many-connections\n");
}

#[test]
fn a_stop_answers_what_was_read() {
    let mut tcp = TcpUp::start(&[]);
    let mut stream = TcpStream::connect(tcp.server).unwrap();
    stream.write_all(b"a 1 1\nx\n").unwrap();
    assert_eq!(reply(&mut stream), "ACK 1\n");
    let ended = tcp.up.service.shut_down(WITHIN).unwrap();
    assert!(ended.success());
    assert_eq!(rest(&mut stream), "NACK 0 503 shutting-down\n");
    tcp.up.service.restart();
    assert!(wait_until(WITHIN, || journal(&tcp.journal).len() == 1));
}
