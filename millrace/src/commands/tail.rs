//! `millrace tail`: the records of a topic, decoded, on either engine.

use crate::cli;
use crate::inspect::{Line, Source, TailRequest, declared};
use crate::settings::Settings;
use crate::text::print_line;

/// Prints records until the end, or forever.
pub(crate) async fn run(options: cli::Tail, settings: Settings) -> anyhow::Result<()> {
    let key = options.key.key()?;
    let topic = declared(&settings.names(), &options.topic).map_err(anyhow::Error::msg)?;
    let cli::Tail { from, max, follow, partition, json, .. } = options;
    let source = Source::find(&settings, &settings.names(), key.as_ref()).await?;
    let request = TailRequest { topic, partition, from, max, follow };
    let print = move |line: Line| {
        // A line consists of text and numbers, which JSON can represent.
        if json {
            serde_json::to_string(&line).is_ok_and(|text| print_line(&text))
        } else {
            print_line(&line.to_string())
        }
    };
    Ok(source.tail(request, print).await?)
}
