//! Sends messages over TCP until each is answered, over as many connections as it takes.

use std::io;
use std::time::{Duration, Instant};

use anyhow::bail;
use millrace_base::Backoff;
use millrace_service::auth::ApiKey;
use millrace_service::net::{Socket, TlsClient};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::input::Line;
use super::report::Report;
use super::window::{Effect, Message, Reply, Window};
use crate::client::Server;

/// What to send, where to, and how.
#[derive(Debug, Clone)]
pub(crate) struct SendOptions {
    pub(crate) server: Server,
    pub(crate) key: Option<ApiKey>,
    /// Encrypts, if the server does.
    pub(crate) tls: Option<TlsClient>,
    pub(crate) client: String,
    pub(crate) epoch: u64,
    /// Most frames without an answer.
    pub(crate) window: usize,
    /// Messages a second; 0 for as many as possible.
    pub(crate) rate: f64,
    /// How long without an answer until the sender gives up.
    pub(crate) patience: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The first byte of an alert of TLS, with which a server that encrypts answers a client that does not.
const ALERT: char = '\u{15}';

pub(super) struct Sender {
    options: SendOptions,
    lines: mpsc::Receiver<Line>,
    /// The input has ended.
    ended: bool,
    window: Window,
    report: Report,
    progress: Instant,
    backoff: Backoff,
    /// When the next message is due.
    due: Instant,
    /// Reports what the user should see at once.
    warn: Box<dyn Fn(String) + Send>,
}

/// How a connection ended.
enum Ended {
    AllAnswered,
    /// Another one is to be tried.
    Lost(String),
}

impl Sender {
    pub(super) fn new(options: SendOptions, lines: mpsc::Receiver<Line>, warn: Box<dyn Fn(String) + Send>) -> Self {
        let report = Report { client: options.client.clone(), epoch: options.epoch, ..Report::default() };
        Self {
            options,
            lines,
            ended: false,
            window: Window::default(),
            report,
            progress: Instant::now(),
            backoff: Backoff::new(FIRST_PAUSE, MAX_PAUSE),
            due: Instant::now(),
            warn,
        }
    }

    /// Sends everything; an error is one that another try would only repeat.
    pub(super) async fn run(mut self, progress: impl Fn(&Report)) -> anyhow::Result<Report> {
        loop {
            let lost = match self.connection(&progress).await {
                Ok(Ended::AllAnswered) => return Ok(self.report),
                Ok(Ended::Lost(why)) => why,
                Err(error) => return Err(error),
            };
            if self.progress.elapsed() > self.options.patience {
                self.report.gave_up = Some(lost);
                self.report.unknown = self.window.len() as u64;
                return Ok(self.report);
            }
            tokio::time::sleep(self.backoff.next_pause()).await;
        }
    }

    async fn connection(&mut self, progress: &impl Fn(&Report)) -> anyhow::Result<Ended> {
        let server = self.options.server.clone();
        let connecting = server.connect(self.options.tls.as_ref());
        let socket = match tokio::time::timeout(Duration::from_secs(5), connecting).await {
            Ok(Ok(socket)) => socket,
            // The certificate, or what is no TLS: another try would only repeat it.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => bail!("{server}: {error}"),
            Ok(Err(error)) => return Ok(Ended::Lost(format!("{server}: {error}"))),
            Err(_) => return Ok(Ended::Lost(format!("{server}: no connection within 5 s"))),
        };
        let (read, mut write) = tokio::io::split(socket);
        let mut replies = BufReader::new(read);
        let token = self.options.key.as_ref().map(|key| format!(" token={}", key.expose())).unwrap_or_default();
        let hello = format!("HELLO {} epoch={}{token}\n", self.options.client, self.options.epoch);
        if let Err(error) = send_all(&mut write, hello.as_bytes()).await {
            return Ok(Ended::Lost(error.to_string()));
        }
        let answer = match tokio::time::timeout(Duration::from_secs(10), next_line(&mut replies)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None)) => return Ok(Ended::Lost("the server closed the connection".into())),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => bail!("{server}: {error}"),
            Ok(Err(error)) => return Ok(Ended::Lost(error.to_string())),
            Err(_) => return Ok(Ended::Lost("no answer to HELLO within 10 s".into())),
        };
        let limits = match hello_limits(&answer) {
            Some(limits) => limits,
            None if answer.starts_with("NACK 0 5") || answer.starts_with("NACK 0 429") => {
                return Ok(Ended::Lost(answer));
            }
            None => bail!("{server} answered HELLO with {answer:?}"),
        };
        self.window.reconnect();
        self.exchange(limits, replies, write, progress).await
    }

    async fn exchange(
        &mut self,
        (max_message, window): (usize, usize),
        mut replies: BufReader<ReadHalf<Socket>>,
        mut write: WriteHalf<Socket>,
        progress: &impl Fn(&Report),
    ) -> anyhow::Result<Ended> {
        let window = window.min(self.options.window);
        let (mut frames, mut line) = (Vec::new(), Vec::new());
        let mut resume_at: Option<Instant> = None;
        loop {
            let settled = self.window.is_refused() && self.window.is_settled();
            if settled && resume_at.is_none_or(|at| at <= Instant::now()) {
                resume_at = None;
                self.window.resume();
            }
            let report = &mut self.report;
            self.window.send(|message, again| {
                report.sent += 1;
                report.resent += u64::from(again);
                frames.extend_from_slice(format!("- {} {}\n", message.seq, message.payload.len()).as_bytes());
                frames.extend_from_slice(&message.payload);
                frames.push(b'\n');
            });
            if !frames.is_empty() {
                if let Err(error) = send_all(&mut write, &frames).await {
                    return Ok(Ended::Lost(error.to_string()));
                }
                frames.clear();
            }
            if self.ended && self.window.is_empty() {
                let _ = send_all(&mut write, b"BYE\n").await;
                return Ok(Ended::AllAnswered);
            }
            progress(&self.report);
            let more = !self.ended && self.window.len() < window && !self.window.is_refused();
            let pause = resume_at.map_or(Duration::from_millis(1), |at| at.saturating_duration_since(Instant::now()));
            let waits = self.window.is_refused() && self.window.is_settled();
            let idle = self.options.patience.saturating_sub(self.progress.elapsed()).max(Duration::from_millis(1));
            tokio::select! {
                biased;
                read = replies.read_until(b'\n', &mut line) => {
                    match read {
                        Ok(_) if line.ends_with(b"\n") => {}
                        Ok(_) => return Ok(Ended::Lost("the server closed the connection".into())),
                        Err(error) => return Ok(Ended::Lost(error.to_string())),
                    }
                    if let Some(why) = self.reply(&line, &mut resume_at)? {
                        return Ok(Ended::Lost(why));
                    }
                    line.clear();
                }
                () = tokio::time::sleep(pause), if waits => {}
                () = tokio::time::sleep_until(self.due.into()), if more && self.is_early() => {}
                next = self.lines.recv(), if more && !self.is_early() => self.take(next, max_message, window)?,
                () = tokio::time::sleep(idle), if !self.window.is_empty() => {
                    return Ok(Ended::Lost(format!("no answer for {:?}", self.options.patience)));
                }
            }
        }
    }

    fn is_early(&self) -> bool {
        self.options.rate > 0.0 && self.due > Instant::now()
    }

    /// Takes lines, as many as fit.
    fn take(&mut self, first: Option<Line>, max_message: usize, window: usize) -> anyhow::Result<()> {
        // Until the first message, nothing is waited for.
        if self.window.is_empty() {
            self.progress = Instant::now();
        }
        let mut next = first;
        loop {
            match next {
                None => {
                    self.ended = true;
                    return Ok(());
                }
                Some(Line::Failed(why)) => bail!("{why}"),
                Some(line) => {
                    self.report.messages += 1;
                    let seq = self.report.messages;
                    match line {
                        Line::Message(payload) if payload.len() <= max_message => {
                            self.window.push(Message { seq, payload });
                        }
                        Line::Message(_) | Line::TooLong | Line::Failed(_) => {
                            (self.warn)(format!("line {seq} is longer than {max_message} bytes: skipped"));
                            *self.report.refused.entry("too-large".into()).or_default() += 1;
                        }
                    }
                    if self.options.rate > 0.0 {
                        // What was missed is made up for, but not more than a second's worth.
                        let now = Instant::now();
                        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
                        self.due = self.due.max(earliest) + Duration::from_secs_f64(1.0 / self.options.rate);
                    }
                }
            }
            if self.window.len() >= window || self.is_early() {
                return Ok(());
            }
            next = match self.lines.try_recv() {
                Ok(line) => Some(line),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => None,
            };
        }
    }

    /// Takes a reply; returns why the connection is given up, if it is.
    fn reply(&mut self, line: &[u8], resume_at: &mut Option<Instant>) -> anyhow::Result<Option<String>> {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        let Some(reply) = Reply::parse(&text) else { bail!("the server replied {text:?}") };
        match self.window.reply(&reply) {
            Effect::Acknowledged => {
                self.report.acknowledged += 1;
                self.progress = Instant::now();
                self.backoff.reset();
            }
            Effect::Refused(word) => {
                *self.report.refused.entry(word).or_default() += 1;
                self.progress = Instant::now();
            }
            Effect::Again(retry) => {
                if resume_at.is_none() {
                    let pause = self.backoff.next_pause().max(retry.unwrap_or_default());
                    *resume_at = Some(Instant::now() + pause);
                }
            }
            Effect::Closing(word) if matches!(word.as_str(), "bad-frame" | "unauthenticated" | "forbidden") => {
                bail!("the server closed the connection: {text}");
            }
            Effect::Closing(word) => return Ok(Some(word)),
            Effect::Unexpected => bail!("the server replied {text:?}, which answers no frame"),
            Effect::None => {}
        }
        if self.progress.elapsed() > self.options.patience {
            return Ok(Some(text));
        }
        Ok(None)
    }
}

async fn next_line(replies: &mut BufReader<ReadHalf<Socket>>) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = replies.read_line(&mut line).await?;
    if line.starts_with(ALERT) {
        let problem = "the server encrypts; --server tls://HOST:PORT does, too";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok((read > 0 && line.ends_with('\n')).then(|| line.trim_end().to_owned()))
}

/// Sends bytes, also those that encryption holds back.
async fn send_all(write: &mut WriteHalf<Socket>, bytes: &[u8]) -> io::Result<()> {
    write.write_all(bytes).await?;
    write.flush().await
}

/// Most bytes of a message, and most frames without an answer.
fn hello_limits(line: &str) -> Option<(usize, usize)> {
    let words = line.strip_prefix("OK ")?;
    let value = |name: &str| words.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok());
    Some((value("max=")?, value("window=")?))
}
