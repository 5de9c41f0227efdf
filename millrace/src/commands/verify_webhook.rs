//! `millrace verify-webhook`: verifies a request as an endpoint does, and reports what is wrong with it.

use std::fs::File;
use std::io::{Read, stdin};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use millrace_delivery::VerifyingKey;

use crate::cli;
use crate::client::first_line;
use crate::text::print_line;

/// More than any request has: a message of 1 MiB in base64, in an envelope.
const MAX_BODY: u64 = 4 << 20;

/// Prints every reason why the request is not genuine, or that it is.
pub(crate) fn run(options: &cli::VerifyWebhook) -> anyhow::Result<ExitCode> {
    let secret = match &options.secret_file {
        Some(path) => first_line(path)?,
        None => std::env::var("WEBHOOK_SECRET").context("WEBHOOK_SECRET or --secret-file must give the secret")?,
    };
    let key = VerifyingKey::parse(secret.trim()).context("the secret must be whsec_ or whpk_ and a key in base64")?;
    let body = if options.body.as_os_str() == "-" {
        read(stdin().lock()).context("standard input")?
    } else {
        let file = File::open(&options.body).map_err(anyhow::Error::from);
        file.and_then(read).with_context(|| options.body.display().to_string())?
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let wrong = wrong(options, &key, &body, now);
    for reason in &wrong {
        print_line(&format!("refused: {reason}"));
    }
    if wrong.is_empty() {
        print_line(&format!("genuine: signed with this key ({})", key.version()));
    }
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    from.take(MAX_BODY + 1).read_to_end(&mut body)?;
    anyhow::ensure!(body.len() as u64 <= MAX_BODY, "larger than 4 MiB, which no request is");
    Ok(body)
}

/// Why an endpoint refuses the request.
fn wrong(options: &cli::VerifyWebhook, key: &VerifyingKey, body: &[u8], now: Duration) -> Vec<String> {
    let mut wrong = Vec::new();
    let tolerance = millrace_base::Span(options.tolerance);
    match options.timestamp.parse().map(Duration::from_secs) {
        Err(_) => wrong.push("the timestamp is not a number of seconds".to_owned()),
        Ok(sent) if now.abs_diff(sent) > options.tolerance => {
            let seconds = now.abs_diff(sent).as_secs();
            let when = if sent < now { "ago" } else { "ahead" };
            wrong.push(format!("the timestamp is {seconds} s {when}, further than {tolerance} (--tolerance)"));
        }
        Ok(_) => {}
    }
    let version = key.version();
    let has_version = |one: &str| one.split_once(',').is_some_and(|(named, _)| named == version);
    if !options.signature.split(' ').any(has_version) {
        wrong.push(format!("no signature is of version {version}, which this key verifies"));
    } else if !key.verifies(&options.id, &options.timestamp, body, &options.signature) {
        let length = body.len();
        wrong.push(format!(
            "no signature matches: another key signed it, or the id, the timestamp or the body ({length} bytes) is not as it was sent"
        ));
    }
    wrong
}
