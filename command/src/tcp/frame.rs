//! Lines of the protocol `tcp/1`: what the next bytes of a connection are. Reads from a buffer and copies nothing.

/// Longest header of a frame in bytes, with its LF.
const MAX_HEADER: usize = 128;
/// Longest HELLO in bytes, with its LF.
const MAX_HELLO: usize = 4096;
const MAX_CLIENT: usize = 64;
/// Largest sequence number and epoch.
const MAX_NUMBER: u64 = i64::MAX.cast_unsigned();

/// A complete line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// `HELLO <client-id> [epoch=<n>] [token=<t>]`
    Hello {
        client: &'a str,
        epoch: Option<u64>,
        token: Option<&'a str>,
    },
    Ping,
    Bye,
    /// `<client-id> <seq> <len>`; a payload follows.
    Header {
        /// `None` for `-`: the connection's client.
        client: Option<&'a str>,
        seq: u64,
        /// `u64::MAX` for every number that does not fit.
        len: u64,
    },
}

/// What stands at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan<'a> {
    /// The beginning of a line.
    Partial,
    /// No line of the protocol.
    Bad,
    /// A line, and its length with the LF.
    Line(Line<'a>, usize),
}

/// Reads the line at the start of `input`.
pub(crate) fn scan(input: &[u8]) -> Scan<'_> {
    let max = if input.starts_with(b"HELLO") { MAX_HELLO } else { MAX_HEADER };
    let window = &input[..input.len().min(max)];
    match window.iter().position(|&byte| byte == b'\n') {
        Some(end) => parse(&window[..end]).map_or(Scan::Bad, |line| Scan::Line(line, end + 1)),
        // A client that speaks another protocol may wait for an answer before it ends its line.
        None if window.len() == max || !window.iter().all(|byte| (b' '..=b'~').contains(byte)) => Scan::Bad,
        None => Scan::Partial,
    }
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    match line {
        b"PING" => return Some(Line::Ping),
        b"BYE" => return Some(Line::Bye),
        _ => {}
    }
    let mut words = line.split(|&byte| byte == b' ');
    let first = words.next()?;
    if first == b"HELLO" {
        return parse_hello(words);
    }
    let client = if first == b"-" { None } else { Some(client_id(first)?) };
    let seq = decimal(words.next()?).filter(|seq| (1..=MAX_NUMBER).contains(seq))?;
    let len = decimal(words.next()?)?;
    words.next().is_none().then_some(Line::Header { client, seq, len })
}

fn parse_hello<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<Line<'a>> {
    let client = client_id(words.next()?).filter(|&client| client != "-")?;
    let mut next = words.next();
    let epoch = match next.and_then(|word| word.strip_prefix(b"epoch=")) {
        Some(number) => {
            next = words.next();
            Some(decimal(number).filter(|&epoch| epoch <= MAX_NUMBER)?)
        }
        None => None,
    };
    let token = match next {
        Some(word) => {
            let token = word.strip_prefix(b"token=").and_then(|token| str::from_utf8(token).ok())?;
            let legal = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
            Some((legal && words.next().is_none()).then_some(token)?)
        }
        None => None,
    };
    Some(Line::Hello { client, epoch, token })
}

fn client_id(word: &[u8]) -> Option<&str> {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    let reserved = matches!(word, b"HELLO" | b"PING" | b"BYE");
    let fits = (1..=MAX_CLIENT).contains(&word.len()) && !reserved && word.iter().all(legal);
    fits.then(|| std::str::from_utf8(word).ok())?
}

/// A number without sign and leading zeros. Saturates.
fn decimal(word: &[u8]) -> Option<u64> {
    let legal = !word.is_empty() && word.iter().all(u8::is_ascii_digit) && (word.len() == 1 || word[0] != b'0');
    let digits = |number: u64, digit: &u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    legal.then(|| word.iter().fold(0, digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(input: &str) -> Option<Line<'_>> {
        match scan(input.as_bytes()) {
            Scan::Line(line, len) => {
                assert_eq!(len, input.len(), "{input:?}");
                Some(line)
            }
            Scan::Bad => None,
            Scan::Partial => panic!("{input:?} is partial"),
        }
    }

    #[test]
    fn lines_are_read() {
        let header = |client, seq, len| Some(Line::Header { client, seq, len });
        let id = "a".repeat(64);
        assert_eq!(line("sensor7 1 5\n"), header(Some("sensor7"), 1, 5));
        assert_eq!(line("- 1 0\n"), header(None, 1, 0));
        let longest = format!("{id} {} 18446744073709551616\n", i64::MAX);
        assert_eq!(line(&longest), header(Some(&id), MAX_NUMBER, u64::MAX));
        assert_eq!(line("Az0._:- 2 9\n"), header(Some("Az0._:-"), 2, 9));
        assert_eq!(line("PING\n"), Some(Line::Ping));
        assert_eq!(line("BYE\n"), Some(Line::Bye));
        assert_eq!(line("PINGS 1 1\n"), header(Some("PINGS"), 1, 1));
        let hello = |epoch, token| Some(Line::Hello { client: "a", epoch, token });
        assert_eq!(line("HELLO a\n"), hello(None, None));
        assert_eq!(line("HELLO a epoch=0\n"), hello(Some(0), None));
        assert_eq!(line("HELLO a token=x=y\n"), hello(None, Some("x=y")));
        let most = (1 << 63) - 1;
        let token = "t".repeat(4_000);
        let all = format!("HELLO a epoch={most} token={token}\n");
        assert_eq!(line(&all), hello(Some(most), Some(&token)));
    }

    #[test]
    fn other_lines_are_refused() {
        for bad in [
            "\n",
            "a\n",
            "a 1\n",
            "a 1 1 1\n",
            "a  1 1\n",
            " a 1 1\n",
            "a 1 1 \n",
            "a 1 1\r\n",
            "a\t1\t1\n",
            "a 0 1\n",
            "a 01 1\n",
            "a 1 01\n",
            "a 1 00\n",
            "a +1 1\n",
            "a 1 +1\n",
            "a 1 -1\n",
            "a 1 1.0\n",
            "a 1 x\n",
            "a 9223372036854775808 1\n",
            "ä 1 1\n",
            "a/b 1 1\n",
            "PING \n",
            "PING 1 1\n",
            "BYE 1 1\n",
            "ping\n",
            "QUIT\n",
            "HELLO\n",
            "HELLO \n",
            "HELLO -\n",
            "HELLO PING\n",
            "HELLO a b\n",
            "HELLO a epoch=\n",
            "HELLO a epoch=01\n",
            "HELLO a epoch=-1\n",
            "HELLO a epoch=9223372036854775808\n",
            "HELLO a epoch=1 epoch=1\n",
            "HELLO a token=\n",
            "HELLO a token=t epoch=1\n",
            "HELLO a token=t token=t\n",
            "HELLO a token=t \n",
            "HELLO 1 5\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(line(bad), None, "{bad:?}");
        }
        let long = format!("{} 1 1\n", "a".repeat(65));
        assert_eq!(line(&long), None);
    }

    #[test]
    fn a_line_that_cannot_become_one_is_refused_before_its_end() {
        for (input, expected) in [
            (&b""[..], Scan::Partial),
            (b"a 1", Scan::Partial),
            (b"HEL", Scan::Partial),
            (&[b'a'; 127], Scan::Partial),
            (&[b'a'; 128], Scan::Bad),
            (b"GET / HTTP/1.1\r", Scan::Bad),
            (b"\x16\x03\x01", Scan::Bad),
            (b"\x80", Scan::Bad),
            (b"\x00", Scan::Bad),
        ] {
            assert_eq!(scan(input), expected, "{input:?}");
        }
        let hello = [&b"HELLO a token="[..], &[b't'; 4_081]].concat();
        assert_eq!((scan(&hello), scan(&[&hello[..], b"t"].concat())), (Scan::Partial, Scan::Bad));
        let line = [&[b'0'; 127][..], b"\n"].concat();
        assert_eq!(scan(&line), Scan::Bad);
        let longest = format!("a 1 {}\n", "9".repeat(123));
        assert_eq!(
            scan(longest.as_bytes()),
            Scan::Line(Line::Header { client: Some("a"), seq: 1, len: u64::MAX }, 128)
        );
    }
}
