//! A TCP proxy that injects network faults into one link.
//!
//! A server that advertises addresses (Apache Kafka) must advertise the proxy's, or its clients bypass it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wait::free_port;

/// How many bytes of a piece [`Link::Sliced`] sends one by one; the rest follows at once.
const SLICED: usize = 200;

/// The state of a link: what happens to the bytes of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Passes them on.
    Whole,
    /// Holds them in both directions until the state changes: a partition.
    Cut,
    /// Holds what the client sends; the server still reaches the client.
    CutUp,
    /// Holds what the server sends; the client still reaches the server.
    CutDown,
    /// Cut and whole in turns of this length.
    Flapping(Duration),
    /// Passes each piece on after this long.
    Slow(Duration),
    /// Passes each piece on as slices of one byte, up to a bound.
    Sliced,
    /// Resets every connection, open and new.
    Reset,
    /// Closes the server's side of every open connection; the client can still send.
    HalfClosed,
}

/// A proxy in front of one server, on a port of its own. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: watch::Sender<State>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    link: Link,
    since: Instant,
    server: SocketAddr,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    effects: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread can be started")
    })
}

impl Proxy {
    /// Starts a proxy in front of `server`; its link is whole.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        Self::start_on(free_port(), server)
    }

    /// As [`Self::start`] on a given port, which a server advertises.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start_on(port: u16, server: SocketAddr) -> io::Result<Self> {
        let listener = runtime().block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?;
        let (state, watched) = watch::channel(State { link: Link::Whole, since: Instant::now(), server });
        let counts = Arc::new(Counts::default());
        let accepting = runtime().spawn(accept(listener, watched, Arc::clone(&counts)));
        Ok(Self { port, state, counts, accepting })
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Sets the state of the link. [`Link::Whole`] also sends the bytes that were held.
    pub fn set(&self, link: Link) {
        self.state.send_modify(|state| (state.link, state.since) = (link, Instant::now()));
    }

    /// Connects new connections to another server; set [`Link::Reset`] before to end open ones.
    pub fn redirect(&self, server: SocketAddr) {
        self.state.send_modify(|state| state.server = server);
    }

    /// Number of connections so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// How often the link held, slowed or sliced a piece, or ended a connection: zero means that the fault had no effect.
    pub fn effects(&self) -> u64 {
        self.counts.effects.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn holds(self, way: Way) -> bool {
        match self.link {
            Link::Cut => true,
            Link::CutUp => way == Way::Up,
            Link::CutDown => way == Way::Down,
            Link::Flapping(turn) => (self.since.elapsed().as_millis() / turn.as_millis().max(1)).is_multiple_of(2),
            Link::Whole | Link::Slow(_) | Link::Sliced | Link::Reset | Link::HalfClosed => false,
        }
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, counts: Arc<Counts>) {
    // Aborting this task drops the set, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                counts.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(serve(client, state.clone(), Arc::clone(&counts)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, mut state: watch::Receiver<State>, counts: Arc<Counts>) {
    let now = *state.borrow_and_update();
    let server = if now.link == Link::Reset { None } else { TcpStream::connect(now.server).await.ok() };
    let Some(mut server) = server else {
        counts.effects.fetch_add(1, Ordering::Relaxed);
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (ups, downs) = (state.clone(), state.clone());
    let reset = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let both = async {
            let up = pump(&mut from_client, &mut to_server, Way::Up, ups, &counts);
            let down = pump(&mut from_server, &mut to_client, Way::Down, downs, &counts);
            // An error in one direction ends both, as on a direct connection.
            tokio::try_join!(up, down)
        };
        tokio::select! {
            _ = both => false,
            () = reset(&mut state) => true,
        }
    };
    if reset {
        counts.effects.fetch_add(1, Ordering::Relaxed);
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn reset(state: &mut watch::Receiver<State>) {
    if state.wait_for(|state| state.link == Link::Reset).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pump(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    way: Way,
    mut state: watch::Receiver<State>,
    counts: &Counts,
) -> io::Result<()> {
    let gone = |_| io::Error::other("the proxy was dropped");
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read?,
            changed = state.changed() => {
                changed.map_err(gone)?;
                if way == Way::Down && state.borrow_and_update().link == Link::HalfClosed {
                    counts.effects.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                continue;
            }
        };
        if read == 0 {
            break;
        }
        let mut held = false;
        loop {
            let now = *state.borrow_and_update();
            if !now.holds(way) {
                break;
            }
            // Counted at its start: a test may read the count as soon as it has changed the state.
            if !std::mem::replace(&mut held, true) {
                counts.effects.fetch_add(1, Ordering::Relaxed);
            }
            tokio::select! {
                changed = state.changed() => changed.map_err(gone)?,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        let link = state.borrow().link;
        if matches!(link, Link::Slow(_) | Link::Sliced) {
            counts.effects.fetch_add(1, Ordering::Relaxed);
        }
        let mut rest = &bytes[..read];
        match link {
            Link::Slow(delay) => tokio::time::sleep(delay).await,
            Link::Sliced => {
                let (sliced, after) = rest.split_at(read.min(SLICED));
                for byte in sliced {
                    to.write_all(std::slice::from_ref(byte)).await?;
                    tokio::task::yield_now().await;
                }
                rest = after;
            }
            _ => {}
        }
        to.write_all(rest).await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::{self, Shutdown};
    use std::thread;

    use super::*;

    /// An echo server with a proxy in front of it.
    fn echo() -> Proxy {
        let server = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            while let Ok((stream, _)) = server.accept() {
                thread::spawn(move || io::copy(&mut &stream, &mut &stream));
            }
        });
        Proxy::start(address).unwrap()
    }

    fn connect(proxy: &Proxy) -> net::TcpStream {
        let stream = net::TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    }

    fn echo_of(stream: &mut net::TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8(answer).unwrap())
    }

    fn is_timeout(error: &io::Error) -> bool {
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    }

    #[test]
    fn passes_every_byte_on_whole_slow_and_sliced_links() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        assert_eq!(echo_of(&mut stream, "whole").unwrap(), "whole");
        assert_eq!((proxy.connections(), proxy.effects()), (1, 0));
        proxy.set(Link::Slow(Duration::from_millis(5)));
        assert_eq!(echo_of(&mut stream, "slow").unwrap(), "slow");
        proxy.set(Link::Sliced);
        let long = "x".repeat(1_000);
        assert_eq!(echo_of(&mut stream, &long).unwrap(), long);
        assert!(proxy.effects() >= 4);
    }

    #[test]
    fn holds_every_byte_while_the_link_is_cut() {
        for link in [Link::Cut, Link::CutUp, Link::CutDown, Link::Flapping(Duration::from_mins(1))] {
            let proxy = echo();
            let mut stream = connect(&proxy);
            echo_of(&mut stream, "a").unwrap();
            proxy.set(link);
            assert!(is_timeout(&echo_of(&mut stream, "held").unwrap_err()), "{link:?}");
            proxy.set(Link::Whole);
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"held", "{link:?}");
            assert!(proxy.effects() > 0);
        }
    }

    #[test]
    fn resets_open_and_new_connections() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        echo_of(&mut stream, "a").unwrap();
        proxy.set(Link::Reset);
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut new = connect(&proxy);
        new.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(echo_of(&mut new, "b").is_err());
        proxy.set(Link::Whole);
        assert_eq!(echo_of(&mut connect(&proxy), "c").unwrap(), "c");
    }

    #[test]
    fn closes_only_the_servers_side_of_a_half_closed_link() {
        let proxy = echo();
        let mut stream = connect(&proxy);
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        echo_of(&mut stream, "a").unwrap();
        proxy.set(Link::HalfClosed);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        stream.write_all(b"still accepted").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
}
