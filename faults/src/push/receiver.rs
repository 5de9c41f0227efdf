//! The process behind all endpoints: reads requests, and answers each as its endpoint decides.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection};

use super::deliveries::Deliveries;
use super::endpoints::{Answer, Endpoint, SLOW};
use super::request::Request;
use crate::lock;

/// The longest request.
const MAX_REQUEST: usize = 64 << 10;
/// How often a waiting connection looks whether it is to end.
const LOOK: Duration = Duration::from_millis(500);
/// The longest wait for the rest of a request, and for a client that gets no answer.
const PATIENCE: Duration = Duration::from_mins(1);
/// The length of a huge body as its head announces it, and how much of it is offered.
const HUGE: u64 = 1 << 30;
const OFFERED: u64 = 64 << 20;

/// How many there are now, and the most there were.
#[derive(Debug, Default)]
struct Gauge {
    now: AtomicU64,
    most: AtomicU64,
}

/// One of those that a gauge counts.
struct Counted<'a>(&'a Gauge);

impl Gauge {
    fn count(&self) -> Counted<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Counted(self)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    deliveries: Mutex<Deliveries>,
    /// Requests that are slow.
    slow: Gauge,
    /// Requests that will be answered.
    in_flight: Gauge,
    /// No new messages.
    ending: AtomicBool,
    /// The endpoint that was gone is back.
    back: AtomicBool,
    stopped: AtomicBool,
    tls: Arc<ServerConfig>,
    /// A listener that redirects point to.
    forbidden: SocketAddr,
}

/// A running receiver. Dropping it ends it.
pub(crate) struct Receiver {
    /// Where endpoints are reached.
    pub(crate) plain: SocketAddr,
    /// Where those are reached whose certificate nobody signed.
    pub(crate) tls: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Starts the listeners.
    ///
    /// # Errors
    /// If one cannot be bound, or there is no certificate.
    pub(crate) fn start() -> Result<Self, String> {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string());
        let (plain, tls, forbidden) = (bind()?, bind()?, bind()?);
        let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
        let shared = Arc::new(Shared {
            deliveries: Mutex::default(),
            slow: Gauge::default(),
            in_flight: Gauge::default(),
            ending: AtomicBool::new(false),
            back: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            tls: Arc::new(unsigned()?),
            forbidden: address(&forbidden)?,
        });
        let receiver = Self { plain: address(&plain)?, tls: address(&tls)?, shared };
        receiver.listen(plain, |shared, stream| drop(shared.serve(&stream)));
        receiver.listen(tls, |shared, stream| shared.refuse(&stream));
        receiver.listen(forbidden, |shared, _| {
            lock(&shared.deliveries).differences.push("a redirect was followed".to_owned());
        });
        Ok(receiver)
    }

    /// Serves each connection on a thread of its own.
    fn listen(&self, listener: TcpListener, serve: fn(&Shared, TcpStream)) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), shared) = (stream, Arc::clone(&shared)) else { continue };
                thread::spawn(move || serve(&shared, stream));
            }
        });
    }

    /// What reached the endpoints.
    pub(crate) fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        lock(&self.shared.deliveries)
    }

    /// No new messages: slow endpoints are slow no longer.
    pub(crate) fn end(&self) {
        self.shared.ending.store(true, Ordering::SeqCst);
    }

    /// The endpoint that was gone is back.
    pub(crate) fn come_back(&self) {
        self.shared.back.store(true, Ordering::SeqCst);
    }

    /// The most requests that were slow at the same time, and the most of all that were answered.
    pub(crate) fn most(&self) -> (u64, u64) {
        let Shared { slow, in_flight, .. } = &*self.shared;
        (slow.most.load(Ordering::SeqCst), in_flight.most.load(Ordering::SeqCst))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for address in [self.plain, self.tls, self.shared.forbidden] {
            // Wakes the thread that accepts.
            let _ = TcpStream::connect(address);
        }
    }
}

/// A server with a certificate that it signed itself.
fn unsigned() -> Result<ServerConfig, String> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(|error| error.to_string())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key.into()));
    config.map_err(|error| error.to_string())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        while let Some((request, length)) = self.next(stream)? {
            let Some(endpoint) = Endpoint::named(&request.endpoint) else {
                let text = format!("a request to {:?}, which is no endpoint", request.endpoint);
                lock(&self.deliveries).differences.push(text);
                return Ok(());
            };
            let (ending, back) = (self.ending.load(Ordering::SeqCst), self.back.load(Ordering::SeqCst));
            let answer = lock(&self.deliveries).begin(endpoint, &request, ending, back);
            if answer == Answer::Reset {
                lock(&self.deliveries).end(endpoint, &request, answer);
                // The request is still unread in the socket: the kernel resets the connection when it closes it.
                return Ok(());
            }
            let mut stream = stream;
            stream.read_exact(&mut vec![0; length])?;
            if answer == Answer::Never {
                lock(&self.deliveries).end(endpoint, &request, answer);
                self.stays(stream, PATIENCE);
                return Ok(());
            }
            let counted = self.in_flight.count();
            if answer == Answer::Slow {
                let _slow = self.slow.count();
                if !self.stays(stream, SLOW) {
                    return Ok(());
                }
            }
            lock(&self.deliveries).end(endpoint, &request, answer);
            // Before the client can have the answer, and use what it frees.
            drop(counted);
            self.answer(stream, answer)?;
        }
        Ok(())
    }

    /// The next request and its length, left in the socket; `None` at the end of the connection.
    fn next(&self, stream: &TcpStream) -> io::Result<Option<(Request, usize)>> {
        let mut bytes = vec![0; MAX_REQUEST];
        let mut partial: Option<Instant> = None;
        while !self.stopped.load(Ordering::Relaxed) {
            match stream.peek(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(length) => {
                    if let Some(found) = Request::parse(&bytes[..length]) {
                        return Ok(Some(found));
                    }
                    if length == MAX_REQUEST || partial.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                        return Err(ErrorKind::InvalidData.into());
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Waits; false if the client closes the connection meanwhile.
    fn stays(&self, stream: &TcpStream, time: Duration) -> bool {
        let begun = Instant::now();
        while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            if self.stopped.load(Ordering::Relaxed) || stream.set_read_timeout(Some(left.min(LOOK))).is_err() {
                return false;
            }
            match stream.peek(&mut [0]) {
                Err(error) if is_timeout(&error) => {}
                // Nothing is expected before the answer.
                Ok(_) | Err(_) => return false,
            }
        }
        stream.set_read_timeout(Some(LOOK)).is_ok()
    }

    fn answer(&self, mut stream: &TcpStream, answer: Answer) -> io::Result<()> {
        let head = |status: u16, more: &str| format!("HTTP/1.1 {status} x\r\n{more}\r\n");
        let text = match answer {
            Answer::Status(204) | Answer::Slow => head(204, ""),
            Answer::Status(status) => head(status, "content-length: 0\r\n"),
            Answer::Rest { seconds, as_date } => {
                let rest = if as_date {
                    let until = Timestamp::now() + SignedDuration::from_secs(seconds.into());
                    DateTimePrinter::new().timestamp_to_rfc9110_string(&until).map_err(io::Error::other)?
                } else {
                    seconds.to_string()
                };
                head(429, &format!("retry-after: {rest}\r\ncontent-length: 0\r\n"))
            }
            Answer::Redirect { metadata } => {
                let host = if metadata { "169.254.169.254".to_owned() } else { self.forbidden.to_string() };
                head(302, &format!("location: http://{host}/latest/meta-data/\r\ncontent-length: 0\r\n"))
            }
            Answer::Huge(status) => head(status, &format!("content-length: {HUGE}\r\n")),
            Answer::Reset | Answer::Never => return Ok(()),
        };
        stream.write_all(text.as_bytes())?;
        if matches!(answer, Answer::Huge(_)) {
            io::copy(&mut io::repeat(b'x').take(OFFERED), &mut stream)?;
            return Err(ErrorKind::Other.into());
        }
        Ok(())
    }

    /// A handshake, which no client may complete.
    fn refuse(&self, mut stream: &TcpStream) {
        let Ok(mut tls) = ServerConnection::new(Arc::clone(&self.tls)) else { return };
        if stream.set_read_timeout(Some(PATIENCE)).is_err() {
            return;
        }
        let accepted = tls.complete_io(&mut stream).is_ok() && !tls.is_handshaking();
        let mut deliveries = lock(&self.deliveries);
        deliveries.count(Answer::TLS);
        if accepted {
            deliveries.differences.push("a certificate that nobody signed was accepted".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_remembers_the_most() {
        let gauge = Gauge::default();
        let first = gauge.count();
        drop((first, gauge.count()));
        drop(gauge.count());
        assert_eq!((gauge.now.into_inner(), gauge.most.into_inner()), (0, 2));
    }
}
