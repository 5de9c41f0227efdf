//! Frames that are broken anywhere: the inputs of `tests/corpus/tcp` as they are, and edited by a generator with a fixed seed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;

use super::{LIMITS, Peer};

/// A longer line does not exist: this many bytes are never waited for.
const LONGEST: usize = 4096;
/// Inputs do not grow beyond it.
const MAX_INPUT: usize = 16 << 10;
/// What edits put in: words, separators and numbers at the edges.
static WORDS: [&[u8]; 24] = [
    b"\n",
    b"\r\n",
    b" ",
    b"-",
    b"a",
    b"0",
    b"00",
    b"1",
    b"256",
    b"257",
    b"1048576",
    b"1048577",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551616",
    b"HELLO ",
    b" epoch=0",
    b" token=t",
    b"PING\n",
    b"BYE\n",
    b"a 1 1\nx\n",
    b"\x80",
    b"\0",
];

/// The inputs of the corpus.
static INPUTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| corpus().into_values().collect());
/// The refusals that `docs/tcp.md` lists, as words; `<n>` stands for a number.
static REFUSALS: LazyLock<Vec<Vec<String>>> = LazyLock::new(documented);

/// One edit of an input.
#[derive(Debug, Clone)]
enum Edit {
    /// Sets a byte.
    Set(Index, u8),
    /// Puts bytes in.
    Insert(Index, Vec<u8>),
    /// Takes so many bytes out.
    Remove(Index, usize),
    /// Puts a range in twice.
    Repeat(Index, usize),
    /// Appends another input of the corpus.
    Append(Index),
    /// Ends the input.
    Cut(Index),
}

/// The inputs of the corpus, by name.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/tcp");
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

fn edit() -> impl Strategy<Value = Edit> {
    let put = prop_oneof![
        3 => select(&WORDS[..]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        4 => (any::<Index>(), put).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        3 => (any::<Index>(), 1..20_usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        1 => (any::<Index>(), 1..400_usize).prop_map(|(at, len)| Edit::Repeat(at, len)),
        1 => any::<Index>().prop_map(Edit::Append),
        1 => any::<Index>().prop_map(Edit::Cut),
    ]
}

fn edited(mut input: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let range = |at: &Index, len: usize, input: &[u8]| {
            let from = at.index(input.len() + 1);
            from..(from + len).min(input.len())
        };
        match edit {
            Edit::Set(at, byte) if !input.is_empty() => {
                let at = at.index(input.len());
                input[at] = *byte;
            }
            Edit::Set(..) => {}
            Edit::Insert(at, bytes) => {
                let at = at.index(input.len() + 1);
                input.splice(at..at, bytes.iter().copied());
            }
            Edit::Remove(at, len) => drop(input.drain(range(at, *len, &input))),
            Edit::Repeat(at, len) => input.extend_from_within(range(at, *len, &input)),
            Edit::Append(other) => input.extend_from_slice(other.get::<Vec<u8>>(&INPUTS)),
            Edit::Cut(at) => input.truncate(at.index(input.len() + 1)),
        }
        input.truncate(MAX_INPUT);
    }
    input
}

fn documented() -> Vec<Vec<String>> {
    let page = include_str!("../../../../docs/tcp.md");
    let replies = page.lines().filter_map(|line| line.strip_prefix("| `NACK ")?.split('`').next());
    let words = |reply: &str| -> Vec<String> { reply.replace("<seq>", "<n>").split(' ').map(Into::into).collect() };
    let replies: Vec<Vec<String>> = replies.map(words).collect();
    assert!(replies.len() > 10, "{replies:?}");
    replies
}

/// Whether a word of a reply is the documented one.
fn is_word(found: &str, documented: &str) -> bool {
    match documented.strip_suffix("<n>").map(|name| found.strip_prefix(name)) {
        None => found == documented,
        Some(number) => number.is_some_and(|number| number.parse::<u64>().is_ok()),
    }
}

fn is_documented(reply: &str) -> bool {
    let Some(refusal) = reply.strip_prefix("NACK ") else {
        let number = reply.strip_prefix("ACK ").and_then(|number| number.parse::<u64>().ok());
        let others = ["OK max=256 window=1024 idle=60 ack=replicated", "PONG", "BYE"];
        return number.is_some_and(|number| number > 0) || others.contains(&reply);
    };
    let found: Vec<&str> = refusal.split(' ').collect();
    let same = |words: &Vec<String>| words.len() == found.len() && found.iter().zip(words).all(|(f, d)| is_word(f, d));
    REFUSALS.iter().any(same)
}

/// What a client gets that sends these pieces, then ends its input; checks what holds for any input.
fn receive<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Peer {
    let (mut peer, mut lines) = (Peer::new(), 0);
    for piece in pieces {
        lines += piece.split(|&byte| byte == b'\n').count() - 1;
        peer.send(piece);
        assert!(!peer.session.reads() || peer.unread.len() < LONGEST, "{} bytes are waited for", peer.unread.len());
    }
    peer.end();
    assert!(peer.session.is_done());
    for reply in peer.replies.lines() {
        assert!(is_documented(reply), "{reply}");
    }
    assert!(peer.replies.is_empty() || peer.replies.ends_with('\n'));
    // At most one for each line, and the one that closes the connection.
    assert!(peer.replies.lines().count() <= lines + 1, "{}", peer.replies);
    let acknowledged = peer.replies.lines().filter_map(|reply| reply.strip_prefix("ACK ")?.parse().ok());
    assert_eq!(acknowledged.collect::<Vec<u64>>(), peer.seqs());
    for (seq, payload) in &peer.frames {
        assert!((1..=i64::MAX.cast_unsigned()).contains(seq), "{seq}");
        assert!(payload.len() <= LIMITS.announced.max_message);
    }
    peer
}

fn assert_same(whole: &Peer, split: &Peer) {
    assert_eq!((&whole.replies, &whole.frames), (&split.replies, &split.frames));
}

#[test]
fn the_corpus_split_at_every_byte() {
    for (name, input) in corpus() {
        let whole = receive([&input[..]]);
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            assert_same(&whole, &receive([first, second]));
        }
        assert_same(&whole, &receive(input.chunks(1)));
        assert!(!whole.replies.is_empty() || input.is_empty(), "{name}");
    }
}

#[test]
fn what_is_not_documented_is_noticed() {
    for reply in ["NACK 7 413 too-large max=256", "NACK 0 400 bad-frame", "NACK 1 503 unavailable retry_ms=1", "ACK 1"]
    {
        assert!(is_documented(reply), "{reply}");
    }
    for reply in ["", "NACK", "NACK 7 413 too-large", "NACK 1 400 bad-frame", "NACK x 409 behind", "ACK 0", "ACK 1 "] {
        assert!(!is_documented(reply), "{reply}");
    }
}

proptest! {
    // The same inputs in each run, as many on a slow machine as on a fast one.
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        rng_seed: RngSeed::Fixed(18),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn broken_input_is_refused_by_a_documented_reply_and_no_split_changes_it(
        of in any::<Index>(),
        edits in prop::collection::vec(edit(), 1..8),
        cuts in prop::collection::vec(any::<Index>(), 0..6),
    ) {
        let input = edited(of.get(&INPUTS).clone(), &edits);
        let whole = receive([&input[..]]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        assert_same(&whole, &receive(cuts.windows(2).map(|two| &input[two[0]..two[1]])));
    }
}
