//! The topics of one log: the declared table, with the configured prefix and number of partitions applied.

use millrace_contracts::{Names, Topic};

use crate::LogError;

/// One declared topic.
#[derive(Debug, Clone)]
pub(crate) struct DeclaredTopic {
    pub(crate) topic: Topic,
    /// The name with the prefix.
    pub(crate) full_name: String,
    pub(crate) partitions: u32,
}

/// The table of topics of one log.
#[derive(Debug, Clone)]
pub(crate) struct Topics(Vec<DeclaredTopic>);

impl Topics {
    /// `configured` is the engine's setting `partitions`.
    pub(crate) fn new(table: &[Topic], names: &Names, configured: u32) -> Self {
        let declared = |topic: &Topic| DeclaredTopic {
            topic: *topic,
            full_name: names.topic(topic),
            partitions: topic.partitions.count(configured),
        };
        Self(table.iter().map(declared).collect())
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &DeclaredTopic> {
        self.0.iter()
    }

    pub(crate) fn find(&self, topic: Topic) -> Option<&DeclaredTopic> {
        self.0.iter().find(|declared| declared.topic.name == topic.name)
    }

    /// Panics if the table does not declare the topic.
    pub(crate) fn get(&self, topic: Topic) -> &DeclaredTopic {
        self.find(topic).expect("a topic is a row of the table of topics")
    }

    /// Refuses a stage whose input and changes differ in their number of partitions: partition p of the changes is the
    /// state of partition p of the input.
    pub(crate) fn check_stage(&self, input: Topic, changes: Topic) -> Result<(), LogError> {
        let (input, changes) = (self.get(input), self.get(changes));
        if input.partitions == changes.partitions {
            return Ok(());
        }
        Err(LogError::refused(format!(
            "topic {} has {} partitions and topic {}, with the changes made from it, has {}: a stage needs as many",
            input.full_name, input.partitions, changes.full_name, changes.partitions
        )))
    }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::{Partitions, TOPICS};

    use super::*;

    #[test]
    fn each_topic_has_its_own_number_of_partitions() {
        let fixed = Topic { name: "test.fixed", partitions: Partitions::Fixed(2), ..Topic::STATE };
        let table: Vec<Topic> = TOPICS.iter().copied().chain([fixed]).collect();
        let topics = Topics::new(&table, &Names::default(), 12);
        assert_eq!((topics.get(Topic::EVENTS).partitions, topics.get(fixed).partitions), (12, 2));
        assert_eq!(topics.get(fixed).full_name, "millrace.test.fixed");
        assert!(topics.check_stage(Topic::EVENTS, Topic::STATE).is_ok());
        assert!(matches!(topics.check_stage(Topic::EVENTS, fixed), Err(LogError::Refused(_))));
    }
}
