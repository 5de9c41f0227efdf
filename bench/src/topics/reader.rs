//! A reader of one subscription: gets a page, acknowledges it, gets the next one.

use std::net::SocketAddr;

use anyhow::bail;

use super::{PAUSE, verb};
use crate::http::{Connection, Response};
use crate::requests::with_body;

/// A reader, with a connection of its own.
pub(crate) struct Reader {
    to: SocketAddr,
    connection: Connection,
    pull: Vec<u8>,
    ack: String,
    seek: Vec<u8>,
    /// Requests that were refused with 429 or 503 and sent again.
    pub(crate) refused: u64,
}

impl Reader {
    /// A reader of the subscription at this path; the query string is that of its gets.
    pub(crate) async fn open(to: SocketAddr, subscription: &str, query: &str) -> anyhow::Result<Self> {
        let pull = format!("GET {subscription}/messages?{query} HTTP/1.1\r\nhost: {to}\r\n\r\n").into_bytes();
        let json = "application/json";
        let seek = with_body("POST", to, &verb(subscription, "seek"), json, r#"{"to":"earliest"}"#);
        let connection = Connection::open(to).await?;
        Ok(Self { to, connection, pull, ack: verb(subscription, "ack"), seek, refused: 0 })
    }

    /// The tokens of the next page; none without messages.
    pub(crate) async fn pull(&mut self) -> anyhow::Result<Vec<String>> {
        exchange(&mut self.connection, &self.pull, &mut self.refused, tokens).await
    }

    /// Acknowledges messages; returns for how many it took effect.
    pub(crate) async fn acknowledge(&mut self, tokens: &[String]) -> anyhow::Result<u64> {
        let request = ack(self.to, &self.ack, tokens);
        exchange(&mut self.connection, &request, &mut self.refused, acknowledged).await
    }

    /// Begins with the oldest message again.
    pub(crate) async fn rewind(&mut self) -> anyhow::Result<()> {
        exchange(&mut self.connection, &self.seek, &mut self.refused, |_| ()).await
    }
}

/// The request that acknowledges messages by their tokens.
pub(super) fn ack(to: SocketAddr, path: &str, tokens: &[String]) -> Vec<u8> {
    with_body("POST", to, path, "application/json", &format!(r#"{{"tokens":["{}"]}}"#, tokens.join(r#"",""#)))
}

async fn exchange<T>(
    connection: &mut Connection,
    request: &[u8],
    refused: &mut u64,
    read: impl Fn(&Response<'_>) -> T,
) -> anyhow::Result<T> {
    loop {
        let answer = connection.exchange(request).await?;
        match answer.status {
            200..300 => return Ok(read(&answer)),
            429 | 503 => *refused += 1,
            status => bail!("a reader got {status}: {}", String::from_utf8_lossy(answer.body)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The tokens of a response: of one message in a header, of several in a line each.
pub(super) fn tokens(answer: &Response<'_>) -> Vec<String> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    let until = |text: &str, end: char| text.split(end).next().unwrap_or_default().to_owned();
    if let Some((_, token)) = text(answer.head).split_once("\r\nmillrace-token: ") {
        return vec![until(token, '\r')];
    }
    let lines = text(answer.body).lines();
    // No body of these loads has quotes.
    lines.filter_map(|line| Some(until(line.split_once(r#""token":""#)?.1, '"'))).collect()
}

fn acknowledged(answer: &Response<'_>) -> u64 {
    let text = std::str::from_utf8(answer.body).unwrap_or_default();
    let number = text.split_once(r#""acknowledged":"#).and_then(|(_, rest)| {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    });
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Tier;

    fn answer<'a>(head: &'a [u8], body: &'a [u8]) -> Response<'a> {
        Response { status: 200, tier: Tier::Unknown, head, body }
    }

    #[test]
    fn reads_tokens_of_one_message_and_of_several() {
        let one = answer(b"HTTP/1.1 200 OK\r\nmillrace-token: AA-_\r\nmillrace-attempt: 1\r\n\r\n", b"body");
        assert_eq!(tokens(&one), ["AA-_"]);
        let lines = b"{\"id\":\"1\",\"token\":\"AA\",\"attempt\":1}\n{\"id\":\"2\",\"token\":\"BB\",\"attempt\":1}\n";
        assert_eq!(tokens(&answer(b"HTTP/1.1 200 OK\r\n\r\n", lines)), ["AA", "BB"]);
    }

    #[test]
    fn counts_what_took_effect() {
        let body = br#"{"acknowledged":12,"already":1,"stale":0}"#;
        assert_eq!(acknowledged(&answer(b"", body)), 12);
        assert_eq!(acknowledged(&answer(b"", b"")), 0);
    }

    #[test]
    fn an_acknowledgement_lists_its_tokens() {
        let request = ack("127.0.0.1:1".parse().unwrap(), "/s:ack", &["a".to_owned(), "b".to_owned()]);
        assert!(request.ends_with(br#"{"tokens":["a","b"]}"#));
    }
}
