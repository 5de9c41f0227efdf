//! `millrace topics`: the topics of the log, on either engine.

use anyhow::Context as _;

use crate::cli;
use crate::inspect::{Source, TopicLine, declared};
use crate::settings::Settings;
use crate::text::{self, print_line};

/// Lists the topics, or describes one.
pub(crate) async fn run(options: cli::Topics, settings: Settings) -> anyhow::Result<()> {
    let key = options.key.key()?;
    let names = settings.names();
    let wanted = options.topic.map(|name| declared(&names, &name)).transpose().map_err(anyhow::Error::msg)?;
    let source = Source::find(&settings, &names, key.as_ref()).await?;
    let topics = source.topics().await?;
    let Some(wanted) = wanted else {
        print_line(&if options.json { serde_json::to_string(&topics)? } else { table(&topics) });
        return Ok(());
    };
    let name = names.topic(&wanted);
    let topic = topics.iter().find(|topic| topic.name == name);
    let topic = topic.with_context(|| format!("the running process has no topic {name}; it is of another version"))?;
    print_line(&if options.json { serde_json::to_string(topic)? } else { description(topic) });
    Ok(())
}

/// What fits a terminal: a topic has one row.
fn table(topics: &[TopicLine]) -> String {
    let mut table = text::table(&["name", "partitions", "offsets", "cleanup"]);
    for topic in topics {
        let offsets: u64 = topic.partitions.iter().map(|partition| partition.end.saturating_sub(partition.start)).sum();
        let partitions = match topic.partitions.len() {
            0 => "not created yet".into(),
            count => count.to_string(),
        };
        table.add_row([&topic.name, &partitions, &offsets.to_string(), &topic.cleanup]);
    }
    table.to_string()
}

fn description(topic: &TopicLine) -> String {
    let mut table = text::table(&["partition", "start", "end"]);
    for (number, partition) in topic.partitions.iter().enumerate() {
        table.add_row([number.to_string(), partition.start.to_string(), partition.end.to_string()]);
    }
    let TopicLine { name, cleanup, key, content, .. } = topic;
    let partitions = if topic.partitions.is_empty() { "not created yet".into() } else { table.to_string() };
    format!("name     {name}\ncleanup  {cleanup}\nkey      {key}\ncontent  {content}\n{partitions}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_one_row_of_the_list() {
        let partitions = serde_json::json!([{"start": 2, "end": 5}, {"start": 0, "end": 1}]);
        let topic = TopicLine {
            name: "millrace.analytics.events".into(),
            cleanup: "delete after 7 d".into(),
            key: "{hour}/{p}/".repeat(20),
            content: "one accepted event".into(),
            partitions: serde_json::from_value(partitions).unwrap(),
        };
        let new = TopicLine { name: "millrace.dead-letters".into(), partitions: Vec::new(), ..topic.clone() };
        let list = table(&[topic.clone(), new]);
        assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
        assert!(list.contains("│ millrace.analytics.events ┆ 2 ") && list.contains("not created yet"), "{list}");
        let shown = description(&topic);
        assert!(
            shown.contains("content  one accepted event\n") && shown.contains("│ 0         ┆ 2     ┆ 5   │"),
            "{shown}"
        );
    }
}
