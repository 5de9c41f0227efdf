//! Sends the lines of the standard input over tcp/1 until each is acknowledged. Standard library only.
//!
//! ```sh
//! printf 'one\ntwo\n' | cargo run --example tcp-client -- sensor7 127.0.0.1:8084
//! ```
//!
//! A number belongs to the client and its epoch, not to the connection, and a message sent again keeps its number and its
//! bytes: that is all it takes for the journal to hold each message once.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most frames without an answer.
const WINDOW: usize = 1024;

/// A message with its number.
type Message = (u64, Vec<u8>);

/// The reply to one frame.
enum Answer {
    Acknowledged,
    Refused,
    /// To be sent again after a pause.
    Again(Duration),
}

struct Connection {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

fn lost(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why.to_owned())
}

impl Connection {
    fn open(address: &str, client: &str, epoch: u128) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Self { replies: BufReader::new(stream.try_clone()?), stream };
        writeln!(connection.stream, "HELLO {client} epoch={epoch}")?;
        if connection.line()?.starts_with("OK ") { Ok(connection) } else { Err(lost("no OK")) }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        if line.ends_with('\n') { Ok(line) } else { Err(lost("closed")) }
    }

    fn send(&mut self, messages: &VecDeque<Message>) -> io::Result<()> {
        let mut frames = Vec::new();
        for (seq, payload) in messages {
            writeln!(frames, "- {seq} {}", payload.len())?;
            frames.extend_from_slice(payload);
            frames.push(b'\n');
        }
        self.stream.write_all(&frames)
    }

    /// The reply to the frame `seq`: replies come in the order of the frames.
    fn answer(&mut self, seq: u64) -> io::Result<Answer> {
        let line = self.line()?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ACK", number] if number.parse() == Ok(seq) => Ok(Answer::Acknowledged),
            ["NACK", number, status, ..] if number.parse() == Ok(seq) => {
                let again = matches!(status, "409" | "429" | "503" | "507");
                let retry = words.iter().find_map(|word| word.strip_prefix("retry_ms=")?.parse().ok());
                Ok(if again { Answer::Again(Duration::from_millis(retry.unwrap_or(100))) } else { Answer::Refused })
            }
            // About the connection, which the server closes.
            _ => Err(lost(line.trim())),
        }
    }
}

/// Sends until everything is answered, over one connection. `refused` holds what is to be sent again, in order.
fn exchange(
    connection: &mut Connection,
    unanswered: &mut VecDeque<Message>,
    refused: &mut VecDeque<Message>,
    messages: &mut impl Iterator<Item = Message>,
    given_up: &mut u64,
) -> io::Result<()> {
    loop {
        unanswered.extend(messages.take(WINDOW - unanswered.len()));
        if unanswered.is_empty() {
            return writeln!(connection.stream, "BYE");
        }
        connection.send(unanswered)?;
        let mut pause = Duration::ZERO;
        while let Some((seq, _)) = unanswered.front() {
            let answer = connection.answer(*seq)?;
            let message = unanswered.pop_front();
            match answer {
                Answer::Acknowledged => {}
                Answer::Refused => *given_up += 1,
                Answer::Again(retry) => {
                    refused.extend(message);
                    pause = pause.max(retry);
                }
            }
        }
        std::mem::swap(unanswered, refused);
        sleep(pause);
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(client), address) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: tcp-client CLIENT [HOST:PORT] < LINES");
        return ExitCode::from(2);
    };
    let address = address.unwrap_or_else(|| "127.0.0.1:8084".into());
    // By convention the epoch is the client's start in ms: a restarted client numbers from 1 again.
    let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let lines = io::stdin().lock().split(b'\n').map_while(Result::ok);
    let mut messages = (1..).zip(lines);
    let (mut unanswered, mut refused, mut given_up) = (VecDeque::new(), VecDeque::new(), 0);
    let mut pause = Duration::from_millis(50);
    loop {
        let done = Connection::open(&address, &client, epoch).and_then(|mut connection| {
            pause = Duration::from_millis(50);
            exchange(&mut connection, &mut unanswered, &mut refused, &mut messages, &mut given_up)
        });
        match done {
            Ok(()) => break,
            Err(error) => eprintln!("connection lost: {error}"),
        }
        // What was refused comes before what has no answer.
        refused.append(&mut unanswered);
        std::mem::swap(&mut unanswered, &mut refused);
        sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(2));
    }
    if given_up > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
