//! Processes the messages of a subscription, one at a time, and survives restarts of the server.
//!
//! ```sh
//! cargo run --example topics-worker -- http://127.0.0.1:8081 orders worker
//! ```
//!
//! It waits at the server for the next message and leases it, so that several workers share a subscription. It acknowledges
//! a message after it has processed it: what was not acknowledged when it dies comes again. While the server is away it tries
//! again, less and less often.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{sleep, timeout};

const LEASE: &str = "30s";
/// At most 30 s.
const WAIT: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Why a request has no good answer.
enum Trouble {
    /// Another try may succeed.
    Unavailable(Error),
    /// It fails again.
    Refused(String),
}

/// A subscription at a server.
struct Subscription {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

/// A message that is leased to this worker.
struct Message {
    headers: HeaderMap,
    body: Bytes,
}

impl Message {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Subscription {
    fn new(server: &str, topic: &str, name: &str) -> Self {
        let part = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let url = format!("{server}/v1/topics/{}/subscriptions/{}", part(topic), part(name));
        Self { client: Client::builder(TokioExecutor::new()).build_http(), url }
    }

    async fn request(&self, method: Method, path: &str, body: String) -> Result<(StatusCode, Message), Trouble> {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(Full::from(body));
        let request = request.map_err(|error| Trouble::Refused(error.to_string()))?;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, Error>((head.status, Message { headers: head.headers, body }))
        };
        let answer = timeout(WAIT + Duration::from_secs(15), exchange).await;
        let (status, message) = answer.unwrap_or_else(|elapsed| Err(elapsed.into())).map_err(Trouble::Unavailable)?;
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(Trouble::Unavailable(format!("the server answers {status}").into()));
        }
        Ok((status, message))
    }

    /// The next message, or none within the wait.
    async fn next(&self) -> Result<Option<Message>, Trouble> {
        let path = format!("/messages?wait={}s&lease={LEASE}", WAIT.as_secs());
        match self.request(Method::GET, &path, String::new()).await? {
            (StatusCode::OK, message) => Ok(Some(message)),
            (StatusCode::NO_CONTENT, _) => Ok(None),
            (StatusCode::CONFLICT, _) => Err(Trouble::Unavailable("the subscription is suspended".into())),
            (status, problem) => Err(refused(status, &problem)),
        }
    }

    /// Acknowledges or returns a message.
    async fn settle(&self, verb: &str, message: &Message) -> Result<(), Trouble> {
        let body = format!(r#"{{"tokens":["{}"]}}"#, message.header("millrace-token"));
        match self.request(Method::POST, verb, body).await? {
            // 409: the position was set meanwhile, or another worker has the message by now.
            (StatusCode::OK | StatusCode::CONFLICT, _) => Ok(()),
            (status, problem) => Err(refused(status, &problem)),
        }
    }
}

fn refused(status: StatusCode, problem: &Message) -> Trouble {
    Trouble::Refused(format!("{status}: {}", String::from_utf8_lossy(&problem.body)))
}

/// The work itself. A message may come twice: `millrace-id` is the same each time.
fn process(message: &Message) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", std::str::from_utf8(&message.body)?)?;
    Ok(out.flush()?)
}

/// Processes messages until the server refuses a request.
async fn work(subscription: &Subscription) -> String {
    let mut pause = FIRST_PAUSE;
    // A message that is processed, and what to do with it.
    let mut pending: Option<(&str, Message)> = None;
    loop {
        let step = async {
            if pending.is_none() {
                let Some(message) = subscription.next().await? else { return Ok(()) };
                let verb = match process(&message) {
                    Ok(()) => ":ack",
                    Err(error) => {
                        eprintln!("{}: {error}", message.header("millrace-id"));
                        ":nack"
                    }
                };
                pending = Some((verb, message));
            }
            if let Some((verb, message)) = &pending {
                subscription.settle(verb, message).await?;
                pending = None;
            }
            Ok::<(), Trouble>(())
        };
        match step.await {
            Ok(()) => pause = FIRST_PAUSE,
            Err(Trouble::Refused(why)) => return why,
            Err(Trouble::Unavailable(error)) => {
                eprintln!("{error}; again in {pause:?}");
                sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, topic, name] = arguments.as_slice() else {
        eprintln!("usage: topics-worker http://HOST:PORT TOPIC SUBSCRIPTION");
        return ExitCode::from(2);
    };
    let why = work(&Subscription::new(server, topic, name)).await;
    eprintln!("{why}");
    ExitCode::FAILURE
}
