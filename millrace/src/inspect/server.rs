//! The routes of a running process for `topics` and `tail` on its directory. Admin listener only.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use millrace_contracts::{Code, Names};
use millrace_log::Log;
use millrace_service::Problem;
use millrace_service::http::Endless;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::remote::TailLine;
use super::{TailRequest, TopicLine, declared};

/// Concurrent readers; each has a thread.
const MAX_TAILS: usize = 4;
/// Lines in the queue to one slow client.
const MAX_QUEUED_LINES: usize = 256;

struct Shared {
    log: Log,
    names: Names,
    tails: Arc<Semaphore>,
    stop: CancellationToken,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TailQuery {
    topic: String,
    from: Option<String>,
    partition: Option<u32>,
    max: Option<u64>,
    #[serde(default)]
    follow: bool,
}

/// `GET /admin/topics` and `GET /admin/tail`. Streams end when `stop` is canceled.
pub(crate) fn router(log: Log, names: Names, stop: CancellationToken) -> Router {
    let shared = Shared { log, names, tails: Arc::new(Semaphore::new(MAX_TAILS)), stop };
    Router::new().route("/admin/topics", get(topics)).route("/admin/tail", get(tail)).with_state(Arc::new(shared))
}

async fn topics(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let infos = shared.log.describe().await.map_err(|e| Problem::new(Code::Unavailable, e.to_string()))?;
    let lines: Vec<TopicLine> = infos.iter().map(TopicLine::from).collect();
    Ok(axum::Json(lines).into_response())
}

async fn tail(State(shared): State<Arc<Shared>>, Query(query): Query<TailQuery>) -> Result<Response, Problem> {
    let invalid = |field: &'static str, why: String| Problem::new(Code::InvalidField, why).field(field);
    let topic = declared(&shared.names, &query.topic).map_err(|why| invalid("topic", why))?;
    let from = query.from.as_deref().unwrap_or("beginning").parse().map_err(|why| invalid("from", why))?;
    let request = TailRequest { topic, partition: query.partition, from, max: query.max, follow: query.follow };
    let infos = shared.log.describe().await.map_err(|e| Problem::new(Code::Unavailable, e.to_string()))?;
    let permit = shared.tails.clone().try_acquire_owned();
    let permit =
        permit.map_err(|_| Problem::new(Code::Overloaded, format!("{MAX_TAILS} readers are already active")))?;

    let (lines, stream) = mpsc::channel::<Bytes>(MAX_QUEUED_LINES);
    let (log, stop) = (shared.log.clone(), shared.stop.clone());
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let read = request.read(&log, &infos, |line| match line {
            Some(line) => lines.blocking_send(ndjson(&TailLine::Record(line))).is_ok() && !stop.is_cancelled(),
            None => !lines.is_closed() && !stop.is_cancelled(),
        });
        if let Err(e) = read {
            // The client may be gone.
            let _ = lines.blocking_send(ndjson(&TailLine::Error { error: e.to_string() }));
        }
    });
    let stream = futures::stream::unfold(stream, |mut stream| async {
        let line = stream.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), stream))
    });
    let follows = query.follow.then_some(Extension(Endless));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], follows, Body::from_stream(stream)).into_response())
}

fn ndjson(line: &TailLine) -> Bytes {
    let mut bytes = serde_json::to_vec(line)
        .unwrap_or_else(|e| serde_json::json!({ "error": e.to_string() }).to_string().into_bytes());
    bytes.push(b'\n');
    bytes.into()
}
