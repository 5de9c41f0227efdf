//! Reads a topic for people. Blocking, like the readers of the log.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use millrace_contracts::Topic;
use millrace_log::{Batch, Limits, Log, LogError, PollOutcome, TopicInfo};

use super::Line;

/// A read without a record and without the end for this long fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const STEP: Limits = Limits { records: 500, bytes: 1 << 20, wait: Duration::from_millis(200) };

/// The start of reading, in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The oldest record.
    Beginning,
    /// After the newest record.
    End,
    /// An offset, or the nearest that exists.
    Offset(u64),
}

/// The records to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailRequest {
    /// The topic.
    pub(crate) topic: Topic,
    /// One partition, or all.
    pub(crate) partition: Option<u32>,
    /// The start.
    pub(crate) from: From,
    /// Most records.
    pub(crate) max: Option<u64>,
    /// Whether to continue at the end.
    pub(crate) follow: bool,
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            offset => offset.parse().map(Self::Offset).map_err(|_| "must be beginning, end or an offset".into()),
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("beginning"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => offset.fmt(f),
        }
    }
}

impl TailRequest {
    /// Reads until the end, `max` records, or until `emit` returns `false`. Calls `emit` with `None` now and then, so that it can
    /// end an idle read.
    pub(crate) fn read(
        &self,
        log: &Log,
        infos: &[TopicInfo],
        mut emit: impl FnMut(Option<Line>) -> bool,
    ) -> Result<(), LogError> {
        let mut open = self.positions(infos)?;
        let mut left = self.max.unwrap_or(u64::MAX);
        if open.is_empty() || left == 0 {
            return Ok(());
        }
        let mut reader = log.reader(self.topic, &open)?;
        let mut batch = Batch::default();
        let mut last_progress = Instant::now();
        while self.follow || !open.is_empty() {
            match reader.poll(&mut batch, STEP)? {
                PollOutcome::Records => {
                    last_progress = Instant::now();
                    for record in batch.iter() {
                        if left == 0 || !emit(Some(Line::of(&self.topic, batch.partition(), record))) {
                            return Ok(());
                        }
                        left -= 1;
                    }
                }
                PollOutcome::CaughtUp { partition, .. } => {
                    last_progress = Instant::now();
                    open.retain(|&(other, _)| other != partition);
                }
                PollOutcome::Nothing if self.follow || last_progress.elapsed() < STALL_TIMEOUT => {}
                PollOutcome::Nothing => {
                    return Err(LogError::unavailable(format!("the log returned nothing for {STALL_TIMEOUT:?}")));
                }
            }
            if left == 0 || !emit(None) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn positions(&self, infos: &[TopicInfo]) -> Result<Vec<(u32, u64)>, LogError> {
        let info = infos.iter().find(|info| info.topic == self.topic && !info.partitions.is_empty());
        let info = info.ok_or_else(|| {
            LogError::refused(format!("the topic {} does not exist yet; any service creates it", self.topic.name))
        })?;
        let all =
            (0..).zip(&info.partitions).filter(|(number, _)| self.partition.is_none_or(|wanted| wanted == *number));
        let positions: Vec<_> = all
            .map(|(number, partition)| {
                let position = match self.from {
                    From::Beginning => partition.start,
                    From::End => partition.end,
                    From::Offset(offset) => offset.clamp(partition.start, partition.end),
                };
                (number, position)
            })
            .collect();
        match self.partition {
            Some(wanted) if positions.is_empty() => {
                let last = info.partitions.len() - 1;
                Err(LogError::refused(format!("no partition {wanted} in {}; valid are 0..={last}", info.full_name)))
            }
            _ => Ok(positions),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_log::PartitionInfo;

    use super::*;

    fn request(from: From, partition: Option<u32>) -> TailRequest {
        TailRequest { topic: Topic::EVENTS, partition, from, max: None, follow: false }
    }

    #[test]
    fn clamps_positions_to_the_log() {
        let partitions = vec![PartitionInfo { start: 5, end: 9 }, PartitionInfo { start: 0, end: 0 }];
        let infos = [TopicInfo { topic: Topic::EVENTS, full_name: "x.analytics.events".into(), partitions }];
        let at = |from, partition| request(from, partition).positions(&infos);
        assert_eq!(at(From::Beginning, None), Ok(vec![(0, 5), (1, 0)]));
        assert_eq!(at(From::End, None), Ok(vec![(0, 9), (1, 0)]));
        assert_eq!(at(From::Offset(7), None), Ok(vec![(0, 7), (1, 0)]));
        assert_eq!(at(From::Offset(100), Some(0)), Ok(vec![(0, 9)]));
        assert!(at(From::End, Some(2)).unwrap_err().to_string().contains("valid are 0..=1"));
        assert!(request(From::End, None).positions(&[]).is_err(), "no topic yet");
    }

    #[test]
    fn parses_what_it_displays() {
        for from in [From::Beginning, From::End, From::Offset(12)] {
            assert_eq!(from.to_string().parse(), Ok(from));
        }
        assert!("-1".parse::<From>().is_err());
    }
}
