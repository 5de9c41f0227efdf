//! `millrace topics`: the topics of the log, on either engine.

use crate::cli;
use crate::inspect::{Source, TopicLine};
use crate::settings::Settings;
use crate::text::{self, print_line};

/// Lists the topics.
pub(crate) async fn run(options: cli::Topics, settings: Settings) -> anyhow::Result<()> {
    let key = options.key.key()?;
    let source = Source::find(&settings, &settings.names(), key.as_ref()).await?;
    let topics = source.topics().await?;
    if options.json {
        print_line(&serde_json::to_string(&topics)?);
    } else {
        print_line(&table(&topics));
    }
    Ok(())
}

fn table(topics: &[TopicLine]) -> String {
    let mut table = text::table(&["name", "partition", "start", "end", "cleanup", "key", "content"]);
    for topic in topics {
        for (number, partition) in topic.partitions.iter().enumerate() {
            let once = |text: &str| if number == 0 { text.to_owned() } else { String::new() };
            table.add_row([
                once(&topic.name),
                number.to_string(),
                partition.start.to_string(),
                partition.end.to_string(),
                once(&topic.cleanup),
                once(&topic.key),
                once(&topic.content),
            ]);
        }
        if topic.partitions.is_empty() {
            table.add_row([&topic.name, "not created yet", "", "", &topic.cleanup, &topic.key, &topic.content]);
        }
    }
    table.to_string()
}
