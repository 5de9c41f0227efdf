//! The catalogue of bad input as a table, and properties of the session: no split and no pipelining changes an answer.

mod fuzz;

use std::path::Path;

use proptest::prelude::*;

use millrace_base::Span;
use millrace_service::auth::{AuthConfig, AuthMode, Authenticator, Denial, JwtConfig, PrincipalLimits};
use millrace_service::health::Health;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::replies::Settled;
use super::reply::{Announced, Closing, Nack};
use super::session::{Frame, Session, SessionLimits};

const LIMITS: SessionLimits = SessionLimits {
    announced: Announced { max_message: 256, window: 1_024, idle_seconds: 60 },
    window_bytes: 256 << 10,
};

fn nobody() -> Admission {
    Admission::new(Authenticator::off(), std::net::Ipv4Addr::LOCALHOST.into(), None)
}

/// A connection as a client sees it, with a log that answers at once unless told otherwise.
struct Peer {
    session: Session,
    unread: Vec<u8>,
    replies: String,
    /// Frames as they were handed out.
    frames: Vec<(u64, Vec<u8>)>,
    /// Those of them that are not settled.
    waiting: usize,
    settles: bool,
}

impl Peer {
    fn new() -> Self {
        let session = Session::new(LIMITS, nobody());
        Self { session, unread: Vec::new(), replies: String::new(), frames: Vec::new(), waiting: 0, settles: true }
    }

    fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.unread.extend_from_slice(bytes);
        loop {
            let mut frames: Vec<Frame> = Vec::new();
            let used = self.session.receive(&self.unread, &mut frames);
            self.waiting += frames.len();
            let taken = frames.into_iter().map(|frame| (frame.seq, self.unread[frame.payload].to_vec()));
            self.frames.extend(taken);
            self.unread.drain(..used);
            if self.settles {
                self.settle(Settled::Stored);
            }
            if used == 0 {
                break;
            }
        }
        self.take_replies();
        self
    }

    /// All that wait end alike.
    fn settle(&mut self, outcome: Settled) {
        let waiting = std::mem::take(&mut self.waiting);
        self.session.settle(std::iter::repeat_n(outcome, waiting));
        self.take_replies();
    }

    fn settle_each(&mut self, outcomes: &[Settled]) {
        self.waiting -= outcomes.len();
        self.session.settle(outcomes.iter().copied());
        self.take_replies();
    }

    fn take_replies(&mut self) {
        let replies = std::mem::take(self.session.replies());
        self.replies.push_str(std::str::from_utf8(&replies).unwrap());
    }

    fn end(&mut self) -> &mut Self {
        self.session.end_of_input();
        self.take_replies();
        self
    }

    fn seqs(&self) -> Vec<u64> {
        self.frames.iter().map(|(seq, _)| *seq).collect()
    }
}

fn frame(client: &str, seq: u64, payload: &[u8]) -> Vec<u8> {
    [format!("{client} {seq} {}\n", payload.len()).as_bytes(), payload, b"\n"].concat()
}

#[test]
fn the_catalogue() {
    const BAD: &str = "NACK 0 400 bad-frame\n";
    let many: Vec<u8> = (1..=100).flat_map(|seq| frame("a", seq, b"x")).collect();
    let acks = (1..=100).map(|seq| format!("ACK {seq}\n")).collect::<Vec<_>>().concat();
    let digits = format!("a 1 {}\n", "9".repeat(100));
    let mut table: Vec<(&str, Vec<u8>, String, bool)> = Vec::new();
    let mut case = |name, input: &[u8], replies: &str, ends| table.push((name, input.to_vec(), replies.into(), ends));
    // Refused and closed.
    case("1 length with a sign", b"a 1 +5\nhello\n", BAD, true);
    case("1 length with a leading zero", b"a 1 05\nhello\n", BAD, true);
    case("1 length with CR", b"a 1 5\r\nhello\n", BAD, true);
    case("2 length above 1 MiB", b"a 1 1048577\n", "NACK 1 413 too-large max=256\n", true);
    case("2 length 2^32", b"a 1 4294967296\n", "NACK 1 413 too-large max=256\n", true);
    case("2 length 2^64", b"a 1 18446744073709551616\n", "NACK 1 413 too-large max=256\n", true);
    case("2 length of 100 digits", digits.as_bytes(), "NACK 1 413 too-large max=256\n", true);
    case("3 unknown command", b"QUIT\n", BAD, true);
    case("3 HELLO that is not first", b"PING\nHELLO a\n", "PONG\nNACK 0 400 bad-frame\n", true);
    case("4 HTTP request line", b"GET / HTTP/1.1\r\nHost: x\r\n", BAD, true);
    case("5 TLS hello", b"\x16\x03\x01\x02\x00\x01\x00", BAD, true);
    case("9 no newline", &b"a".repeat(65_536), BAD, true);
    case("9 no newline in a HELLO", &[b"HELLO a token=", &b"a".repeat(65_536)[..]].concat(), BAD, true);
    case("10 no newline after the payload", b"a 1 5\nhello!", BAD, true);
    case("11 end of input inside a header", b"a 1 5\nhello\na 2", "ACK 1\nNACK 0 400 bad-frame\n", true);
    case("11 end of input inside a payload", b"a 1 5\nhel", BAD, true);
    case("11 end of input before the last newline", b"a 1 5\nhello", BAD, true);
    case("11 end of input inside a skipped payload", b"a 1 500\nhel", BAD, true);
    case("reserved first byte", b"\x80a 1 5\nhello\n", BAD, true);
    case("- before there is a client", b"- 1 5\nhello\n", BAD, true);
    // Refused, goes on.
    let large = [frame("a", 1, &[b'\n'; 257]), frame("a", 2, b"x")].concat();
    case("12 length above the cap", &large, "NACK 1 413 too-large max=256\nACK 2\n", false);
    let large = [frame("a", 1, &vec![b'x'; 1 << 20]), frame("-", 2, b"x")].concat();
    case("12 length of 1 MiB", &large, "NACK 1 413 too-large max=256\nACK 2\n", false);
    let other = [frame("a", 1, b"x"), frame("b", 2, b"x"), frame("a", 3, b"x")].concat();
    case("13 another client's id", &other, "ACK 1\nNACK 2 403 client-id-changed\nACK 3\n", false);
    let other = [frame("a", 1, b"x"), frame("b", 2, &[0; 300]), frame("A", 3, b"x")].concat();
    let replies = "ACK 1\nNACK 2 403 client-id-changed\nNACK 3 403 client-id-changed\n";
    case("13 another client's id goes before the length", &other, replies, false);
    // Accepted.
    case("16 empty payload", b"a 1 0\n\n", "ACK 1\n", false);
    let bytes: Vec<u8> = (0..=255).collect();
    case("17 any bytes", &frame("a", 1, &bytes), "ACK 1\n", false);
    let twice = [frame("a", 1, b"x"), frame("a", 1, b"x"), frame("a", 1, b"y")].concat();
    case("18, 19 number repeated", &twice, "ACK 1\nACK 1\nACK 1\n", false);
    let gap = [frame("a", 1, b"x"), frame("a", 9, b"x"), frame("a", 3, b"x")].concat();
    case("20 a gap", &gap, "ACK 1\nACK 9\nACK 3\n", false);
    case("21 largest number", b"a 9223372036854775807 1\nx\n", "ACK 9223372036854775807\n", false);
    case("24 100 frames in one packet", &many, &acks, false);
    let talk = b"HELLO a epoch=5 token=t\nPING\n- 1 1\nx\na 2 1\ny\nBYE\n- 3 1\nz\n";
    case("a conversation", talk, "OK max=256 window=1024 idle=60 ack=replicated\nPONG\nACK 1\nACK 2\nBYE\n", true);

    for (name, input, replies, ends) in table {
        let mut whole = Peer::new();
        whole.send(&input).end();
        assert_eq!(whole.replies, replies, "{name}");
        let mut bytes = Peer::new();
        for byte in &input {
            bytes.send(&[*byte]);
        }
        bytes.end();
        assert_eq!((&bytes.replies, &bytes.frames), (&whole.replies, &whole.frames), "22 {name}, by the byte");
        let mut open = Peer::new();
        open.send(&input);
        let partial = name.starts_with("11");
        assert_eq!(open.session.is_done(), ends && !partial, "{name}");
        assert_eq!(open.session.is_partial(), partial, "{name}");
    }
}

#[test]
fn what_follows_a_frame_to_be_sent_again_is_behind() {
    let mut peer = Peer::new();
    peer.settles = false;
    let frames = |seqs: &[u64]| seqs.iter().flat_map(|&seq| frame("a", seq, b"x")).collect::<Vec<u8>>();
    peer.send(&frames(&[1, 2, 3, 4]));
    peer.settle_each(&[Settled::Stored, Settled::Refused(Nack::Unavailable)]);
    assert_eq!(peer.replies, "ACK 1\nNACK 2 503 unavailable retry_ms=1000\nNACK 3 409 behind\nNACK 4 409 behind\n");
    assert_eq!(peer.session.failures(), 1);
    peer.replies.clear();
    // What the log says of 3 and 4 has no meaning any more: they did not continue the series.
    peer.settle_each(&[Settled::Stored, Settled::Stored]);
    assert_eq!(peer.replies, "");

    // A new frame waits for all three, and they come back in order, pipelined.
    peer.send(&frames(&[5, 3, 2, 4]));
    assert_eq!(peer.replies, "NACK 5 409 behind\nNACK 3 409 behind\n");
    peer.settle(Settled::Stored);
    assert_eq!(peer.replies, "NACK 5 409 behind\nNACK 3 409 behind\nACK 2\nNACK 4 409 behind\n");
    peer.replies.clear();
    peer.send(&frames(&[3, 4, 5, 6]));
    peer.settle(Settled::Stored);
    assert_eq!(peer.replies, "ACK 3\nACK 4\nACK 5\nACK 6\n");
    assert_eq!(peer.seqs(), [1, 2, 3, 4, 2, 3, 4, 5, 6]);
}

#[test]
fn a_frame_refused_for_good_holds_back_nothing() {
    let mut peer = Peer::new();
    peer.settles = false;
    peer.send(&[frame("a", 1, b"x"), frame("a", 2, b"x")].concat());
    peer.settle_each(&[Settled::Refused(Nack::TooLarge)]);
    // It took an index of the series all the same, so the log drops what follows.
    assert_eq!(peer.replies, "NACK 1 413 too-large max=256\nNACK 2 409 behind\n");
    peer.settle_each(&[Settled::Stored]);
    peer.settles = true;
    peer.send(&[frame("a", 2, b"x"), frame("a", 3, b"x")].concat());
    assert!(peer.replies.ends_with("ACK 2\nACK 3\n"), "{}", peer.replies);
}

#[test]
fn a_gate_refuses_the_first_frame_and_holds_back_the_others() {
    let mut peer = Peer::new();
    peer.session.set_gate(Some(Nack::JournalLagging));
    peer.send(&[frame("a", 1, b"x"), frame("a", 2, b"x"), frame("a", 1, b"x")].concat());
    assert_eq!(peer.replies, "NACK 1 507 journal-lagging\nNACK 2 409 behind\nNACK 1 507 journal-lagging\n");
    peer.session.set_gate(None);
    peer.replies.clear();
    peer.send(&[frame("a", 2, b"x"), frame("a", 1, b"x"), frame("a", 2, b"x")].concat());
    assert_eq!(peer.replies, "NACK 2 409 behind\nACK 1\nACK 2\n");
}

#[test]
fn an_unknown_outcome_is_not_answered() {
    let mut peer = Peer::new();
    peer.settles = false;
    peer.send(&[frame("a", 1, b"x"), frame("a", 2, b"x"), frame("a", 3, b"x"), b"PING\n".to_vec()].concat());
    peer.settle_each(&[Settled::Stored, Settled::Unknown]);
    assert_eq!((peer.replies.as_str(), peer.session.is_done()), ("ACK 1\n", true));
    assert_eq!(peer.session.take_counts().unknown, 2);
    peer.settle_each(&[Settled::Stored]);
    assert_eq!(peer.replies, "ACK 1\n");
}

#[test]
fn the_window_stops_reading() {
    let mut peer = Peer::new();
    peer.settles = false;
    let frames: Vec<u8> = (1..=1_030).flat_map(|seq| frame("a", seq, b"x")).collect();
    peer.send(&frames);
    assert_eq!((peer.frames.len(), peer.session.reads(), peer.session.is_partial()), (1_024, false, false));
    peer.settle(Settled::Stored);
    peer.send(b"");
    assert_eq!((peer.frames.len(), peer.session.reads()), (1_030, true));

    let mut peer = Peer::new();
    peer.settles = false;
    peer.session = Session::new(SessionLimits { window_bytes: 1_000, ..LIMITS }, nobody());
    peer.send(&(1..=9).flat_map(|seq| frame("a", seq, &[0; 256])).collect::<Vec<u8>>());
    assert_eq!(peer.frames.len(), 4);
}

#[test]
fn closing_answers_what_was_read_first() {
    let mut peer = Peer::new();
    peer.settles = false;
    peer.send(&[frame("a", 1, b"x"), frame("a", 2, b"x")[..5].to_vec()].concat());
    peer.session.close(Closing::ShuttingDown);
    peer.send(&frame("a", 3, b"x"));
    assert_eq!((peer.replies.as_str(), peer.session.is_done()), ("", false));
    peer.settle(Settled::Stored);
    assert_eq!((peer.replies.as_str(), peer.session.is_done()), ("ACK 1\nNACK 0 503 shutting-down\n", true));
}

/// Authentication by the tokens of an issuer that does not answer.
fn of_silent_issuer(directory: &Path, stop: CancellationToken) -> Authenticator {
    let keys_file = directory.join("keys.toml");
    std::fs::write(&keys_file, "").unwrap();
    let jwt = JwtConfig {
        jwks_file: "".into(),
        jwks_url: "http://127.0.0.1:1/".into(),
        jwks_ca_file: "".into(),
        jwks_refresh_interval: Span::from_secs(300),
        issuer: "i".into(),
        audience: "a".into(),
        leeway: Span::from_secs(60),
        principal_claim: "sub".into(),
        scope_claims: vec!["scope".into()],
    };
    let config = AuthConfig {
        mode: AuthMode::Keys,
        allow_off_beyond_loopback: false,
        allowed_hosts: Vec::new(),
        keys_file,
        process_key_file: "".into(),
        jwt,
        max_failure_rate_per_ip: 0,
        limits: PrincipalLimits::NONE,
    };
    Authenticator::start(&config, &Health::new(), stop).unwrap()
}

#[tokio::test]
async fn a_token_that_may_be_valid_soon_is_not_refused_for_good() {
    let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let auth = of_silent_issuer(directory.path(), stop.clone());
    let _stop = stop.drop_guard();
    for (token, reply) in
        [("x.y.z", "NACK 0 503 unavailable retry_ms=1000\n"), ("mk_x", "NACK 0 401 unauthenticated\n")]
    {
        let mut peer = Peer::new();
        peer.session = Session::new(LIMITS, Admission::new(auth.clone(), std::net::Ipv4Addr::LOCALHOST.into(), None));
        peer.send(format!("HELLO a token={token}\n").as_bytes());
        assert_eq!((peer.replies.as_str(), peer.session.is_done()), (reply, true));
    }
    assert_eq!(nobody().deny(Denial::UnknownKey), Closing::Unavailable);
    assert_eq!(nobody().deny(Denial::Invalid), Closing::Unauthenticated);
}

/// Input of a client that may be broken anywhere.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => (0..3_u64, 0..300_usize).prop_map(|(seq, len)| frame("a", seq + 1, &vec![b'x'; len])),
        1 => (0..3_u64).prop_map(|seq| frame("b", seq + 1, b"\n\n")),
        1 => Just(b"PING\n".to_vec()),
        1 => Just(b"HELLO a\n".to_vec()),
        1 => Just(frame("-", 7, b"")),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_split_changes_an_answer(input in input(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut whole = Peer::new();
        whole.send(&input).end();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        let (mut split, mut from) = (Peer::new(), 0);
        for to in cuts {
            split.send(&input[from..to]);
            from = to;
        }
        split.end();
        prop_assert_eq!(&whole.replies, &split.replies);
        prop_assert_eq!(whole.frames, split.frames);
    }

    #[test]
    fn a_late_log_changes_no_answer(input in input()) {
        let mut at_once = Peer::new();
        at_once.send(&input).end();
        let mut late = Peer::new();
        late.settles = false;
        late.send(&input).end();
        late.settle(Settled::Stored);
        prop_assert_eq!(&at_once.replies, &late.replies);
        prop_assert!(late.session.is_done());
    }

    /// Whatever the log refuses, a client that sends again from its first unanswered frame has each stored once the
    /// series it was stored in is followed, in its order.
    #[test]
    fn refusals_never_reorder(refusals in prop::collection::vec(0..4_u8, 1..60), burst in 1..6_usize) {
        let mut peer = Peer::new();
        peer.settles = false;
        let mut refusals = refusals.into_iter().chain(std::iter::repeat(3));
        let (mut next, mut stored) = (1_u64, Vec::new());
        let last = 12;
        while next <= last {
            peer.frames.clear();
            let batch: Vec<u64> = (next..=last).take(burst).collect();
            let bytes: Vec<u8> = batch.iter().flat_map(|&seq| frame("a", seq, b"x")).collect();
            peer.send(&bytes);
            // What is stored behind a refused frame does not continue the series: the stage drops it.
            let mut broken = false;
            let seqs = peer.seqs();
            let outcomes: Vec<Settled> = seqs.iter().map(|&seq| {
                let refused = refusals.next() == Some(0);
                broken |= refused;
                if !broken {
                    stored.push(seq);
                }
                if refused { Settled::Refused(Nack::Unavailable) } else { Settled::Stored }
            }).collect();
            peer.settle_each(&outcomes);
            let replies: Vec<String> = peer.replies.lines().map(Into::into).collect();
            peer.replies.clear();
            prop_assert_eq!(replies.len(), batch.len());
            let acked = replies.iter().take_while(|reply| reply.starts_with("ACK")).count();
            prop_assert!(replies[acked..].iter().all(|reply| reply.starts_with("NACK")), "{:?}", replies);
            next += acked as u64;
        }
        prop_assert_eq!(stored, (1..=last).collect::<Vec<_>>());
    }
}
