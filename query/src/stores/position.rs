//! Positions of events that counts must contain, and up to where counts hold.

use millrace_contracts::{CountedPosition, SHARDS};

/// The events that counts must contain: of each partition those up to and including an offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MinPositions(Vec<(u32, u64)>);

impl MinPositions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the positions of a text as the write side returns them: `{topic}/{partition}@{offset}`, several of them separated
    /// by commas, all but the first with or without the topic.
    ///
    /// # Errors
    /// When the text is something else, or the topic is not `topic`.
    pub fn add(&mut self, text: &str, topic: &str) -> Result<(), PositionError> {
        for (index, part) in text.split(',').enumerate() {
            let (of, position) = match part.trim().rsplit_once('/') {
                Some((of, position)) => (Some(of), position),
                None => (None, part.trim()),
            };
            let of_topic = of.map_or(index > 0, |of| of == topic);
            let (partition, offset) = position.split_once('@').ok_or(PositionError::Form)?;
            let (Some(partition), Some(offset)) = (number(partition), number(offset)) else {
                return Err(PositionError::Form);
            };
            // No topic has more partitions than there are shards.
            match u32::try_from(partition) {
                Ok(number) if of_topic && partition < SHARDS => self.raise(number, offset),
                _ => return Err(PositionError::Topic),
            }
        }
        Ok(())
    }

    /// Refuses positions of partitions that a topic with this many does not have: nothing ever counts up to them.
    pub(crate) fn within(&self, partitions: u32) -> Result<(), PositionError> {
        let within = self.0.iter().all(|&(partition, _)| partition < partitions);
        within.then_some(()).ok_or(PositionError::Topic)
    }

    fn raise(&mut self, partition: u32, offset: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == partition) {
            Some((_, highest)) => *highest = offset.max(*highest),
            None => self.0.push((partition, offset)),
        }
    }

    /// Whether counts up to these positions contain the events.
    pub(crate) fn are_in(&self, counted: &[Option<CountedPosition>]) -> bool {
        self.0.iter().all(|&(partition, offset)| {
            let counted = counted.get(partition as usize).copied().flatten();
            counted.is_some_and(|counted| offset < counted.next_offset)
        })
    }
}

/// A number of digits only, at most that of the largest offset.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| i64::try_from(*number).is_ok())
}

/// Why a text is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Not of the form of a position.
    #[error("not a position as the write side returns it: topic/partition@offset")]
    Form,
    /// Of a topic without counts, or of a partition that it does not have.
    #[error("not a position in the topic of events")]
    Topic,
}

/// Up to where counts hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// The counts contain every event that the log received before this time, in ms since the epoch; `None` if that is not
    /// known.
    pub up_to_ms: Option<i64>,
    /// The number of events that the log had received, if the counts contain all of them; 0 if the log is not known. Counts
    /// without it are not cached.
    pub log_end: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "millrace.analytics.events";

    fn parse(text: &str) -> Result<Vec<(u32, u64)>, PositionError> {
        let mut positions = MinPositions::default();
        positions.add(text, TOPIC).map(|()| positions.0)
    }

    #[test]
    fn positions_are_read_as_they_are_returned() {
        assert_eq!(parse("millrace.analytics.events/11@0"), Ok(vec![(11, 0)]));
        assert_eq!(parse("millrace.analytics.events/0@5,3@17, 0@4"), Ok(vec![(0, 5), (3, 17)]));
        let both = parse("millrace.analytics.events/0@5,millrace.analytics.events/0@9");
        assert_eq!(both, Ok(vec![(0, 9)]), "the highest of a partition");
        for form in [
            "",
            "11@0x",
            "millrace.analytics.events/1",
            "millrace.analytics.events/1@",
            "a/@1",
            "a/1@-1",
            "millrace.analytics.events/1@1,",
        ] {
            assert_eq!(parse(form), Err(PositionError::Form), "{form}");
        }
        for topic in ["11@0", "millrace.messages/1@1", "millrace.analytics.events/1024@1", "/1@1"] {
            assert_eq!(parse(topic), Err(PositionError::Topic), "{topic}");
        }
        assert_eq!(parse("a/1@9223372036854775808"), Err(PositionError::Form));
    }

    #[test]
    fn a_position_is_reached_once_its_event_is_counted() {
        let at = |partition, next_offset| Some(CountedPosition { partition, next_offset, log_time_ms: 0 });
        let mut positions = MinPositions::default();
        assert!(positions.are_in(&[]), "none is required");
        positions.add("millrace.analytics.events/1@7", TOPIC).unwrap();
        for (counted, reached) in [
            (vec![], false),
            (vec![at(0, 9), None], false),
            (vec![None, at(1, 7)], false),
            (vec![None, at(1, 8)], true),
        ] {
            assert_eq!(positions.are_in(&counted), reached, "{counted:?}");
        }
    }
}
