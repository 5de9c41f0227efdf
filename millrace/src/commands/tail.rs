//! `millrace tail`: the records of a topic, decoded, on either engine.

use super::say;
use crate::cli;
use crate::inspect::{Line, Source, TailRequest, declared};
use crate::settings::Settings;

/// Prints records until the end, or for ever.
pub(crate) async fn run(options: cli::Tail, settings: Settings) -> anyhow::Result<()> {
    let topic = declared(&settings.names(), &options.topic).map_err(anyhow::Error::msg)?;
    let cli::Tail { from, max, follow, partition, json, .. } = options;
    let source = Source::find(&settings, &settings.names()).await?;
    let request = TailRequest { topic, partition, from, max, follow };
    let print = move |line: Line| {
        // A line is made of text and numbers only; JSON has a form for all of it.
        if json { serde_json::to_string(&line).is_ok_and(|text| say(&text)) } else { say(&line.to_string()) }
    };
    Ok(source.tail(request, print).await?)
}
