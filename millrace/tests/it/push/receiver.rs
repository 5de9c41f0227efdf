//! An endpoint for push: answers as the test decides, and remembers every request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) at: Instant,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// What a request is answered with: a status, and further header lines. `None`: nothing, ever.
pub(crate) type Answer = Option<(u16, &'static str)>;

type Decide = Arc<dyn Fn(&Received) -> Answer + Send + Sync>;

/// The endpoint.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    decide: Arc<Mutex<Decide>>,
}

impl Receiver {
    /// An endpoint that answers 204.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let decide: Decide = Arc::new(|_| Some((204, "")));
        let receiver = Self { address, received: Arc::default(), decide: Arc::new(Mutex::new(decide)) };
        let own = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (receiver, stream) = (own.clone(), stream.unwrap());
                std::thread::spawn(move || receiver.serve(&stream));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Answers from now on by `decide`.
    pub(crate) fn answers(&self, decide: impl Fn(&Received) -> Answer + Send + Sync + 'static) {
        *self.decide.lock().unwrap() = Arc::new(decide);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if lines.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                let line = line.trim_end().to_owned();
                if line.is_empty() {
                    break;
                }
                head.push(line);
            }
            let headers: BTreeMap<String, String> = head[1..]
                .iter()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            lines.read_exact(&mut body).ok()?;
            let method = head[0].split(' ').next().unwrap_or_default().to_owned();
            let request = Received { method, headers, body, at: Instant::now() };
            // Requests are decided at the same time: one may take long.
            let decide = self.decide.lock().unwrap().clone();
            let answer = decide(&request);
            self.received.lock().unwrap().push(request);
            let Some((status, more)) = answer else {
                std::thread::sleep(Duration::from_mins(2));
                return None;
            };
            let mut out = stream;
            write!(out, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\n{more}\r\n").ok()?;
        }
    }
}
